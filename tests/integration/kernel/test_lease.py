"""Fenced leases: a contract for both adapters, then what only overlapping transactions show."""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

from kernel.clock import ManualClock, SystemClock
from kernel.errors import LeaseLostError, Reason, UnavailableError
from kernel.lease import LeaseKeeper, MemoryLeases, PostgresLeases
from kernel.ports import HeldLease, Leases
from kernel.postgres import Database

DEADLINE_SECONDS = 30.0
BLOCKED = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND usename = current_user"
EXPIRE = "UPDATE lease SET expires_at = clock_timestamp() - interval '1 second' WHERE name = $1"


class Pair(Protocol):
    """Two owners of one adapter, and a way to let time pass for the arbiter alone."""

    mine: Leases
    theirs: Leases

    async def expire(self, name: str) -> None: ...


class MemoryPair:
    def __init__(self) -> None:
        table: dict[str, tuple[str, int, float]] = {}
        self._table = table
        self.mine: Leases = MemoryLeases(table, ManualClock(), "mine")
        self.theirs: Leases = MemoryLeases(table, ManualClock(), "theirs")

    async def expire(self, name: str) -> None:
        owner, epoch, _ = self._table[name]
        self._table[name] = (owner, epoch, 0.0)


class PostgresPair:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.mine: Leases = PostgresLeases(database, SystemClock(), "mine")
        self.theirs: Leases = PostgresLeases(database, SystemClock(), "theirs")

    async def expire(self, name: str) -> None:
        async with self._database.transaction() as transaction:
            await transaction.execute(EXPIRE, name)


@pytest.fixture(params=["memory", "postgres"])
def pair(request: pytest.FixtureRequest, database: Database) -> Pair:
    return MemoryPair() if request.param == "memory" else PostgresPair(database)


async def take(leases: Leases, name: str = "fix-session") -> HeldLease:
    lease = await leases.acquire(name)
    assert lease is not None
    return lease


async def test_one_owner_at_a_time(pair: Pair) -> None:
    lease = await take(pair.mine)
    assert (lease.owner, lease.epoch) == ("mine", 1)
    assert pair.mine.still_mine(lease)
    assert await pair.theirs.acquire("fix-session") is None
    assert (await take(pair.theirs, "another")).epoch == 1


async def test_every_takeover_raises_the_epoch(pair: Pair) -> None:
    first = await take(pair.mine)
    await pair.mine.release(first)
    second = await take(pair.theirs)
    await pair.expire("fix-session")
    third = await take(pair.mine)
    assert [first.epoch, second.epoch, third.epoch] == [1, 2, 3]
    assert (await take(pair.mine)).epoch == 4


async def test_renewal_extends_and_ends(pair: Pair) -> None:
    lease = await take(pair.mine)
    renewed = await pair.mine.renew(lease)
    assert renewed.epoch == lease.epoch
    assert renewed.deadline >= lease.deadline
    await pair.expire("fix-session")
    with pytest.raises(LeaseLostError) as caught:
        await pair.mine.renew(renewed)
    assert caught.value.metadata == {"lease": "fix-session", "epoch": "1"}
    await take(pair.theirs)
    with pytest.raises(LeaseLostError):
        await pair.mine.renew(renewed)


async def test_release_of_a_lost_lease_does_nothing(pair: Pair) -> None:
    lost = await take(pair.mine)
    await pair.expire("fix-session")
    held = await take(pair.theirs)
    await pair.mine.release(lost)
    assert await pair.mine.acquire("fix-session") is None
    assert (await pair.theirs.renew(held)).epoch == held.epoch


async def test_a_lease_that_was_slept_through_writes_nothing(database: Database) -> None:
    clock = ManualClock()
    leases = PostgresLeases(database, clock, "mine")
    lease = await take(leases)
    clock.advance(leases.ttl_seconds)
    assert not leases.still_mine(lease)
    with pytest.raises(LeaseLostError):
        async with database.transaction() as transaction:
            await leases.assert_held(transaction, lease)
    # The owner's clock may stand still; PostgreSQL's decides.
    fresh = await take(leases)
    async with database.transaction() as transaction:
        await transaction.execute(EXPIRE, lease.name)
    assert leases.still_mine(fresh)
    with pytest.raises(LeaseLostError):
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO lease (name, owner, epoch, expires_at) VALUES ('row', 'x', 1, now())")
            await leases.assert_held(transaction, fresh)
    assert await database.fetchval("SELECT count(*) FROM lease WHERE name = 'row'") == 0


