"""Streams for JSON clients: lines or Server-Sent Events, past the bound of unary calls, with their end in the stream."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from kernel.errors import Reason, UnavailableError
from tests.integration.edge.backend import Backend, Orders
from tests.integration.edge.test_rest import PATH
from tests.integration.edge.world import Edge, running
from trademesh.oms.v1 import order_service_pb2 as oms

STREAM = f"{PATH}:stream"


@pytest.fixture(scope="module")
def edge(backend: Backend) -> Iterator[Edge]:
    """Return an edge whose unary calls end after 0.4 seconds, as the mesh's routes say."""
    with running({"svc-oms": backend.socket}, timeout="0.4s") as found:
        yield found


def event(sequence: int) -> oms.StreamOrderEventsResponse:
    return oms.StreamOrderEventsResponse(sequence=sequence)


def test_lines(edge: Edge, orders: Orders) -> None:
    orders.events = [event(1), event(2)]
    answer = edge.call("GET", STREAM)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["sequence"] for line in answer.body.splitlines()] == ["1", "2"]


def test_server_sent_events(edge: Edge, orders: Orders) -> None:
    orders.events = [event(1), event(2)]
    answer = edge.call("GET", STREAM, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "text/event-stream"
    parts = answer.body.decode().split("\n\n")
    assert [json.loads(part.removeprefix("data: "))["sequence"] for part in parts if part] == ["1", "2"]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_stream_outlives_the_bound_of_unary_calls(edge: Edge, orders: Orders, accept: str) -> None:
    orders.events = [event(1), 0.6, event(2)]
    answer = edge.call("GET", STREAM, headers={"accept": accept})
    assert answer.body.count(b'"sequence"') == 2
    assert orders.deadlines[0] > 60


def test_the_end_stands_in_the_stream(edge: Edge, orders: Orders) -> None:
    orders.events = [event(1), UnavailableError(Reason.SHUTTING_DOWN, "the service is draining", retry_after_seconds=0.25)]
    answer = edge.call("GET", STREAM)
    last = json.loads(answer.body.splitlines()[-1])
    assert last["end"]["status"]["code"] == 14
    assert last["end"]["status"]["details"][0]["reason"] == "SHUTTING_DOWN"


def test_a_stream_that_does_not_begin_is_an_error(edge: Edge, orders: Orders) -> None:
    answer = edge.call("GET", "/v1/accounts/lower/orders:stream")
    assert (answer.status, answer.reason) == (400, "FIELD_INVALID")
    assert answer.headers["content-type"] == "application/json"
    shut = edge.call("GET", STREAM, token=edge.issuer.token(roles=["nobody"]), headers={"accept": "text/event-stream"})
    assert (shut.status, shut.reason) == (403, "ROLE_REQUIRED")
