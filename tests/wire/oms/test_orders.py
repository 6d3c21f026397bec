"""Orders over the wire: the real server, a real database, and a risk service that can be taken away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tests.integration.oms import world
from tests.integration.oms.world import STRANGER, USER, FakeRisk, order_request
from tests.wire.oms.caller import Caller, details, headers
from tests.wire.oms.fake_risk import FakeRiskServer
from trademesh.oms.v1 import order_control_service_pb2, order_pb2, order_service_pb2
from trademesh.type.v1 import event_log_service_pb2, log_position_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def test_create_replay_and_reuse(oms: Caller) -> None:
    request = order_request(client_order_id="k", labels={"desk": "a"})
    first = await oms.create(request)
    assert first.order.state == order_pb2.ORDER_STATE_PENDING_NEW
    call = oms.orders.CreateOrder(request, metadata=headers())
    assert dict(await call.initial_metadata())["idempotency-replayed"] == "true"
    assert await call == first
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oms.create(order_request(client_order_id="k", quantity="11"))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert details(caught.value) == ("IDEMPOTENCY_KEY_REUSED", [])


BAD_FIELDS: list[tuple[dict[str, object], str]] = [
    ({"quantity": "NaN"}, "quantity"),
    ({"quantity": "-0"}, "quantity"),
    ({"quantity": "0.0"}, "quantity"),
    ({"quantity": "-5"}, "quantity"),
    ({"quantity": "1e3"}, "quantity"),
    ({"quantity": "1.1234567890123456789"}, "quantity"),
    ({"quantity": "123456789012345678901"}, "quantity"),
    ({"limit_price": "Infinity"}, "limit_price"),
    ({"limit_price": ""}, "limit_price"),
    ({"limit_price": None}, "limit_price"),
    ({"type": 1}, "limit_price"),
    ({"type": 1, "limit_price": None}, "time_in_force"),
    ({"side": 7}, "side"),
    ({"side": 0}, "side"),
    ({"account_id": "acc 1"}, "account_id"),
    ({"client_order_id": "a/b"}, "client_order_id"),
    ({"client_order_id": "x" * 65}, "client_order_id"),
    ({"instrument_id": "aapl"}, "instrument_id"),
    ({"labels": {"x" * 33: "y"}}, 'labels["' + "x" * 33 + '"]'),
    ({"labels": {str(number): "" for number in range(17)}}, "labels"),
]


async def test_bad_fields_are_named(oms: Caller, risk: FakeRisk) -> None:
    for changes, field in BAD_FIELDS:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oms.create(order_request(**changes))
        reason, fields = details(caught.value)
        assert (caught.value.code(), reason) == (INVALID, "FIELD_INVALID"), changes
        assert field in fields, changes
    assert risk.asked == []


async def test_bytes_that_are_no_request(oms: Caller) -> None:
    whole = order_request().SerializeToString()
    for data, reason in [
        (whole[:-3], "FIELD_INVALID"),
        (b"\x08\x01", "FIELD_UNKNOWN"),
        (whole + b"\xfa\x07\x01x", "FIELD_UNKNOWN"),
        (order_request(labels={"a": "b" * 300_000}).SerializeToString(), "MESSAGE_TOO_LARGE"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oms.raw("CreateOrder", data)
        assert (caught.value.code(), details(caught.value)[0]) == (INVALID, reason)


async def test_who_may_not(oms: Caller) -> None:
    request = order_request()
    viewer = replace(USER, roles=frozenset({"viewer"}))
    expired = replace(USER, expires_at=1)
    for user, code, reason in [
        (STRANGER, grpc.StatusCode.PERMISSION_DENIED, "ACCOUNT_NOT_ALLOWED"),
        (replace(USER, accounts=frozenset()), grpc.StatusCode.PERMISSION_DENIED, "ACCOUNT_NOT_ALLOWED"),
        (viewer, grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED"),
        (expired, grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oms.create(request, user)
        assert (caught.value.code(), details(caught.value)[0]) == (code, reason)
    for metadata, reason in [
        ([], "PEER_UNAUTHENTICATED"),
        (headers()[1:], "PEER_UNAUTHENTICATED"),
        (headers(peer="svc-risk"), "PEER_NOT_ALLOWED"),
        (headers(None), "USER_UNAUTHENTICATED"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oms.orders.CreateOrder(request, metadata=metadata)
        assert details(caught.value)[0] == reason


async def test_another_tenants_order_is_not_shown(oms: Caller) -> None:
    order_id = (await oms.create(order_request())).order.order_id
    foreign = order_service_pb2.GetOrderRequest(account_id="ACC-1", order_id=order_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oms.orders.GetOrder(foreign, metadata=headers(STRANGER))
    assert details(caught.value)[0] == "ACCOUNT_NOT_ALLOWED"
    for message in (
        order_service_pb2.ListOrdersRequest(account_id="ACC-1"),
        order_service_pb2.ListExecutionsRequest(account_id="ACC-1"),
    ):
        method = oms.orders.ListOrders if isinstance(message, order_service_pb2.ListOrdersRequest) else oms.orders.ListExecutions
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(message, metadata=headers(STRANGER))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_without_risk_orders_are_refused_and_every_cancel_passes(oms: Caller, risk_server: FakeRiskServer) -> None:
    order_ids = [(await oms.create(order_request())).order.order_id for _ in range(10)]
    await risk_server.stop()

    async def refused() -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oms.create(order_request(client_order_id=f"lost-{id(object())}"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value)[0] == "RISK_UNAVAILABLE"

    await asyncio.gather(*(refused() for _ in range(100)))
    cancels = await asyncio.gather(*(oms.cancel(order_id) for order_id in order_ids))
    assert {answer.order.state for answer in cancels} == {order_pb2.ORDER_STATE_CANCELED}
    listed = await oms.orders.ListOrders(order_service_pb2.ListOrdersRequest(account_id="ACC-1"), metadata=headers())
    assert len(listed.orders) == 10
    await risk_server.start()


async def test_a_batch_serves_each_order_for_itself(oms: Caller, risk: FakeRisk) -> None:
    requests = [order_request(), order_request(quantity="-1"), order_request(account_id="ACC-9"), order_request(client_order_id="k")]
    requests.append(order_request(client_order_id="k", side=2))
    answer = await oms.orders.BatchCreateOrders(order_service_pb2.BatchCreateOrdersRequest(requests=requests), metadata=headers())
    kinds = [result.WhichOneof("result") for result in answer.results]
    assert kinds == ["order", "error", "error", "order", "error"]
    assert answer.log_position.position > 0
    assert len(risk.asked) == 2
    for count in (0, 501):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oms.orders.BatchCreateOrders(
                order_service_pb2.BatchCreateOrdersRequest(requests=[order_request()] * count), metadata=headers()
            )
        assert details(caught.value) == ("FIELD_INVALID", ["requests"])


async def test_entry_stream(oms: Caller, risk: FakeRisk) -> None:
    Entry = order_service_pb2.EnterOrdersRequest  # noqa: N806 (a message type)
    call = oms.orders.EnterOrders(metadata=headers())
    for number in range(1, 51):
        await call.write(Entry(correlation_id=number, create=order_request(client_order_id=f"s-{number}")))
    await call.write(Entry(correlation_id=51, create=order_request(quantity="NaN")))
    await call.write(Entry(correlation_id=52, create=order_request(account_id="ACC-9")))
    results: dict[int, Any] = {}
    while len(results) < 52:
        answer = await call.read()
        results[answer.correlation_id] = answer
    assert all(results[number].order.client_order_id == f"s-{number}" for number in range(1, 51))
    assert results[51].error.code == INVALID.value[0]
    assert results[52].error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    cancel = order_service_pb2.CancelOrderRequest(
        account_id="ACC-1", order_id=results[1].order.order_id, request_id="0190e0a0-0000-7000-8000-000000000001"
    )
    await call.write(Entry(correlation_id=53, cancel=cancel))
    replace_request = order_service_pb2.ReplaceOrderRequest(
        account_id="ACC-1", order_id=results[2].order.order_id, request_id="0190e0a0-0000-7000-8000-000000000002", quantity="20"
    )
    await call.write(Entry(correlation_id=54, replace=replace_request))
    await call.done_writing()
    last = {}
    while (answer := await call.read()) is not grpc.aio.EOF:
        last[answer.correlation_id] = answer
    assert last[53].order.state == order_pb2.ORDER_STATE_CANCELED
    assert last[54].order.quantity == "20"
    assert await call.code() is grpc.StatusCode.OK
    found = await oms.orders.LookupOrder(
        order_service_pb2.LookupOrderRequest(account_id="ACC-1", client_order_id="s-50"), metadata=headers()
    )
    assert found.order == results[50].order


async def test_pages_are_whole_and_their_tokens_bound(oms: Caller) -> None:
    created = [(await oms.create(order_request())).order.order_id for _ in range(7)]
    request = order_service_pb2.ListOrdersRequest(account_id="ACC-1", page_size=3)
    seen: list[str] = []
    while True:
        page = await oms.orders.ListOrders(request, metadata=headers())
        seen += [order.order_id for order in page.orders]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == created[::-1]
    request.instrument_id = "MSFT"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oms.orders.ListOrders(request, metadata=headers())
    assert details(caught.value) == ("PAGE_TOKEN_INVALID", ["page_token"])


async def test_a_read_sees_the_position_it_names(oms: Caller) -> None:
    created = await oms.create(order_request())
    read = order_service_pb2.GetOrderRequest(account_id="ACC-1", order_id=created.order.order_id, min_position=created.log_position)
    assert (await oms.orders.GetOrder(read, metadata=headers())).order == created.order
    read.min_position.CopyFrom(log_position_pb2.LogPosition(tx=1 << 40, position=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oms.orders.GetOrder(read, metadata=headers())
    assert (caught.value.code(), details(caught.value)[0]) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")


async def test_services_read_the_log_and_settle_orders(oms: Caller) -> None:
    created = await oms.create(order_request())
    page = await oms.log.ReadEvents(event_log_service_pb2.ReadEventsRequest(), metadata=headers(None, "svc-risk"))
    assert [event.type for event in page.events] == ["oms.v1.OrderAccepted"]
    reference = order_control_service_pb2.OrderReference(order_id=created.order.order_id, account_id="ACC-1")
    request = order_control_service_pb2.ResolveOrderRequest(orders=[reference])
    resolved = await oms.control.ResolveOrder(request, metadata=headers(None, "svc-risk"))
    assert resolved.orders[0] == created.order
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oms.control.ResolveOrder(request, metadata=headers())
    assert details(caught.value)[0] == "PEER_NOT_ALLOWED"


async def test_a_refusal_by_risk_is_an_answer(oms: Caller, risk: FakeRisk) -> None:
    risk.answer = world.refusal
    refused = await oms.create(order_request())
    assert refused.order.state == order_pb2.ORDER_STATE_REJECTED
    assert len(refused.order.reject.breaches) == 2
    risk.answer = world.off_tick
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oms.create(order_request())
    assert details(caught.value) == ("PRICE_OFF_TICK", ["limit_price"])
