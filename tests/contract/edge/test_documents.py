"""The edge's documents: what Envoy takes, what the contract has to bring, and the strict options that were measured."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2

from kernel.errors import FailedPreconditionError, FieldViolation, InvalidArgumentError, NotFoundError, Reason, ResourceExhaustedError
from kernel.status import to_status
from mesh.edge import refusals
from mesh.edge.access import load
from mesh.edge.contract import installed
from mesh.edge.documents import documents
from mesh.edge.filters import TRANSCODER
from mesh.edge.launch import command
from mesh.edge.options import EdgeOptions
from tests.integration.edge.world import AUDIENCE, ISSUER, Issuer, mesh_routes, write_certificate

# What notes on Envoy's transcoder demand; a looser value lets through what the services never see.
STRICT = {
    "match_incoming_request_route": False,
    "auto_mapping": False,
    "convert_grpc_status": True,
    "case_insensitive_enum_parsing": False,
    "ignore_unknown_query_parameters": False,
    "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
    "query_param_unescape_plus": False,
    "request_validation_options": {
        "reject_unknown_method": True,
        "reject_unknown_query_parameters": True,
        "reject_binding_body_field_collisions": True,
    },
    "max_request_body_size": 1_048_576,
    "max_response_body_size": 8_388_608,
}


@pytest.fixture
def options(tmp_path: Path) -> EdgeOptions:
    """Return options of an edge that nobody starts."""
    return EdgeOptions(
        port=8443,
        certificates=tmp_path / "tls",
        configuration=tmp_path / "configuration",
        admin_socket=tmp_path / "admin.sock",
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks=json.dumps({"keys": [Issuer().jwk()]}),
        access_log=tmp_path / "access.log",
        origins=("https://desk.test",),
    )


def made(options: EdgeOptions) -> Any:
    contract = installed()
    clusters, routes = mesh_routes(load(contract), {})
    return documents(options, contract, clusters, routes)


def chain(options: EdgeOptions) -> list[Any]:
    manager = made(options).listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    filters: list[Any] = manager["http_filters"]
    return filters


def test_envoy_takes_the_documents(options: EdgeOptions, tmp_path: Path) -> None:
    found = made(options)
    write_certificate(tmp_path)
    path = tmp_path / "static.json"
    path.write_text(json.dumps(found.static()))
    program, *_ = command(options.configuration)
    result = subprocess.run([program, "--mode", "validate", "-c", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_documents_are_a_function_of_their_inputs(options: EdgeOptions) -> None:
    assert made(options) == made(options)


def test_the_transcoder_is_strict(options: EdgeOptions) -> None:
    (transcoder,) = [entry["typed_config"] for entry in chain(options) if entry["name"] == TRANSCODER]
    assert {name: transcoder[name] for name in STRICT} == STRICT
    assert transcoder["print_options"] == {
        "preserve_proto_field_names": True,
        "always_print_primitive_fields": True,
        "stream_newline_delimited": True,
    }


def test_rights_are_asked_behind_the_transcoder_and_tokens_before_bodies(options: EdgeOptions) -> None:
    order = [entry["name"].rpartition(".")[2] for entry in chain(options)]
    assert order == [
        "header_mutation",
        "cors",
        "grpc_web",
        "connection_rate",
        "full",
        "jwt_authn",
        "lua",
        "lines",
        "grpc_json_transcoder",
        "rbac",
        "user_rate",
        "router",
    ]


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError(Reason.FIELD_INVALID, "x", field_violations=[FieldViolation("a", "b", "c")]),
        FailedPreconditionError(Reason.ORDER_TERMINAL, "x"),
        ResourceExhaustedError(Reason.OVERLOADED, "x", retry_after_seconds=1),
        NotFoundError(Reason.ORDER_NOT_FOUND, "x", metadata={"resource_type": "order", "resource_name": "o"}),
    ],
)
def test_the_descriptor_has_every_detail_of_an_error(options: EdgeOptions, error: Any) -> None:
    """Where one is missing, Envoy answers with an empty body."""
    (transcoder,) = [entry["typed_config"] for entry in chain(options) if entry["name"] == TRANSCODER]
    files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(transcoder["proto_descriptor_bin"]))
    known = {f"{file.package}.{message.name}" for file in files.file for message in file.message_type}
    for detail in to_status(error).details:
        assert detail.type_url.rpartition("/")[2] in known
    assert error_details_pb2.DESCRIPTOR.name in {file.name for file in files.file}


@pytest.mark.parametrize("refusal", refusals.REFUSALS, ids=lambda refusal: f"{refusal.http}-{refusal.reason}")
def test_a_proxys_unavailable_is_only_what_never_left(refusal: refusals.Refusal) -> None:
    """UNAVAILABLE with our ErrorInfo means that nothing was persisted; Envoy may say so only of requests that it did not send."""
    status = refusals.status(refusal, grpc=True)
    if status.code == 14:
        assert set(refusal.flags) <= {"UH", "UF"}
        assert refusal.flags
    assert len(status.SerializeToString()) < 1_024


def test_no_secret_and_no_token_in_the_documents(options: EdgeOptions) -> None:
    found = json.dumps(made(options).files())
    assert '"d"' not in found
    assert "sidecar-secret" not in found