async def test_a_takeover_waits_for_the_write_under_way(database: Database) -> None:
    mine, theirs = PostgresLeases(database, SystemClock(), "mine"), PostgresLeases(database, SystemClock(), "theirs")
    lease = await take(mine)
    order: list[str] = []

    async def take_over() -> HeldLease:
        taken = await take(theirs)
        order.append("taken over")
        return taken

    async with database.transaction() as expiring:
        await expiring.execute("UPDATE lease SET expires_at = clock_timestamp() + interval '300 milliseconds'")
    async with database.transaction() as transaction:
        await mine.assert_held(transaction, lease)
        rival: asyncio.Task[HeldLease] = asyncio.create_task(take_over())
        async with asyncio.timeout(DEADLINE_SECONDS):
            # Until the lease has expired on PostgreSQL's clock the rival is merely refused; afterwards it waits for this transaction.
            while not await database.fetchval(BLOCKED):
                if rival.done() and rival.exception() is not None:
                    rival = asyncio.create_task(take_over())
                await asyncio.sleep(0)
        await transaction.execute("INSERT INTO lease (name, owner, epoch, expires_at) VALUES ('row', 'mine', 1, now())")
        order.append("written")
    assert (await asyncio.wait_for(rival, DEADLINE_SECONDS)).epoch == 2
    assert order == ["written", "taken over"]
    with pytest.raises(LeaseLostError):
        async with database.transaction() as transaction:
            await mine.assert_held(transaction, lease)


async def test_a_write_that_begins_during_a_takeover_is_refused(database: Database) -> None:
    leases = PostgresLeases(database, SystemClock(), "mine")
    lease = await take(leases)

    async def write() -> None:
        async with database.transaction() as transaction:
            await leases.assert_held(transaction, lease)

    async with database.transaction() as takeover:
        await takeover.execute("UPDATE lease SET owner = 'theirs', epoch = epoch + 1")
        writing = asyncio.create_task(write())
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await database.fetchval(BLOCKED):
                await asyncio.sleep(0)
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(writing, DEADLINE_SECONDS)


class FlakyLeases:
    """Answers renewals from a script."""

    def __init__(self, script: list[Exception | None], clock: ManualClock) -> None:
        self.script = script
        self._clock = clock

    async def acquire(self, name: str) -> HeldLease | None:
        return HeldLease(name, "mine", 1, self._clock.monotonic() + 5)

    async def renew(self, lease: HeldLease) -> HeldLease:
        self._clock.advance(2)
        problem = self.script.pop(0)
        if problem is not None:
            raise problem
        return HeldLease(lease.name, lease.owner, lease.epoch, self._clock.monotonic() + 5)

    async def release(self, lease: HeldLease) -> None:
        return None

    def still_mine(self, lease: HeldLease) -> bool:
        return self._clock.monotonic() < lease.deadline


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ([None, None, LeaseLostError("x", 1), None], 1),
        ([None, UnavailableError(Reason.DATABASE_UNAVAILABLE, "down"), None, LeaseLostError("x", 1)], 0),
        ([UnavailableError(Reason.DATABASE_UNAVAILABLE, "down")] * 5, 2),
    ],
)
async def test_the_keeper_renews_until_the_lease_is_lost_or_over(script: list[Exception | None], left: int) -> None:
    leases = FlakyLeases(list(script), ManualClock())
    keeper = LeaseKeeper(leases, await take(leases), renew_every_seconds=0)
    await asyncio.wait_for(keeper.run(), DEADLINE_SECONDS)
    assert len(leases.script) == left


def test_the_margin_lies_within_the_ttl() -> None:
    for margin in (0.0, 6.0, 7.0):
        with pytest.raises(ValueError, match="margin"):
            MemoryLeases({}, ManualClock(), "x", ttl_seconds=6.0, margin_seconds=margin)
