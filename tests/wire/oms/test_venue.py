"""The whole way of an order: gRPC in, FIX to the sandbox exchange, fills back, and what happens when the venue or a replica goes away."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.local.provision import ServiceDatabase
from tests.integration.oms.world import order_request
from tests.wire.exchange.client import FixClient, is_report
from tests.wire.oms.caller import Caller, headers
from tests.wire.oms.conftest import VENUE_PASSWORD, SandboxVenue, config_of, running
from tests.wire.oms.fake_risk import FakeRiskServer
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.type.v1 import event_log_service_pb2

State = order_pb2.OrderState
DEADLINE_SECONDS = 20


async def until(read: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool]) -> Any:
    """Read until the answer is what is wanted; the deadline says what it was instead."""
    answer = None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not wanted(answer := await read()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still {answer}") from None
    return answer


async def order_in(oms: Caller, order_id: str, state: State.ValueType) -> Any:
    """Return the order once it is in the state."""
    request = order_service_pb2.GetOrderRequest(account_id="ACC-1", order_id=order_id)

    async def read() -> Any:
        return (await oms.orders.GetOrder(request, metadata=headers())).order

    return await until(read, lambda order: order.state == state)


async def counterparty(venue: SandboxVenue) -> FixClient:
    client = await FixClient("BETA").connect(venue.port)
    await client.logon(VENUE_PASSWORD)
    return client


async def executions(oms: Caller, order_id: str) -> Any:
    request = order_service_pb2.ListExecutionsRequest(account_id="ACC-1", order_id=order_id)
    return (await oms.orders.ListExecutions(request, metadata=headers())).executions


async def test_an_order_is_acknowledged_replaced_filled_and_busted(trading: Caller, venue: SandboxVenue) -> None:
    order_id = (await trading.create(order_request(limit_price="100"))).order.order_id
    working = await order_in(trading, order_id, order_pb2.ORDER_STATE_NEW)
    assert working.venue_order_id
    request = order_service_pb2.ReplaceOrderRequest(
        account_id="ACC-1", order_id=order_id, request_id=str(uuid.uuid4()), quantity="20", etag=working.etag
    )
    pending = await trading.orders.ReplaceOrder(request, metadata=headers())
    assert pending.order.pending_action == order_pb2.PENDING_ACTION_REPLACE
    async with await counterparty(venue) as beta:
        await until(lambda: _order(trading, order_id), lambda order: order.quantity == "20" and not order.pending_action)
        await beta.send(beta.order("b-1", "2", "15"))
        await beta.wait(is_report("F"))
        partly = await order_in(trading, order_id, order_pb2.ORDER_STATE_PARTIALLY_FILLED)
        assert (partly.filled_quantity, partly.leaves_quantity, partly.average_price) == ("15", "5", "100")
        await beta.send(beta.order("b-2", "2", "5"))
        filled = await order_in(trading, order_id, order_pb2.ORDER_STATE_FILLED)
        assert filled.leaves_quantity == "0"
    newest, oldest = await executions(trading, order_id)
    assert (oldest.last_quantity, newest.last_quantity) == ("15", "5")
    venue.control(op="trade.bust", exec_id=newest.exec_id)
    # The venue does not reopen what it has closed: it busts the fill and cancels the rest.
    busted = await order_in(trading, order_id, order_pb2.ORDER_STATE_CANCELED)
    assert (busted.filled_quantity, busted.average_price) == ("15", "100")
    assert len(await executions(trading, order_id)) == 3


async def _order(oms: Caller, order_id: str) -> Any:
    request = order_service_pb2.GetOrderRequest(account_id="ACC-1", order_id=order_id)
    return (await oms.orders.GetOrder(request, metadata=headers())).order


async def test_cancels_refusals_and_immediate_orders(trading: Caller) -> None:
    order_id = (await trading.create(order_request(limit_price="90"))).order.order_id
    await order_in(trading, order_id, order_pb2.ORDER_STATE_NEW)
    await trading.cancel(order_id)
    await order_in(trading, order_id, order_pb2.ORDER_STATE_CANCELED)
    immediate = (await trading.create(order_request(limit_price="90", time_in_force=3))).order.order_id
    await order_in(trading, immediate, order_pb2.ORDER_STATE_CANCELED)
    unlisted = (await trading.create(order_request(instrument_id="NONE"))).order.order_id
    refused = await order_in(trading, unlisted, order_pb2.ORDER_STATE_REJECTED)
    assert refused.reject.text


async def test_many_orders_reach_the_venue_once(trading: Caller, venue: SandboxVenue) -> None:
    requests = [order_request(limit_price="100", quantity="1") for _ in range(300)]
    await trading.orders.BatchCreateOrders(order_service_pb2.BatchCreateOrdersRequest(requests=requests), metadata=headers())
    async with await counterparty(venue) as beta:
        await beta.send(beta.order("b-1", "2", "300"))
        await beta.wait(is_report("F"), 300)

    async def open_orders() -> Any:
        request = order_service_pb2.ListOrdersRequest(account_id="ACC-1", open_only=True)
        return (await trading.orders.ListOrders(request, metadata=headers())).orders

    await until(open_orders, lambda orders: not orders)


async def test_a_venue_that_comes_back_is_asked(trading: Caller, venue: SandboxVenue) -> None:
    order_id = (await trading.create(order_request(limit_price="100"))).order.order_id
    await order_in(trading, order_id, order_pb2.ORDER_STATE_NEW)
    await venue.stop()
    cancel = await trading.cancel(order_id)
    assert cancel.order.pending_action == order_pb2.PENDING_ACTION_CANCEL
    await venue.start()
    await order_in(trading, order_id, order_pb2.ORDER_STATE_CANCELED)


async def test_an_unanswered_order_is_unknown_until_the_venue_speaks(
    trading: Caller, venue: SandboxVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_oms.router.sweep.UNANSWERED_SECONDS_MAX", 0.3)
    monkeypatch.setattr("svc_oms.fix.routing.STATUS_RETRY_SECONDS", 0.5)
    venue.control(op="fault.add", action="mute", on=["new"], count=1)
    order_id = (await trading.create(order_request(limit_price="100"))).order.order_id
    await order_in(trading, order_id, order_pb2.ORDER_STATE_NEW)
    page = await trading.log.ReadEvents(event_log_service_pb2.ReadEventsRequest(), metadata=headers(None, "svc-risk"))
    assert [event.type for event in page.events if event.stream_id == f"order-{order_id}"] == [
        "oms.v1.OrderAccepted",
        "oms.v1.OrderRouted",
        "oms.v1.OrderMarkedUnknown",
        "oms.v1.OrderAcknowledged",
    ]


async def test_without_a_venue_orders_are_refused_in_time(oms: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("svc_oms.fix.routing", "svc_oms.router.sweep"):
        monkeypatch.setattr(f"{module}.UNSENT_SECONDS_MAX", 0.3)
    order_id = (await oms.create(order_request())).order.order_id
    refused = await order_in(oms, order_id, order_pb2.ORDER_STATE_REJECTED)
    assert refused.reject.text == "the venue could not be reached within 5 s"


async def test_another_replica_takes_the_session_over(
    migrated: ServiceDatabase, sockets: Path, risk_server: FakeRiskServer, venue: SandboxVenue
) -> None:
    first_config = config_of("svc_oms-0", migrated, sockets, risk_server)
    second_config = config_of("svc_oms-1", migrated, sockets, risk_server)
    async with running(second_config, (venue.session,)) as survivor:
        async with running(first_config, (venue.session,)) as leaving:
            order_id = (await leaving.create(order_request(limit_price="100"))).order.order_id
            await order_in(survivor, order_id, order_pb2.ORDER_STATE_NEW)
        another = (await survivor.create(order_request(limit_price="100"))).order.order_id
        await order_in(survivor, another, order_pb2.ORDER_STATE_NEW)
        async with await counterparty(venue) as beta:
            await beta.send(beta.order("b-1", "2", "20"))
            for each in (order_id, another):
                await order_in(survivor, each, order_pb2.ORDER_STATE_FILLED)
        assert len(await executions(survivor, order_id)) == 1
