"""Reference prices, written by the replica that holds the feed's lease.

Freshness must not rest on a cache or on somebody's optimism, so the moment at which the venue was last heard is written in PostgreSQL's own
time, and never later than it was: PostgreSQL's time at an earlier answer, plus what the receiver's monotonic clock counted since that
answer *arrived*. The time that the answer itself took makes prices look older, never younger.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from kernel.lease import PostgresLeases
from kernel.ports import Clock, HeldLease
from kernel.postgres import Database
from svc_risk.domain.reference_price import Quote

_HEARTBEAT = """
INSERT INTO price_feed VALUES ($1, $2)
ON CONFLICT (feed) DO UPDATE SET heartbeat_at = excluded.heartbeat_at
RETURNING clock_timestamp()
"""
_QUOTES = """
INSERT INTO reference_price AS t (instrument_id, bid, ask, last_trade, prior_close, prior_close_date, stale, feed, update_time)
SELECT u.*, $8, clock_timestamp()
FROM unnest($1::text[], $2::numeric[], $3::numeric[], $4::numeric[], $5::numeric[], $6::date[], $7::boolean[]) AS u
ON CONFLICT (instrument_id) DO UPDATE SET
    bid = excluded.bid, ask = excluded.ask, last_trade = excluded.last_trade, prior_close = excluded.prior_close,
    prior_close_date = excluded.prior_close_date, stale = excluded.stale, feed = excluded.feed, update_time = excluded.update_time
    WHERE t.feed = excluded.feed OR NOT EXISTS (SELECT FROM instrument i WHERE i.instrument_id = t.instrument_id AND i.venue = t.feed)
"""


class DatabaseTime:
    """PostgreSQL's time as a receiver knows it: a bound that the true time has reached."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: tuple[datetime, float] | None = None

    def learn(self, time: datetime) -> None:
        """Take what PostgreSQL has just answered."""
        self._known = time, self._clock.monotonic()

    def not_after(self, monotonic: float) -> datetime:
        """Return a time that PostgreSQL's clock had reached at a monotonic moment; `learn` must have been called."""
        assert self._known is not None, "ask PostgreSQL for its time first"
        time, learned = self._known
        return time + timedelta(seconds=monotonic - learned)


class PriceStore:
    """Writes one feed's prices under its lease."""

    def __init__(self, database: Database, leases: PostgresLeases, clock: Clock, feed: str) -> None:
        self._database = database
        self._leases = leases
        self._feed = feed
        self._time = DatabaseTime(clock)

    async def begin(self) -> None:
        """Learn PostgreSQL's time; before the first update is read."""
        self._time.learn(await self._database.fetchval("SELECT clock_timestamp()"))

    async def write(self, lease: HeldLease, quotes: Mapping[str, Quote], alive_at: float | None) -> None:
        """Write quotes that changed, and when the feed last gave a sign of life.

        Args:
            lease: the feed's.
            quotes: by instrument.
            alive_at: the monotonic moment at which the venue was last heard; None when it has not been since the last call.

        Raises:
            LeaseLostError: another replica has the feed; nothing was written.
            UnavailableError, OutcomeUnknownError: PostgreSQL did not answer.
        """
        async with self._database.transaction() as transaction:
            await self._leases.assert_held(transaction, lease)
            if quotes:
                names = sorted(quotes)
                columns = list(zip(*(quotes[name] for name in names), strict=True))
                await transaction.execute(_QUOTES, names, *(list(column) for column in columns), self._feed)
            heartbeat = None if alive_at is None else self._time.not_after(alive_at)
            if heartbeat is not None:
                self._time.learn(await transaction.fetchval(_HEARTBEAT, self._feed, heartbeat))
