"""What the router leans on: its queue, keys, kill switches, FIX sessions, leases. The same of PostgreSQL and of its double."""

from __future__ import annotations

import asyncio

import pytest

from kernel.errors import AbortedError, AlreadyExistsError, LeaseLostError
from kernel.fix.steps import ResendRange, Sequences, StoredMessage
from svc_oms.domain import Action, OrderState, ReportKind, decide
from svc_oms.domain.commands import MarkUnknown
from svc_oms.fix.ports import SessionChange
from svc_oms.store.fix_sessions import FixSessions
from svc_oms.store.keys import KnownAnswer, purge_keys, read_keys, write_keys
from svc_oms.store.kill_switches import Scope, Switch, lock_active, lock_and_read, write
from svc_oms.store.venue_requests import any_unsent, counted, doubtful, forget, late, server_time, unanswered, unsent
from tests.contract.oms.conftest import Pair
from tests.integration.oms import world
from tests.unit.oms import make

KEY = ("ACC-1", "018f0000-0000-7000-8000-000000000001")


async def test_a_request_waits_then_is_sent_then_answered(pair: Pair) -> None:
    order_id = (await pair.one.create(world.order())).order.order_id
    assert await any_unsent(pair.other.database, world.VENUE)
    async with pair.one.store.unit() as unit:
        (waiting,) = await unsent(unit.transaction, world.VENUE)
    assert (waiting.venue_client_order_id, waiting.order_id, waiting.action) == (order_id, order_id, Action.NEW)
    assert [request.order_id for request in await late(pair.other.database, 0.0)] == [order_id]
    assert await late(pair.other.database, 60.0) == []
    await pair.one.venue(order_id)
    assert not await any_unsent(pair.other.database, world.VENUE)
    assert [request.order_id for request in await unanswered(pair.other.database, 0.0)] == [order_id]
    assert await doubtful(pair.other.database, world.VENUE, await server_time(pair.one.database)) == [order_id]
    await pair.other.venue(order_id, make.report(ReportKind.ACKNOWLEDGED))
    assert await unanswered(pair.one.database, 0.0) == []
    assert await doubtful(pair.one.database, world.VENUE, await server_time(pair.one.database)) == []


async def test_an_overdue_request_stays_doubtful_until_it_is_forgotten(pair: Pair) -> None:
    order_id = (await pair.one.create(world.order())).order.order_id
    await pair.one.venue(order_id)
    async with pair.other.store.unit() as unit:
        await unit.lock([order_id])
        unit.record(order_id, decide(unit.order(order_id), MarkUnknown(order_id, make.START)))
        await unit.flush()
    order = await pair.one.store.load(order_id)
    assert order is not None
    assert order.state is OrderState.UNKNOWN
    assert await unanswered(pair.one.database, 0.0) == []
    assert await doubtful(pair.one.database, world.VENUE, make.START) == [order_id]
    async with pair.one.store.unit() as unit:
        await forget(unit.transaction, [order_id, "nobody's"])
    assert await doubtful(pair.one.database, world.VENUE, make.START) == []


async def test_an_execution_is_counted_for_its_order(pair: Pair) -> None:
    order_id = (await pair.one.create(world.order())).order.order_id
    fill = make.fill("1")
    await pair.one.venue(order_id, fill)
    async with pair.other.store.unit() as unit:
        assert await counted(unit.transaction, [fill.key, make.fill("1").key]) == {fill.key: order_id}


async def test_a_key_is_answered_once(pair: Pair) -> None:
    answer = KnownAnswer(b"hash", b"answer")
    async with pair.one.store.unit() as unit:
        await write_keys(unit.transaction, [(KEY, answer)])
    with pytest.raises(AbortedError):
        async with pair.other.store.unit() as unit:
            await write_keys(unit.transaction, [(("ACC-1", "other"), answer), (KEY, KnownAnswer(b"x", b"y"))])
    assert await read_keys(pair.other.database, [KEY, ("ACC-1", "other")]) == {KEY: answer}
    assert await purge_keys(pair.one.database) == 0


async def test_keys_written_at_once_wait_for_each_other(pair: Pair) -> None:
    async def answer(replica: world.Replica, text: bytes) -> bool:
        try:
            async with replica.store.unit() as unit:
                await write_keys(unit.transaction, [(KEY, KnownAnswer(b"h", text))])
        except AbortedError:
            return False
        return True

    won = await asyncio.gather(answer(pair.one, b"1"), answer(pair.other, b"2"), answer(pair.one, b"3"))
    assert sorted(won) == [False, False, True]


