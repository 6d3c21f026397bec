"""Attacks on the edge of a whole mesh, with tokens that its own issuer's key has signed: denied in the caller's own language."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import grpc
import jwt
import pytest

from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER
from tests.e2e.edge.client import ORDERS, Client, order
from trademesh.oms.v1 import order_service_pb2

pytestmark = pytest.mark.e2e

LIST = "/trademesh.oms.v1.OrderService/ListOrders"
REQUEST = order_service_pb2.ListOrdersRequest(account_id="ACC-1").SerializeToString()


def signed(client: Client, **changes: Any) -> str:
    """Return ada's token with other claims, signed with the key that signs now; a claim of None is left out."""
    keys = json.loads((client.mesh.layout.data("issuer") / "keys.json").read_text())["keys"]
    key = max((key for key in keys if key["signs_from"] <= time.time()), key=lambda key: key["signs_from"])
    claims = jwt.decode(client.token(), options={"verify_signature": False})
    changed = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(changed, key["private_key"], algorithm="ES256", headers={"kid": key["kid"]})


async def both(client: Client, token: str) -> tuple[int, str, grpc.StatusCode]:
    """Return how REST (status, reason) and gRPC answer a token."""
    answer = await client.call("GET", ORDERS, headers={"authorization": f"Bearer {token}"})
    assert answer.headers["content-type"] == "application/json"
    async with client.channel() as channel:
        method: Any = channel.unary_unary(LIST)
        try:
            await method(REQUEST, metadata=(("authorization", f"Bearer {token}"),), timeout=10)
        except grpc.aio.AioRpcError as error:
            return answer.status, answer.reason if answer.status != 200 else "", error.code()
    return answer.status, "", grpc.StatusCode.OK


async def test_a_token_signed_as_the_issuer_does_is_taken(client: Client) -> None:
    """Else what follows would be refused for another reason."""
    assert await both(client, signed(client)) == (200, "", grpc.StatusCode.OK)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1_700_000_000}, "TOKEN_EXPIRED"),
        ({"exp": None}, "USER_UNAUTHENTICATED"),
        ({"nbf": 4_000_000_000}, "USER_UNAUTHENTICATED"),
        ({"aud": "another-service"}, "USER_UNAUTHENTICATED"),
        ({"aud": None}, "USER_UNAUTHENTICATED"),
        ({"iss": "https://issuer.evil.test"}, "USER_UNAUTHENTICATED"),
    ],
    ids=["expired", "endless", "early", "wrong-audience", "no-audience", "wrong-issuer"],
)
async def test_a_token_for_another_time_or_place_is_none(client: Client, changes: Mapping[str, Any], reason: str) -> None:
    assert await both(client, signed(client, **changes)) == (401, reason, grpc.StatusCode.UNAUTHENTICATED)


@pytest.mark.parametrize(
    ("key", "changes"), [("tenant", {"tenant": "other-tenant"}), ("account", {"accounts": ["ACC-9"]}), ("nothing", {"accounts": []})]
)
async def test_another_tenants_or_nobodys_user_sees_nothing(client: Client, key: str, changes: Mapping[str, Any]) -> None:
    placed = (await client.call("POST", ORDERS, order(f"attack-{key}", "26"))).json["order"]["order_id"]
    bearer = {"authorization": f"Bearer {signed(client, **changes)}"}
    answer = await client.call("GET", f"{ORDERS}/{placed}", headers=bearer)
    assert answer.status in (403, 404), answer.body
    refused = await client.call("POST", f"{ORDERS}/{placed}:cancel", {"request_id": "00000000-0000-4000-8000-000000000001"}, headers=bearer)
    assert refused.status in (403, 404), refused.body


async def test_a_viewer_cannot_trade_under_either_name(client: Client) -> None:
    bearer = {"authorization": f"Bearer {signed(client, roles=['viewer'])}"}
    refused = await client.call("POST", ORDERS, order("attack-viewer", "27"), headers=bearer)
    assert (refused.status, refused.reason) == (403, "ROLE_REQUIRED")
    # The gRPC name of a method is no way around the rights of its REST name, nor the other way round.
    for path in (
        "/trademesh.oms.v1.OrderService/CreateOrder",
        "/v1/../trademesh.oms.v1.OrderService/CreateOrder",
        "//v1/accounts/ACC-1/orders",
    ):
        answer = await client.call("POST", path, order("attack-viewer", "27"), headers=bearer)
        assert answer.status in (400, 403, 404, 415), (path, answer.status, answer.body)
        assert "code" in answer.json
    assert (await client.call("GET", f"{ORDERS}:lookup?client_order_id=attack-viewer")).status in (404, 400)


async def test_forged_headers_of_the_mesh_make_nobody_of_anybody(client: Client) -> None:
    forged = dict.fromkeys((PEER_HEADER, CLAIMS_HEADER, SECRET_HEADER, "x-trademesh-method", "x-envoy-original-path"), "forged")
    answer = await client.call("GET", "/v1/accounts/ACC-2/orders", headers={**client.bearer(), **forged})
    assert (answer.status, answer.reason) == (403, "ACCOUNT_NOT_ALLOWED")
    internal = await client.call("POST", "/trademesh.risk.v1.PreTradeService/CheckOrders", "{}", headers={**client.bearer(), **forged})
    assert internal.status in (404, 415)


@pytest.mark.parametrize(
    "lines",
    [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/limits HTTP/1.1\r\n\r\n",
        "content-length: 2\r\ncontent-length: 40\r\n\r\n{}",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_smuggled_request_reaches_nobody(client: Client, lines: str) -> None:
    host, _, port = client.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=client.tls, server_hostname="localhost")
    bearer = client.bearer()["authorization"]
    writer.write(f"POST {ORDERS} HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\ncontent-type: application/json\r\n{lines}".encode())
    async with asyncio.timeout(10):
        said = await reader.read()
    writer.transport.abort()
    assert said.startswith(b"HTTP/1.1 400 "), said[:200]
    assert said.count(b"HTTP/1.1 ") == 1
    assert b'"code":' in said
