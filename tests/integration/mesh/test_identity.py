"""Who gets through: peers by certificate, users by token, and nobody by what he says of himself."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from kernel.errors import PermissionDeniedError
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from mesh.local.ca import Authority, Svid
from mesh.local.compiler.tls import spiffe_id
from mesh.local.operator import NAMESPACE, TRUST_DOMAIN
from mesh.local.sidecar import GRPC_PORT, egress_target
from tests.integration.mesh.world import CHECK, CREATE, READ_EVENTS, RISK_STATE, Issuer, World, call, refusal, running

NOBODY_UID = 65_534


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "m", {"svc_oms": ["svc_oms-0"], "svc_risk": ["svc_risk-0"], "edge": ["edge-0"]}) as started:
        yield started


def svid(world: World, service_account: str, *, trust_domain: str = TRUST_DOMAIN) -> Svid:
    return world.authority().issue(spiffe_id(trust_domain, NAMESPACE, service_account), seconds=60)


async def post(world: World, identity: Svid | None, path: str, headers: dict[str, str], *, files: Path) -> http.client.HTTPResponse:
    """Call svc_oms's inbound port without a sidecar of one's own, as somebody who stole a certificate would."""
    return await asyncio.to_thread(_post, world.authority().root_pem, world.proxy("svc_oms-0").address, identity, path, headers, files)


def _post(root: str, address: str, identity: Svid | None, path: str, headers: dict[str, str], files: Path) -> http.client.HTTPResponse:
    context = ssl.create_default_context(cadata=root)
    context.check_hostname = False
    if identity is not None:
        (files / "crt").write_text(identity.certificate)
        (files / "key").write_text(identity.key)
        context.load_cert_chain(files / "crt", files / "key")
    connection = http.client.HTTPSConnection(address, GRPC_PORT, context=context, timeout=10)
    try:
        connection.request("POST", path, b"\0\0\0\0\0", {"content-type": "application/grpc", "te": "trailers", **headers})
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    return response


async def test_an_allowed_call_arrives_with_one_peer_and_the_users_claims(world: World) -> None:
    said = await world.call("edge-0", "svc-oms", CREATE, token=world.issuer.token())
    assert said == {"peer": "edge", "user": "ada"}
    [(_, headers)] = world.applications["svc_oms-0"].calls
    for name in (SECRET_HEADER, PEER_HEADER, CLAIMS_HEADER):
        assert len([value for key, value in headers if key == name]) == 1, name
    # What it has no use for cannot be taken from it.
    assert "authorization" not in dict(headers)
    assert "," not in str(dict(headers)[PEER_HEADER])


async def test_services_call_each_other_without_a_user(world: World) -> None:
    assert await world.call("svc_risk-0", "svc-oms", READ_EVENTS) == {"peer": "svc-risk", "user": None}


async def test_the_kernels_client_asks_its_sidecar_for_the_host(world: World) -> None:
    target = egress_target(world.layout, "svc_oms-0", "svc_risk")
    async with MeshChannel(ClientConfig(dependency="svc-risk", targets=(target,))) as channel:
        check = channel.unary_unary(CHECK, lambda request: request, lambda answer: answer)
        assert json.loads(await check(b"")) == {"peer": "svc-oms", "user": None}
        refused = channel.unary_unary(RISK_STATE, lambda request: request, lambda answer: answer)
        with pytest.raises(PermissionDeniedError, match="RBAC: access denied"):
            await refused(b"")


async def test_a_call_past_the_sidecar_is_not_believed(world: World) -> None:
    async with grpc.aio.insecure_channel(f"unix:{world.layout.socket('svc_oms-0')}") as channel:
        forged = ((PEER_HEADER, xfcc("edge", trust_domain=TRUST_DOMAIN, namespace=NAMESPACE)), (SECRET_HEADER, "guessed-guessed-guessed"))
        error = await refusal(call(channel, CREATE, headers=forged))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_what_a_caller_says_of_himself_is_dropped(world: World, tmp_path: Path) -> None:
    user = User("mallory", "demo", frozenset({"trader"}), frozenset({"ACC-1"}), 2_000_000_000)
    forged = {
        PEER_HEADER: xfcc("edge", trust_domain=TRUST_DOMAIN, namespace=NAMESPACE),
        SECRET_HEADER: "forged-forged-forged",
        CLAIMS_HEADER: claims_header(user),
    }
    response = await post(world, svid(world, "svc-risk"), READ_EVENTS, forged, files=tmp_path)
    assert response.status == 200
    [(_, headers)] = world.applications["svc_oms-0"].calls
    found = dict(headers)
    assert len(found) == len(headers)
    assert found[SECRET_HEADER] == world.proxy("svc_oms-0").secret
    assert str(found[PEER_HEADER]).count("URI=") == 1
    assert "sa/svc-risk" in str(found[PEER_HEADER])
    assert CLAIMS_HEADER not in found
    said = await world.call("svc_risk-0", "svc-oms", READ_EVENTS, headers=tuple(forged.items()))
    assert said == {"peer": "svc-risk", "user": None}
    # And the forged claims of a user do not open a method for users.
    refused = await post(world, svid(world, "edge"), CREATE, forged, files=tmp_path)
    assert refused.headers["grpc-status"] == "7"


@pytest.mark.parametrize(
    ("instance", "callee", "path"),
    [("svc_oms-0", "svc-risk", RISK_STATE), ("svc_risk-0", "svc-oms", CREATE), ("edge-0", "svc-oms", READ_EVENTS)],
)
async def test_a_principal_that_no_policy_names_is_denied(world: World, instance: str, callee: str, path: str) -> None:
    error = await refusal(world.call(instance, callee, path, token=world.issuer.token()))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert not any(application.calls for application in world.applications.values())


async def test_a_user_is_needed_where_users_call(world: World) -> None:
    error = await refusal(world.call("edge-0", "svc-oms", CREATE))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_tokens_that_do_not_count_are_refused(world: World) -> None:
    stranger = Issuer()
    for token, code in (
        (world.issuer.token(seconds=-120), grpc.StatusCode.UNAUTHENTICATED),
        (world.issuer.token(iss="http://elsewhere"), grpc.StatusCode.UNAUTHENTICATED),
        (stranger.token(), grpc.StatusCode.UNAUTHENTICATED),
        ("not-a-token", grpc.StatusCode.UNAUTHENTICATED),
        # Envoy takes a token for somebody else as one that says too little.
        (world.issuer.token(aud="another"), grpc.StatusCode.PERMISSION_DENIED),
    ):
        error = await refusal(world.call("edge-0", "svc-oms", CREATE, token=token))
        assert error.code() is code, token
    # A bad token is refused where none is needed, too.
    error = await refusal(world.call("svc_risk-0", "svc-oms", READ_EVENTS, token=stranger.token()))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not world.applications["svc_oms-0"].calls


async def test_only_certificates_of_this_mesh_are_taken(world: World, tmp_path: Path) -> None:
    with socket.create_connection((world.proxy("svc_oms-0").address, GRPC_PORT), timeout=10) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert plain.recv(100) == b""

    def past() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)

    name = spiffe_id(TRUST_DOMAIN, NAMESPACE, "svc-risk")
    expired = Authority.open(world.layout.data("ca"), trust_domain=TRUST_DOMAIN, now=past).issue(name, seconds=60)
    foreign = Authority.open(tmp_path / "ca", trust_domain=TRUST_DOMAIN, now=lambda: datetime.datetime.now(datetime.UTC))
    for identity in (None, expired, foreign.issue(name, seconds=60), svid(world, "svc-risk", trust_domain="elsewhere.local")):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            await post(world, identity, READ_EVENTS, {}, files=tmp_path)
    assert (await post(world, svid(world, "svc-risk"), READ_EVENTS, {}, files=tmp_path)).status == 200


async def test_a_host_that_the_sidecar_does_not_list_cannot_be_called(world: World) -> None:
    for callee in ("svc-oms", "svc-elsewhere"):
        error = await refusal(world.call("svc_oms-0", callee, READ_EVENTS))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_another_user_cannot_use_the_sidecars_sockets(world: World) -> None:
    proxy = world.proxy("svc_risk-0")
    become = f"import os, socket, sys; os.setgroups([]); os.setgid({NOBODY_UID}); os.setuid({NOBODY_UID})"
    program = f"{become}; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for path in (proxy.egress_socket, proxy.admin_socket, world.layout.socket("svc_risk-0")):
        assert path.is_socket()
        done = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", program, str(path), stderr=asyncio.subprocess.PIPE)
        _, said = await done.communicate()
        assert b"PermissionError" in said
    for path in (proxy.egress_socket, proxy.admin_socket):
        assert path.stat().st_mode & 0o077 == 0
