"""Trades on disk. Every replica writes what it hears, so a write of what is there already changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kernel.postgres import Database
from kernel.postgres.arrays import numbers, texts
from kernel.postgres.database import Record
from svc_marketdata.domain import Aggressor, RecordedTrade
from svc_marketdata.domain.trades import TRADES_KEPT_MAX

# Rows in the order of the key: replicas that write the same ones wait for each other and never in a circle.
_INSERT = """
INSERT INTO trade (venue, match_number, trade_date, instrument_id, price, quantity, aggressor, time_ns, feed_session, feed_sequence)
SELECT $1, u.* FROM unnest(
    $2::text::numeric[], $3::text::date[], $4::text::text[], $5::text::numeric[], $6::text::numeric[], $7::text::smallint[],
    $8::text::bigint[], $9::text::text[], $10::text::numeric[]
) AS u (match_number, trade_date) ORDER BY u.match_number, u.trade_date
ON CONFLICT (venue, match_number, trade_date) DO NOTHING
"""
# The venue breaks a trade by its number; where an earlier day had the same one, the latest is meant.
_BUST = """
UPDATE trade SET busted = true
WHERE (venue, match_number, trade_date) IN (
    SELECT venue, match_number, max(trade_date) FROM trade WHERE venue = $1 AND match_number = ANY ($2::text::numeric[])
    GROUP BY venue, match_number
)
RETURNING instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, feed_session, feed_sequence, busted
"""
_LATEST_DAYS = """
SELECT t.* FROM (SELECT instrument_id, max(trade_date) AS trade_date FROM trade WHERE venue = $1 GROUP BY instrument_id) AS d
CROSS JOIN LATERAL (
    SELECT instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, feed_session, feed_sequence, busted FROM trade
    WHERE venue = $1 AND instrument_id = d.instrument_id AND trade_date = d.trade_date
    ORDER BY time_ns DESC, match_number DESC LIMIT $2
) AS t
"""
_PAGE = """
SELECT instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, feed_session, feed_sequence, busted FROM trade
WHERE venue = $1 AND instrument_id = $2 AND (time_ns, match_number) < ($3::bigint, $4::text::numeric) AND time_ns >= $5
ORDER BY time_ns DESC, match_number DESC LIMIT $6
"""
MATCH_NUMBER_END = 1 << 64


class TradeKey(NamedTuple):
    """A place in an instrument's list of trades."""

    time_ns: int
    match_number: int


class TradeStore:
    """The trades of one venue."""

    def __init__(self, database: Database, venue: str) -> None:
        self._database = database
        self._venue = venue

    async def write(self, trades: Sequence[RecordedTrade], busted: Sequence[int]) -> list[RecordedTrade]:
        """Write trades, then break those with the numbers given; return the broken ones. All of it or nothing, and again harmlessly.

        Raises:
            UnavailableError, ResourceExhaustedError, AbortedError, OutcomeUnknownError: write again.
        """
        async with self._database.transaction() as transaction:
            if trades:
                await transaction.execute(
                    _INSERT,
                    self._venue,
                    numbers(trade.match_number for trade in trades),
                    numbers(trade.trade_date.isoformat() for trade in trades),
                    texts(trade.instrument_id for trade in trades),
                    numbers(f"{trade.price:f}" for trade in trades),
                    numbers(f"{trade.quantity:f}" for trade in trades),
                    numbers(int(trade.aggressor) for trade in trades),
                    numbers(trade.time_ns for trade in trades),
                    texts(trade.session for trade in trades),
                    numbers(trade.sequence for trade in trades),
                )
            if not busted:
                return []
            rows = await transaction.fetch(_BUST, self._venue, numbers(sorted(set(busted))))
            return [_trade(row) for row in rows]

    async def latest_days(self) -> list[RecordedTrade]:
        """Return each instrument's trades of its latest day, oldest first, at most the latest 20,000 of each.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        rows = await self._database.fetch(_LATEST_DAYS, self._venue, TRADES_KEPT_MAX)
        return sorted(map(_trade, rows), key=lambda trade: (trade.instrument_id, trade.time_ns, trade.match_number))

    async def page(self, instrument_id: str, *, before: TradeKey, start_ns: int, limit: int) -> list[RecordedTrade]:
        """Return trades before a place and not before a time, newest first.

        Raises:
            UnavailableError, ResourceExhaustedError: PostgreSQL does not answer.
        """
        rows = await self._database.fetch(_PAGE, self._venue, instrument_id, before.time_ns, str(before.match_number), start_ns, limit)
        return [_trade(row) for row in rows]


def _trade(row: Record) -> RecordedTrade:
    instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, session, sequence, busted = row
    return RecordedTrade(
        instrument_id, int(match_number), price, quantity, Aggressor(aggressor), trade_date, time_ns, session, int(sequence), busted
    )
