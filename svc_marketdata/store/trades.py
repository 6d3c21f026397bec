"""Trades on disk. Every replica writes what it hears, so a write of what is there already changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kernel.postgres import Database
from kernel.postgres.arrays import numbers, texts
from kernel.postgres.database import Record
from svc_marketdata.domain import Aggressor, Bust, RecordedDay, RecordedTrade
from svc_marketdata.domain.trades import TRADES_KEPT_MAX

# Rows in the order of the key: replicas that write the same ones wait for each other and never in a circle.
_INSERT = """
INSERT INTO trade (venue, match_number, trade_date, instrument_id, price, quantity, aggressor, time_ns, feed_session, feed_sequence)
SELECT $1, u.* FROM unnest(
    $2::text::numeric[], $3::text::date[], $4::text::text[], $5::text::numeric[], $6::text::numeric[], $7::text::smallint[],
    $8::text::bigint[], $9::text::text[], $10::text::numeric[]
) AS u (match_number, trade_date, instrument_id, price, quantity, aggressor, time_ns, session, sequence)
ORDER BY u.match_number, u.trade_date, u.session, u.sequence
ON CONFLICT DO NOTHING
"""
# The venue breaks a trade by its number: what was told under it before, on the latest day that has it.
_BUST = """
UPDATE trade AS t SET busted = true
FROM unnest($2::text::numeric[], $3::text::text[], $4::text::numeric[]) AS b (match_number, session, sequence)
WHERE t.venue = $1 AND t.match_number = b.match_number AND (t.feed_session, t.feed_sequence) < (b.session, b.sequence)
    AND t.trade_date = (
        SELECT max(x.trade_date) FROM trade AS x
        WHERE x.venue = $1 AND x.match_number = b.match_number AND (x.feed_session, x.feed_sequence) < (b.session, b.sequence)
    )
RETURNING t.instrument_id, t.match_number, t.price, t.quantity, t.aggressor, t.trade_date, t.time_ns, t.feed_session, t.feed_sequence,
    t.busted
"""
# Each instrument's latest day by leaps through the index: history may be long.
_LATEST_DAYS = """
WITH RECURSIVE name AS (
    (SELECT instrument_id FROM trade WHERE venue = $1 ORDER BY instrument_id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.instrument_id FROM trade t WHERE t.venue = $1 AND t.instrument_id > n.instrument_id ORDER BY t.instrument_id LIMIT 1)
    FROM name n WHERE n.instrument_id IS NOT NULL
), day AS (
    SELECT n.instrument_id, (
        SELECT t.trade_date FROM trade t WHERE t.venue = $1 AND t.instrument_id = n.instrument_id ORDER BY t.trade_date DESC LIMIT 1
    ) AS trade_date
    FROM name n WHERE n.instrument_id IS NOT NULL
)
SELECT d.instrument_id, d.trade_date, s.volume, o.price, s.high, s.low FROM day d
CROSS JOIN LATERAL (
    SELECT sum(t.quantity) AS volume, max(t.price) AS high, min(t.price) AS low FROM trade t
    WHERE t.venue = $1 AND t.instrument_id = d.instrument_id AND t.trade_date = d.trade_date AND NOT t.busted
) AS s
CROSS JOIN LATERAL (
    SELECT t.price FROM trade t
    WHERE t.venue = $1 AND t.instrument_id = d.instrument_id AND t.trade_date = d.trade_date AND NOT t.busted
    ORDER BY t.time_ns, t.match_number LIMIT 1
) AS o
"""
_LATEST_OF_DAY = """
SELECT instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, feed_session, feed_sequence, busted FROM trade
WHERE venue = $1 AND instrument_id = $2 AND trade_date = $3 AND NOT busted
ORDER BY time_ns DESC, match_number DESC, feed_session DESC, feed_sequence DESC LIMIT $4
"""
_PAGE = """
SELECT instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, feed_session, feed_sequence, busted FROM trade
WHERE venue = $1 AND instrument_id = $2 AND time_ns >= $3
    AND (time_ns, match_number, feed_session, feed_sequence) < ($4::bigint, $5::text::numeric, $6, $7::text::numeric)
ORDER BY time_ns DESC, match_number DESC, feed_session DESC, feed_sequence DESC LIMIT $8
"""
MATCH_NUMBER_END = 1 << 64


class TradeKey(NamedTuple):
    """A place in an instrument's list of trades."""

    time_ns: int
    match_number: int
    session: str = ""
    sequence: int = 0


class TradeStore:
    """The trades of one venue."""

    def __init__(self, database: Database, venue: str) -> None:
        self._database = database
        self._venue = venue

    async def write(self, trades: Sequence[RecordedTrade], busts: Sequence[Bust]) -> list[RecordedTrade]:
        """Write trades, then break some; return the broken ones. All of it or nothing, and again harmlessly.

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
            if not busts:
                return []
            rows = await transaction.fetch(
                _BUST,
                self._venue,
                numbers(bust.match_number for bust in busts),
                texts(bust.session for bust in busts),
                numbers(bust.sequence for bust in busts),
            )
            return [_trade(row) for row in rows]

    async def latest_days(self, *, trades_max: int = TRADES_KEPT_MAX) -> list[RecordedDay]:
        """Return each instrument's latest day that has a trade that stands, with at most the latest 20,000 of its trades.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        days = []
        for name, day, volume, open_price, high, low in await self._database.fetch(_LATEST_DAYS, self._venue):
            rows = await self._database.fetch(_LATEST_OF_DAY, self._venue, name, day, trades_max)
            days.append(RecordedDay(name, day, volume, open_price, high, low, tuple(map(_trade, reversed(rows)))))
        return days

    async def page(self, instrument_id: str, *, before: TradeKey, start_ns: int, limit: int) -> list[RecordedTrade]:
        """Return trades before a place and not before a time, newest first.

        Raises:
            UnavailableError, ResourceExhaustedError: PostgreSQL does not answer.
        """
        rows = await self._database.fetch(
            _PAGE,
            self._venue,
            instrument_id,
            start_ns,
            before.time_ns,
            str(before.match_number),
            before.session,
            str(before.sequence),
            limit,
        )
        return [_trade(row) for row in rows]


def _trade(row: Record) -> RecordedTrade:
    instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, session, sequence, busted = row
    return RecordedTrade(
        instrument_id, int(match_number), price, quantity, Aggressor(aggressor), trade_date, time_ns, session, int(sequence), busted
    )
