"""Orders: creations, changes under the lock of the heads, read models. The same of PostgreSQL and of its double."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from kernel.errors import AlreadyExistsError, StaleVersionError
from kernel.ports import LogPosition, RecordedEvent
from svc_oms.domain import OrderState, ReportKind, decide
from svc_oms.domain.commands import RecordReport, RequestCancel
from svc_oms.servicer.creates import Created
from svc_oms.store.decisions import stream_of
from svc_oms.store.kill_switches import Scope, Switch
from svc_oms.store.orders import Creation, OrderUnit
from tests.contract.oms.conftest import Pair
from tests.integration.oms import world
from tests.unit.oms import make
from trademesh.oms.v1 import order_control_service_pb2, order_pb2


async def created(pair: Pair, **changes: Any) -> order_pb2.Order:
    return (await pair.one.create(world.order(**changes))).order


async def test_orders_of_a_batch_are_recorded_in_order_of_arrival(pair: Pair) -> None:
    outcomes = await pair.one.create_all([world.order() for _ in range(5)])
    orders = [outcome.order.order_id for outcome in outcomes if isinstance(outcome, Created)]
    page = await pair.other.reads.page("ACC-1", before=2**62, instrument_id="", states=(), open_only=False, limit=3)
    assert [order_pb2.Order.FromString(row.message).order_id for row in page] == orders[:1:-1]
    older = await pair.other.reads.page("ACC-1", before=page[-1].sequence, instrument_id="", states=(), open_only=True, limit=3)
    assert [order_pb2.Order.FromString(row.message).order_id for row in older] == orders[1::-1]
    queue = await pair.other.reads.open_page("ACC-1", after=0, instrument_id="AAPL", limit=9)
    assert [order_pb2.Order.FromString(row.message).order_id for row in queue] == orders


async def test_one_key_on_two_replicas_at_once_is_one_order(pair: Pair) -> None:
    for _ in range(5):
        key = world.order()
        first, second = await asyncio.gather(pair.one.create(key), pair.other.create(key))
        assert first.order == second.order
        assert first.position == second.position
        assert sorted((first.replayed, second.replayed)) == [False, True]


async def test_a_stream_that_has_begun_refuses_its_own_creation_only(pair: Pair) -> None:
    known, fresh = make.placed(client_order_id="k"), make.placed(client_order_id="f")

    def creation(order: object) -> Creation:
        from svc_oms.codec.events import encode
        from svc_oms.domain.events import OrderAccepted

        assert isinstance(order, type(known))
        return Creation(order, encode(OrderAccepted(order.terms, make.START), None), b"snapshot")

    (first,) = await pair.one.store.create([creation(known)])
    again, second = await pair.other.store.create([creation(known), creation(fresh)])
    assert isinstance(first, LogPosition)
    assert isinstance(again, StaleVersionError)
    assert isinstance(second, LogPosition)
    assert second > first
    answers = await pair.one.store.first_answers([known.order_id, fresh.order_id, make.terms(client_order_id="none").order_id])
    assert {order_id: answer.position for order_id, answer in answers.items()} == {known.order_id: first, fresh.order_id: second}


async def test_whoever_locks_second_decides_on_what_the_first_left(pair: Pair) -> None:
    order_id = (await created(pair)).order_id
    locked, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with pair.one.store.unit() as unit:
            await unit.lock([order_id])
            locked.set()
            await leave.wait()
            unit.record(order_id, decide(unit.order(order_id), RequestCancel("a", "r", make.START)))
            await unit.flush()

    async def second() -> OrderState:
        await locked.wait()
        async with pair.other.store.unit() as unit:
            order = (await unit.lock([order_id]))[order_id]
            assert order is not None
            return order.state

    working, waiting = asyncio.create_task(first()), asyncio.create_task(second())
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    leave.set()
    await working
    assert await waiting is OrderState.CANCELED


async def test_fills_and_cancels_for_the_same_orders_at_once_in_opposite_order(pair: Pair) -> None:
    orders = [await created(pair) for _ in range(6)]
    ids = [order.order_id for order in orders]
    for order_id in ids:
        await pair.one.venue(order_id, make.report(ReportKind.ACKNOWLEDGED))
    keys = {order_id: make.fill("4", exec_id=f"E-{order_id}") for order_id in ids}

    async def fills(replica: world.Replica, wanted: list[str]) -> None:
        async with replica.store.unit() as unit:
            await unit.lock(wanted)
            for order_id in wanted:
                unit.record(order_id, decide(unit.order(order_id), RecordReport(keys[order_id], make.START)))
            await unit.flush()

    work = [fills(pair.one, ids), fills(pair.other, ids[::-1]), fills(pair.other, ids[3:] + ids[:3])]
    cancels = [replica.cancel(order_id) for replica, order_id in zip((pair.one, pair.other) * 3, ids[::-1], strict=True)]
    outcomes = await asyncio.gather(*work, *cancels, return_exceptions=True)
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    for order in (await pair.one.store.load_many(ids)).values():
        # Each report counts once, whoever brought it, and each cancel is asked for once.
        assert (order.filled_quantity, len(order.requests)) == (Decimal(4), 1)
    rows = await pair.other.reads.executions("ACC-1", before=2**62, instrument_id="AAPL", order_id="", limit=50)
    assert len(rows) == 6


async def test_an_execution_of_another_order_is_refused_and_nothing_of_its_transaction_stays(pair: Pair) -> None:
    one, two = await created(pair), await created(pair)
    fill = make.fill("1", exec_id="E-1")
    await pair.one.venue(one.order_id, fill)
    with pytest.raises(AlreadyExistsError):
        await pair.other.venue(two.order_id, make.report(ReportKind.ACKNOWLEDGED), fill)
    after = await pair.one.store.load(two.order_id)
    assert after is not None
    assert (after.version, after.routed) == (1, False)
    assert (await pair.one.log.heads([stream_of(two.order_id)])) == {stream_of(two.order_id): 1}


async def test_what_is_open_is_found_by_account_and_by_switch(pair: Pair) -> None:
    mine, other = await created(pair), await created(pair, account_id="ACC-2", instrument_id="MSFT", side=2)
    gone = await created(pair)
    await pair.one.cancel(gone.order_id)
    reads = pair.other.reads
    assert await reads.open_of_account("ACC-1", world.TENANT, instrument_id="", side=0) == [mine.order_id]
    assert await reads.open_of_account("ACC-1", world.TENANT, instrument_id="MSFT", side=0) == []
    assert await reads.open_of_account("ACC-2", "another", instrument_id="", side=0) == []

    def covered(scope: Scope, scope_id: str) -> Switch:
        return Switch(scope, scope_id, True, 1, True)

    assert await reads.open_covered(covered(Scope.FIRM, "*")) == sorted([mine.order_id, other.order_id])
    assert await reads.open_covered(covered(Scope.ACCOUNT, "ACC-2")) == [other.order_id]
    assert await reads.open_covered(covered(Scope.INSTRUMENT, "AAPL")) == [mine.order_id]
    assert await reads.open_covered(covered(Scope.TRADER, "nobody")) == []
    assert await reads.existing([mine.order_id, gone.order_id, make.terms().order_id]) == {mine.order_id, gone.order_id}
    assert await reads.tenant_of("ACC-2") == world.TENANT
    assert await reads.tenant_of("ACC-9") is None
    row = await reads.order(gone.order_id)
    assert row is not None
    assert order_pb2.Order.FromString(row.snapshot).state == order_pb2.ORDER_STATE_CANCELED


async def test_an_answer_about_orders_stands_at_their_last_event_and_an_unknown_one_is_given_up(pair: Pair) -> None:
    order = await created(pair)
    position = LogPosition((await pair.one.log.read_stream(stream_of(order.order_id)))[-1].position.tx, 0)
    await created(pair, account_id="ACC-2")

    def asked(order_id: str) -> order_control_service_pb2.ResolveOrderRequest:
        reference = order_control_service_pb2.OrderReference(order_id=order_id, account_id="ACC-1")
        return order_control_service_pb2.ResolveOrderRequest(orders=[reference])

    known = await pair.other.control.ResolveOrder(asked(order.order_id), world.context(None))
    last = (await pair.one.log.read_stream(stream_of(order.order_id)))[-1].position
    assert (known.log_position.tx, known.log_position.position) == (last.tx, last.position)
    assert last > position
    lost = await pair.one.control.ResolveOrder(asked(make.terms(client_order_id="lost").order_id), world.context(None))
    assert lost.orders[0].state == order_pb2.ORDER_STATE_ABANDONED
    again = await pair.other.control.ResolveOrder(asked(make.terms(client_order_id="lost").order_id), world.context(None))
    assert again.log_position == lost.log_position


async def test_a_reader_sees_no_event_of_a_transaction_that_still_runs_nor_any_later_one(pair: Pair) -> None:
    order_id = (await created(pair)).order_id
    start = (await pair.one.log.read_after(LogPosition(0, 0), 100))[-1].position
    flushed, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with pair.one.store.unit() as unit:
            await unit.lock([order_id])
            unit.record(order_id, decide(unit.order(order_id), RequestCancel("a", "r", make.START)))
            await unit.flush()
            flushed.set()
            await leave.wait()

    running = asyncio.create_task(slow())
    await flushed.wait()
    later = await created(pair)
    assert await pair.other.log.read_after(start, 100) == []
    leave.set()
    await running
    found = await _settled(pair, start)
    assert [event.stream_id for event in found] == [stream_of(order_id)] * 2 + [stream_of(later.order_id)]


async def _settled(pair: Pair, start: LogPosition) -> list[RecordedEvent]:
    """Other sessions of the server may hold the horizon back for a moment."""
    deadline = asyncio.get_running_loop().time() + 5
    while not (found := await pair.other.log.read_after(start, 100)):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    return found


async def test_a_unit_that_raises_leaves_nothing(pair: Pair) -> None:
    order_id = (await created(pair)).order_id

    async def fails(unit: OrderUnit) -> None:
        await unit.lock([order_id])
        unit.record(order_id, decide(unit.order(order_id), RequestCancel("a", "r", make.START)))
        await unit.flush()
        raise LookupError

    with pytest.raises(LookupError):
        async with pair.one.store.unit() as unit:
            await fails(unit)
    order = await pair.other.store.load(order_id)
    assert order is not None
    assert order.state is OrderState.PENDING_NEW
