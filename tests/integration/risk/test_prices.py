"""The price feed, from updates to what decisions read, under a lease that changes hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from kernel.clock import SystemClock
from kernel.errors import LeaseLostError, Reason, UnavailableError
from kernel.leadership import lead
from kernel.lease import LeaseKeeper
from kernel.ports import HeldLease
from kernel.postgres import Connection
from mesh.local.provision import ServiceDatabase
from svc_risk.clients.market_data import PriceUpdate
from svc_risk.consumer.prices import PriceFollower
from svc_risk.domain.reference_price import Quote
from svc_risk.main import Stores
from svc_risk.store.prices import PriceStore
from tests.integration.risk.world import VENUE, buy, populate

LEASE = f"price-feed:{VENUE}"
CLOCK = SystemClock()


class Feed:
    """A feed that says what a test puts into it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, Quote] | None] = asyncio.Queue()

    async def updates(self) -> AsyncIterator[PriceUpdate]:
        while (quotes := await self.queue.get()) is not None:
            yield PriceUpdate(quotes, datetime.now(UTC), CLOCK.monotonic(), 0.0)
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "the feed ended")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_what_the_feed_says_is_what_the_next_decision_reads(stores: Stores, risk_database: ServiceDatabase, sql: Connection) -> None:
    await populate(risk_database.owner_dsn)
    await sql.execute("DELETE FROM reference_price")
    await sql.execute("DELETE FROM price_feed")
    feed = Feed()
    follower = PriceFollower(feed, PriceStore(stores.database, stores.leases, CLOCK, VENUE), flush_seconds=0.01)
    following = asyncio.create_task(lead(stores.leases, LEASE, follower.run))
    closed = Quote(None, None, None, Decimal(90), datetime.now(UTC).date(), stale=False)
    traded = closed._replace(last_trade=Decimal(95))
    for quote in (closed, traded, traded._replace(bid=Decimal(99), ask=Decimal(101))):
        feed.queue.put_nowait({"AAPL": quote})

    async def approved() -> bool:
        return (await stores.checks.decide([buy("1")]))[0].result.HasField("approval")

    await until(approved)
    row = await sql.fetchrow("SELECT * FROM reference_price")
    assert row is not None
    assert [row[name] for name in ("bid", "ask", "last_trade", "prior_close", "feed")] == [99, 101, 95, 90, VENUE]

    async def heartbeat() -> datetime:
        found = await sql.fetchval("SELECT heartbeat_at FROM price_feed")
        assert isinstance(found, datetime)
        return found

    first = await heartbeat()
    assert first <= await sql.fetchval("SELECT clock_timestamp()")
    feed.queue.put_nowait({})
    async with asyncio.timeout(5):
        while await heartbeat() == first:
            await asyncio.sleep(0.01)
    assert timedelta(0) < await heartbeat() - first < timedelta(seconds=5)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_replica_that_lost_the_feed_writes_nothing(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: Connection
) -> None:
    await populate(risk_database.owner_dsn)
    old = await stores.leases.acquire(LEASE)
    assert old is not None
    await stores.leases.release(old)
    new = await other.leases.acquire(LEASE)
    assert new is not None
    quote = Quote(Decimal(1), Decimal(2), None, None, None, stale=False)
    sleeper = PriceStore(stores.database, stores.leases, CLOCK, VENUE)
    await sleeper.begin()
    with pytest.raises(LeaseLostError):
        await sleeper.write(HeldLease(LEASE, old.owner, old.epoch, CLOCK.monotonic() + 60), {"AAPL": quote}, CLOCK.monotonic())
    assert await sql.fetchval("SELECT bid FROM reference_price WHERE instrument_id = 'AAPL'") == 100
    owner = PriceStore(other.database, other.leases, CLOCK, VENUE)
    await owner.begin()
    await owner.write(new, {"AAPL": quote, "NEW": quote}, None)
    assert await sql.fetchval("SELECT count(*) FROM reference_price WHERE bid = 1") == 2


async def test_a_feed_speaks_for_its_own_venue(stores: Stores, risk_database: ServiceDatabase, sql: Connection) -> None:
    await populate(risk_database.owner_dsn)
    lease = await stores.leases.acquire("price-feed:XNYS")
    assert lease is not None
    stranger = PriceStore(stores.database, stores.leases, CLOCK, "XNYS")
    await stranger.begin()
    quote = Quote(Decimal(1), Decimal(2), None, None, None, stale=False)
    await stranger.write(lease, {"AAPL": quote}, CLOCK.monotonic())
    assert await sql.fetchval("SELECT bid FROM reference_price WHERE instrument_id = 'AAPL'") == 100
    assert (await stores.checks.decide([buy("1")]))[0].result.HasField("approval")


async def test_the_follower_ends_with_its_feed(stores: Stores, risk_database: ServiceDatabase) -> None:
    lease = await stores.leases.acquire(LEASE)
    assert lease is not None
    feed = Feed()
    feed.queue.put_nowait(None)
    follower = PriceFollower(feed, PriceStore(stores.database, stores.leases, CLOCK, VENUE), flush_seconds=0.01)
    with pytest.raises(UnavailableError, match="the feed ended"):
        await follower.run(LeaseKeeper(stores.leases, lease))


async def test_what_is_shown_is_what_the_next_decision_would_find(stores: Stores, risk_database: ServiceDatabase, sql: Connection) -> None:
    await populate(risk_database.owner_dsn)
    await sql.execute("UPDATE price_feed SET heartbeat_at = clock_timestamp()")
    shown = await stores.reads.reference_prices(["AAPL", "NOBODY"])
    venue, price = shown["AAPL"]
    assert (list(shown), venue, price.fresh) == (["AAPL"], VENUE, True)
    assert (await stores.checks.decide([buy("1")]))[0].result.HasField("approval")
    await sql.execute("UPDATE price_feed SET heartbeat_at = clock_timestamp() - interval '3 seconds'")
    assert not (await stores.reads.reference_prices(["AAPL"]))["AAPL"][1].fresh
    assert (await stores.checks.decide([buy("2")]))[0].result.HasField("undecided")
