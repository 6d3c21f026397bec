"""WebSockets through the edge of a whole mesh: who may open one, the order stream over it, and going on after a close."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import ORIGIN
from tests.e2e.edge.client import ORDERS, SUBPROTOCOL, Client, order

pytestmark = pytest.mark.e2e

STREAM = "trademesh.oms.v1.OrderService/StreamOrderEvents"


async def begin(socket: aiohttp.ClientWebSocketResponse, **request: str) -> None:
    await socket.send_json({"id": "s", "method": STREAM, "request": {"account_id": "ACC-1", **request}})


async def envelope(socket: aiohttp.ClientWebSocketResponse) -> Any:
    """Return the next envelope of the stream that is no heartbeat."""
    async with asyncio.timeout(20):
        while True:
            found = await socket.receive_json()
            assert "message" in found, found
            if "heartbeat" not in found["message"]:
                return found["message"]


async def refused(client: Client, headers: dict[str, str], *protocols: str, path: str = "/v1/ws") -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with client.socket(headers, protocols=(SUBPROTOCOL, *protocols), path=path):
            pass
    return caught.value.status


async def test_orders_come_over_a_socket_and_go_on_after_a_close(client: Client) -> None:
    async with client.socket(client.bearer()) as socket:
        await begin(socket)
        last = await envelope(socket)
        assert "snapshot" in last
        assert (await client.call("POST", ORDERS, order("edge-ws-1", "31"))).status == 200
        while "edge-ws-1" not in json.dumps(last):
            last = await envelope(socket)
        token = last["resume_token"]
    assert (await client.call("POST", ORDERS, order("edge-ws-2", "32"))).status == 200
    async with client.socket(client.bearer()) as socket:
        await begin(socket, resume_token=token)
        first = await envelope(socket)
        assert "event" in first
        while "edge-ws-2" not in json.dumps(first):
            assert "snapshot" not in first
            first = await envelope(socket)


async def test_a_pages_ticket_opens_one_socket(client: Client) -> None:
    made = await client.call("POST", "/v1/ws/tickets", {}, headers={**client.bearer(), "origin": ORIGIN})
    assert made.status == 200, made.body
    ticket = f"ticket.{made.json['ticket']}"
    assert await refused(client, {"origin": "https://evil.test"}, ticket) == 403
    async with client.socket({"origin": ORIGIN}, protocols=(SUBPROTOCOL, ticket)) as socket:
        await begin(socket)
        assert "snapshot" in await envelope(socket)
    assert await refused(client, {"origin": ORIGIN}, ticket) == 401
    assert await refused(client, {"origin": ORIGIN}, "ticket.invented") == 401


async def test_nobody_else_opens_one(client: Client) -> None:
    token = client.token()
    assert await refused(client, {}) == 401
    assert await refused(client, {"authorization": f"Bearer {token[:-6]}AAAAAA"}) == 401
    assert await refused(client, {"authorization": f"Bearer {token}", "origin": "https://evil.test"}) == 403
    assert await refused(client, {}, path=f"/v1/ws?access_token={token}") in (400, 401)
    answer = await client.call("POST", "/v1/ws/tickets", {}, headers={"authorization": f"Bearer {token}", "origin": "https://evil.test"})
    assert (answer.status, answer.reason) == (403, "ORIGIN_NOT_ALLOWED")


async def test_orders_cannot_be_placed_over_one(client: Client) -> None:
    async with client.socket(client.bearer()) as socket:
        await socket.send_json({"id": "w", "method": "trademesh.oms.v1.OrderService/CreateOrder", "request": order("k", "1")})
        end = await socket.receive_json(timeout=10)
        assert end["end"]["status"]["details"][0]["reason"] == "METHOD_NOT_FOUND"
