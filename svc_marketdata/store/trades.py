"""Trades on disk. Every replica writes what it hears, so a write of what is there already changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kernel.postgres import Database
from kernel.postgres.arrays import numbers, texts
from kernel.postgres.database import Record
from svc_marketdata.domain import Aggressor, Bust, RecordedTrade
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
_LATEST_DAYS = """
SELECT t.* FROM (SELECT instrument_id, max(trade_date) AS trade_date FROM trade WHERE venue = $1 GROUP BY instrument_id) AS d
CROSS JOIN LATERAL (
    SELECT instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, feed_session, feed_sequence, busted FROM trade
    WHERE venue = $1 AND instrument_id = d.instrument_id AND trade_date = d.trade_date
    ORDER BY time_ns DESC, match_number DESC, feed_session DESC, feed_sequence DESC LIMIT $2
) AS t
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

    async def latest_days(self) -> list[RecordedTrade]:
        """Return each instrument's trades of its latest day, oldest first, at most the latest 20,000 of each.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        rows = await self._database.fetch(_LATEST_DAYS, self._venue, TRADES_KEPT_MAX)
        return sorted(
            map(_trade, rows), key=lambda trade: (trade.instrument_id, trade.time_ns, trade.match_number, trade.session, trade.sequence)
        )

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