async def test_a_change_of_switches_waits_for_senders_and_senders_for_it(pair: Pair) -> None:
    switch = Switch(Scope.ACCOUNT, "ACC-1", True, 1, False)
    order = make.placed()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def sender() -> None:
        async with pair.one.store.unit() as unit:
            assert not (await lock_active(unit.transaction)).cover(order)
            entered.set()
            await leave.wait()

    async def change() -> None:
        async with pair.other.store.unit() as unit:
            assert await lock_and_read(unit.transaction, [switch]) == {}
            await write(unit.transaction, [switch])

    sending = asyncio.create_task(sender())
    await entered.wait()
    changing = asyncio.create_task(change())
    done, _ = await asyncio.wait([changing], timeout=0.1)
    assert not done
    leave.set()
    await asyncio.gather(sending, changing)
    async with pair.one.store.unit() as unit:
        assert (await lock_active(unit.transaction)).cover(order)
    released = Switch(Scope.ACCOUNT, "ACC-1", False, 2, False)
    async with pair.one.store.unit() as unit:
        assert await lock_and_read(unit.transaction, [released]) == {(2, "ACC-1"): switch}
        await write(unit.transaction, [released])
    async with pair.other.store.unit() as unit:
        assert not (await lock_active(unit.transaction)).cover(order)


async def test_numbers_go_forward_only_and_name_one_message_each(pair: Pair) -> None:
    sessions = FixSessions()
    stored = tuple(StoredMessage(number, "D", b"11=x\x01", "20260105-15:00:00.000", "an order") for number in (1, 2))
    async with pair.one.store.unit() as unit:
        assert await sessions.load(unit.transaction, "XSIM") == Sequences()
        await sessions.save(unit.transaction, "XSIM", SessionChange(Sequences(4, 3), stored))
    async with pair.other.store.unit() as unit:
        assert await sessions.load(unit.transaction, "XSIM") == Sequences(4, 3)
        assert tuple(await sessions.messages(unit.transaction, "XSIM", ResendRange(2, 9))) == stored[1:]
        await sessions.purge(unit.transaction, "XSIM")
    with pytest.raises(AlreadyExistsError):
        async with pair.other.store.unit() as unit:
            await sessions.save(unit.transaction, "XSIM", SessionChange(Sequences(4, 4), stored[1:]))
    with pytest.raises(AssertionError):
        async with pair.other.store.unit() as unit:
            await sessions.save(unit.transaction, "XSIM", SessionChange(Sequences(3, 3)))
    async with pair.one.store.unit() as unit:
        assert await sessions.load(unit.transaction, "XSIM") == Sequences(4, 3)


async def test_a_lease_has_one_holder_and_fences_the_one_before(pair: Pair) -> None:
    mine, theirs = pair.one.leases(ttl_seconds=0.3), pair.other.leases(ttl_seconds=60.0)
    held = await mine.acquire("session")
    assert held is not None
    assert await theirs.acquire("session") is None
    async with pair.one.store.unit() as unit:
        await mine.assert_held(unit.transaction, await mine.renew(held))
    deadline = asyncio.get_running_loop().time() + 5
    while (taken := await theirs.acquire("session")) is None:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    assert taken.epoch == held.epoch + 1
    with pytest.raises(LeaseLostError):
        await mine.renew(held)
    with pytest.raises(LeaseLostError):
        async with pair.one.store.unit() as unit:
            await mine.assert_held(unit.transaction, held)
    await theirs.release(taken)
    assert await mine.acquire("session") is not None


async def test_a_takeover_waits_for_the_transaction_that_asserted_the_lease(pair: Pair) -> None:
    mine, theirs = pair.one.leases(ttl_seconds=0.3), pair.other.leases(ttl_seconds=0.3)
    held = await mine.acquire("session")
    assert held is not None
    asserted, leave = asyncio.Event(), asyncio.Event()

    async def owner() -> None:
        async with pair.one.store.unit() as unit:
            await mine.assert_held(unit.transaction, held)
            asserted.set()
            await leave.wait()

    async def rival() -> None:
        while await theirs.acquire("session") is None:
            await asyncio.sleep(0.02)

    owning = asyncio.create_task(owner())
    await asserted.wait()
    rivalling = asyncio.create_task(rival())
    done, _ = await asyncio.wait([rivalling], timeout=0.6)
    assert not done
    leave.set()
    await asyncio.gather(owning, rivalling)
