"""CheckOrders over real gRPC: who may ask, what is malformed, what cannot be decided, and batches that meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from kernel.errors import Reason
from kernel.ids import order_id
from kernel.postgres import Connection
from tests.wire.risk.serving import TRADER, Risk
from tests.wire.serving import RefusedError
from trademesh.error.v1 import error_reason_pb2
from trademesh.risk.v1 import pre_trade_service_pb2 as pb

METHOD = "PreTradeService/CheckOrders"


def order(key: str = "c-1", **changes: Any) -> pb.OrderCheck:
    name = order_id(changes.get("account_id", "ACC-1"), key)
    fields: dict[str, Any] = {
        "kind": 1,
        "order_id": name,
        "request_id": name,
        "payload_hash": b"h" * 32,
        "user": {"principal": "ada", "tenant": "north", "roles": ["trader"]},
        "account_id": "ACC-1",
        "instrument_id": "AAPL",
        "side": 1,
        "type": 2,
        "time_in_force": 1,
        "quantity": "10",
        "limit_price": "100",
        "receive_time": {"seconds": 1},
    }
    return pb.OrderCheck(**{**fields, **changes})


async def check(risk: Risk, *orders: pb.OrderCheck) -> Any:
    return await risk.call(METHOD, pb.CheckOrdersRequest(orders=orders), peer="svc-oms")


async def test_orders_are_answered_one_by_one(risk: Risk) -> None:
    response = await check(
        risk,
        order(),
        order("c-2", quantity="1.5", limit_price="100.005"),
        order("c-3", limit_price="120"),
        order("c-4", instrument_id="UNKNOWN"),
        order("c-5", user={"principal": "eve", "tenant": "south", "roles": ["trader"]}),
        order("c-6", user={"principal": "eve", "tenant": "north", "roles": ["viewer"]}),
        order("c-7", request_id=order_id("ACC-1", "c-7").upper()),
    )
    kinds = [result.WhichOneof("outcome") for result in response.results]
    assert kinds == ["approval", "invalidity", "refusal", "invalidity", "invalidity", "invalidity", "approval"]
    assert [violation.field for violation in response.results[1].invalidity.bad_request.field_violations] == ["limit_price", "quantity"]
    reasons = [error_reason_pb2.ErrorReason.Name(response.results[number].invalidity.reason) for number in (1, 3, 4, 5)]
    assert reasons == [
        f"ERROR_REASON_{name}" for name in ("PRICE_OFF_TICK", "INSTRUMENT_NOT_FOUND", "ACCOUNT_NOT_ALLOWED", "ROLE_REQUIRED")
    ]
    assert response.results[6].request_id == order_id("ACC-1", "c-7").upper()
    assert response.log_position.tx > 0


@pytest.mark.parametrize("peer", ["edge", "svc-gateway", "svc-risk"])
async def test_only_svc_oms_may_ask(risk: Risk, peer: str) -> None:
    with pytest.raises(RefusedError) as refused:
        await risk.call(METHOD, pb.CheckOrdersRequest(orders=[order()]), TRADER, peer=peer)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.PERMISSION_DENIED, Reason.PEER_NOT_ALLOWED)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"quantity": "NaN"}, "quantity"),
        ({"quantity": "-0"}, "quantity"),
        ({"quantity": "0"}, "quantity"),
        ({"quantity": "-5"}, "quantity"),
        ({"quantity": "1e3"}, "quantity"),
        ({"quantity": "0.1234567890123456789"}, "quantity"),
        ({"limit_price": "Infinity"}, "limit_price"),
        ({"limit_price": ""}, "limit_price"),
        ({"account_id": "acc one"}, "account_id"),
        ({"instrument_id": "A/B"}, "instrument_id"),
        ({"order_id": "no-uuid"}, "order_id"),
        ({"payload_hash": b"short"}, "payload_hash"),
        ({"kind": 0}, "kind"),
        ({"side": 9}, "side"),
    ],
)
async def test_a_malformed_order_is_refused_with_field_and_rule(risk: Risk, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RefusedError) as refused:
        await check(risk, order(), order("c-2", **changes))
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID)
    assert refused.value.fields == [f"orders[1].{field}"]


@pytest.mark.parametrize(
    ("spoil", "code", "reason"),
    [
        (lambda data: data + b"\xba\x3e\x01x", grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_UNKNOWN),
        (lambda data: data[:-3], grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID),
        (lambda data: b"", grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID),
        (lambda data: data * 20_000, grpc.StatusCode.INVALID_ARGUMENT, Reason.MESSAGE_TOO_LARGE),
    ],
    ids=["unknown field", "truncated", "empty", "oversized"],
)
async def test_bytes_that_are_no_request(risk: Risk, spoil: Callable[[bytes], bytes], code: grpc.StatusCode, reason: Reason) -> None:
    request = pb.CheckOrdersRequest(orders=[order()])
    with pytest.raises(RefusedError) as refused:
        await risk.call(METHOD, request, peer="svc-oms", raw=spoil(request.SerializeToString()))
    assert (refused.value.code, refused.value.reason) == (code, reason)


async def test_a_stale_price_decides_nothing_and_a_kill_switch_still_refuses(risk: Risk, sql: Connection) -> None:
    await sql.execute("UPDATE price_feed SET heartbeat_at = now() - interval '3 seconds'")
    result = (await check(risk, order())).results[0]
    assert result.undecided.reason == error_reason_pb2.ERROR_REASON_REFERENCE_PRICE_STALE
    await sql.execute("INSERT INTO kill_switch VALUES (1, '*', 2, 1, 'me', 'why', false, now())")
    result = (await check(risk, order())).results[0]
    assert [breach.scope for breach in result.refusal.breaches] == ["firm/*"]


async def test_calls_that_come_together_share_transactions_and_keep_their_answers(risk: Risk, sql: Connection) -> None:
    calls = [[order(f"c-{call}-{number}", quantity=str(call + 1)) for number in range(5)] for call in range(20)]
    responses = await asyncio.gather(*(check(risk, *orders) for orders in calls))
    for call, response in enumerate(responses):
        assert [result.approval.reserved_notional for result in response.results] == [str(100 * (call + 1))] * 5
        assert [result.request_id for result in response.results] == [one.request_id for one in calls[call]]
    transactions = await sql.fetchval("SELECT count(DISTINCT tx) FROM event WHERE stream_id = 'exposure-ACC-1'")
    assert transactions < 20


async def test_a_thousand_orders_in_one_call(risk: Risk) -> None:
    response = await check(risk, *(order(f"c-{number}", quantity="1") for number in range(1000)))
    assert sum(result.HasField("approval") for result in response.results) == 1000
