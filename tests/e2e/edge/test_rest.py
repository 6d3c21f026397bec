"""REST, streams and gRPC-Web through the edge of a whole mesh."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import struct
import uuid
from typing import Any

import aiohttp
import psutil
import pytest

from mesh.edge.launch import DRAIN_SECONDS
from mesh.local.edge import EDGE
from tests.e2e.edge.client import ORDERS, STRANGER, Client, order
from trademesh.oms.v1 import order_service_pb2
from trademesh.type.v1 import order_terms_pb2

pytestmark = pytest.mark.e2e

EDGE_OWN_BYTES_MAX = 36 * 1024 * 1024
REQUESTS = 1_000
OMS = "/trademesh.oms.v1.OrderService/"


async def test_an_order_by_rest_is_replayed_by_grpc(client: Client) -> None:
    first = await client.call("POST", ORDERS, order("edge-rest-1", "21"))
    assert first.status == 200, first.body
    request = order_service_pb2.CreateOrderRequest(
        account_id="ACC-1",
        client_order_id="edge-rest-1",
        instrument_id="AAPL",
        side=order_terms_pb2.SIDE_BUY,
        type=order_terms_pb2.ORDER_TYPE_MARKET,
        time_in_force=order_terms_pb2.TIME_IN_FORCE_DAY,
        quantity="21",
    )
    async with client.channel() as channel:
        create: Any = channel.unary_unary(OMS + "CreateOrder", _bytes, order_service_pb2.CreateOrderResponse.FromString)
        call = create(request, metadata=tuple(client.bearer().items()), timeout=10)
        answer = await call
        assert answer.order.order_id == first.json["order"]["order_id"]
        assert dict(await call.initial_metadata())["idempotency-replayed"] == "true"
    other = await client.call("POST", ORDERS, order("edge-rest-1", "22"))
    assert other.status == 409


def _bytes(message: Any) -> bytes:
    found: bytes = message.SerializeToString()
    return found


async def test_whose_token_it_is(client: Client) -> None:
    token = client.token()
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "mallory"}).encode()).rstrip(b"=").decode()
    for wrong in (f"{head}.{forged}.{signature}", token[:-6] + "AAAAAA", "none", ""):
        refused = await client.call("GET", ORDERS, headers={"authorization": f"Bearer {wrong}"})
        assert (refused.status, refused.reason) == (401, "USER_UNAUTHENTICATED"), wrong
    assert (await client.call("GET", f"{ORDERS}?access_token={token}", headers={})).status == 401
    assert (await client.call("GET", ORDERS, headers={})).reason == "USER_UNAUTHENTICATED"
    # Another tenant's user, whose token names the same account, sees nothing of ours.
    placed = (await client.call("POST", ORDERS, order("edge-tenant", "23"))).json["order"]["order_id"]
    seen = await client.call("GET", f"{ORDERS}/{placed}", headers=client.bearer(STRANGER))
    assert seen.status in (403, 404), seen.body
    assert (await client.call("GET", f"/v1/accounts/ACC-2/orders/{placed}")).status == 403


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({**order("k", "1"), "account_id": "ACC-2"}, "FIELD_INVALID"),
        ({**order("k", "1"), "limitPrise": "1"}, "FIELD_UNKNOWN"),
        ('{"quantity":"1","quantity":"2"}', "JSON_INVALID"),
        ('{"client_order_id":"a","clientOrderId":"a"}', "JSON_INVALID"),
        ({**order("k", "1"), "quantity": 1}, "FIELD_INVALID"),
    ],
)
async def test_a_body_that_says_two_things_is_refused(client: Client, body: Any, reason: str) -> None:
    refused = await client.call("POST", ORDERS, body)
    assert (refused.status, refused.reason) == (400, reason)


@pytest.mark.parametrize(
    ("accept", "kind", "quantity"), [("text/event-stream", "text/event-stream", "24"), ("application/json", "application/x-ndjson", "25")]
)
async def test_a_stream_tells_of_a_fill(client: Client, accept: str, kind: str, quantity: str) -> None:
    key = f"edge-stream-{quantity}"
    async with asyncio.timeout(30), client.stream(f"{ORDERS}:stream", accept) as response:
        assert response.headers["content-type"] == kind
        messages = _messages(response)
        assert "snapshot" in await anext(messages)
        assert (await client.call("POST", ORDERS, order(key, quantity))).status == 200
        async for message in messages:
            if key in json.dumps(message) and "ORDER_STATE_FILLED" in json.dumps(message):
                return
    raise AssertionError("the stream ended before the fill")


async def _messages(response: aiohttp.ClientResponse) -> Any:
    pending = b""
    async for part in response.content.iter_any():
        pending += part
        *lines, pending = pending.split(b"\n")
        for line in lines:
            if text := line.removeprefix(b"data: ").strip():
                yield json.loads(text)


async def test_grpc_web(client: Client) -> None:
    message = order_service_pb2.ListOrdersRequest(account_id="ACC-1").SerializeToString()
    headers = {**client.bearer(), "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    answer = await client.call("POST", OMS + "ListOrders", struct.pack(">BI", 0, len(message)) + message, headers=headers)
    assert answer.status == 200
    flag, length = struct.unpack(">BI", answer.body[:5])
    assert flag == 0
    order_service_pb2.ListOrdersResponse.FromString(answer.body[5 : 5 + length])
    assert b"grpc-status:0" in answer.body[5 + length :].replace(b" ", b"")


async def test_a_report_is_made_polled_and_downloaded(client: Client) -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    wanted = {
        "request_id": str(uuid.uuid4()),
        "kind": "REPORT_KIND_TRADE_BLOTTER",
        "format": "REPORT_FORMAT_CSV",
        "account_ids": ["ACC-1"],
        "date_range": {"start_date": today, "end_date": today},
    }
    made = await client.call("POST", "/v1/reports", wanted)
    assert made.status == 200, made.body
    async with asyncio.timeout(30):
        while not (operation := (await client.call("GET", f"/v1/{made.json['name']}")).json)["done"]:
            await asyncio.sleep(0.05)
    report = operation["response"]
    assert report["@type"].endswith("trademesh.reporting.v1.Report")
    content = await client.call("GET", f"/v1/reports/{report['report_id']}:download")
    assert content.status == 200
    assert b"," in content.body.splitlines()[0]
    assert (await client.call("GET", f"/v1/{made.json['name']}", headers=client.bearer(STRANGER))).status in (403, 404)


async def test_the_edge_keeps_little_memory_of_its_own(client: Client) -> None:
    """What an Envoy has resident beside its program, whose pages all Envoys share: how many are mapped is the kernel's choice."""
    headers = client.bearer()
    for _ in range(REQUESTS):
        await client.call("GET", f"{ORDERS}?page_size=1", headers=headers)
    pid = client.mesh.instance(EDGE).pid
    assert pid is not None
    # A listener that new keys have replaced keeps its memory until it is drained.
    async with asyncio.timeout(DRAIN_SECONDS + 30):
        while psutil.Process(pid).memory_full_info().uss > EDGE_OWN_BYTES_MAX:
            await asyncio.sleep(0.05)
