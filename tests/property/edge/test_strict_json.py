"""The Lua in a real Envoy against the reference: neither passes what the other refuses, and what passes arrives as it was written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings

from mesh.edge.access import Grant
from tests.integration.edge.backend import Recorder
from tests.integration.edge.world import Edge, running
from tests.property.edge import everything, reference
from tests.property.edge.documents import documents

BOUND = frozenset({"path_id"})
CONTRACT = everything.contract()
MESSAGE = CONTRACT.message(everything.MESSAGE)
CLASS: type[Message] = everything.message_class(CONTRACT)


class World:
    """An edge, and what arrives behind it."""

    def __init__(self, edge: Edge, recorder: Recorder) -> None:
        self.edge = edge
        self.recorder = recorder
        self.token = edge.issuer.token(roles=["tester"])


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Return a running edge of the contract of everything."""
    folder = Path(tempfile.mkdtemp(prefix="tmf-", dir="/tmp"))
    recorder = Recorder(folder / "all.sock")
    grants = [Grant(method, "svc-oms", frozenset({"tester"}), 10.0, False) for method in CONTRACT.methods(everything.SERVICE)]
    with running({"svc-oms": folder / "all.sock"}, contract=CONTRACT, grants=grants) as edge:
        yield World(edge, recorder)
    recorder.stop()
    shutil.rmtree(folder)


def judged(document: bytes) -> bool:
    try:
        reference.check(document, MESSAGE, BOUND)
    except reference.RefusedError:
        return False
    return True


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(documents())
@example(b'{"at_time":"9999-12-31T23:59:59.999999999Z"}')
@example(b'{"ratio":"1e999"}')
@example(b'{"any_value":1e400}')
@example(b'{"by_flag":{"true":"a","true":"b"}}')
@example(b'{"left_text":null,"right_inner":{}}')
@example(b'{"left_text":"","right_inner":{}}')
@example(b'{"any_value":null}')
@example(b'{"values":null}')
@example(b'{"values":[null,{"a":null}]}')
@example(b'{"facts":' + b'{"a":' * 30 + b"1" + b"}" * 30 + b"}")
@example(b'{"facts":' + b'{"a":' * 32 + b"1" + b"}" * 32 + b"}")
@example(b'{"inner":' * 31 + b"{}" + b"}" * 31)
@example(b'{"inner":' * 32 + b"{}" + b"}" * 32)
@example(b'{"any_list":' + b"[" * 100_000)
def test_the_door_agrees_with_the_reference(world: World, document: bytes) -> None:
    before = world.recorder.count
    answer = world.edge.call("POST", "/v1/everything/P-1", document, token=world.token)
    if not judged(document):
        assert answer.status == 400, (document, answer.body)
        assert answer.reason in {"JSON_INVALID", "FIELD_UNKNOWN", "FIELD_INVALID"}
        assert answer.violations
        assert world.recorder.count == before
        return
    assert answer.status == 200, (document, answer.body)
    assert world.recorder.count == before + 1
    expected = json_format.Parse(document, CLASS())
    setattr(expected, "path_id", "P-1")  # noqa: B010 (the class is made at run time)
    assert CLASS.FromString(world.recorder.last) == expected, document
