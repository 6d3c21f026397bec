"""What clients see. Each answer is one snapshot of the database, and shows one place in svc_oms's log: the latest, or an earlier one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import NamedTuple

from kernel.errors import Reason, ResourceExhaustedError, UnavailableError
from kernel.ports import LogPosition
from kernel.postgres import Database, Transaction
from kernel.values import ZERO
from svc_portfolio.domain.executions import PositionKey
from svc_portfolio.domain.position import EXACT, FLAT, Fold, Lot, Match, fold
from svc_portfolio.domain.valuation import Holding
from svc_portfolio.store.rows import read_execution, read_holding, read_lot, read_match
from trademesh.portfolio.v1 import position_pb2

PROJECTION, SOURCE = "positions", "oms"
"""Name and source of the projection that the reads show."""

POSITION_WAIT_SECONDS = 3.0
"""Without a bus the log is asked once a second."""

FOLD_EXECUTIONS_MAX = 200_000
"""Executions of one position that a read about the past folds."""

RETRY_SECONDS = 0.1
_POSITION_PAUSE_SECONDS = 0.01

_CURSOR = "SELECT tx, position FROM projection_cursor WHERE projection = $1 AND source = $2"
# A round of events may take several transactions, and the cursor moves with the last: what is applied already is shown and said.
_LAST = "SELECT log_tx, log_position FROM position_change ORDER BY log_tx DESC, log_position DESC LIMIT 1"
_HOLDINGS = """
SELECT c.*, i.currency, i.venue FROM current_position c LEFT JOIN instrument i USING (instrument_id)
WHERE c.account_id = $1 AND c.instrument_id > $2 AND ($3 OR c.quantity <> 0) AND ($4 = '' OR c.instrument_id = $4)
ORDER BY c.instrument_id LIMIT $5
"""
_HOLDINGS_AS_OF = """
SELECT h.*, i.currency, i.venue FROM current_position c
CROSS JOIN LATERAL (
    SELECT p.account_id, p.instrument_id, p.version, p.log_tx, p.log_position, p.quantity, p.cost, p.realised FROM position_change p
    WHERE p.account_id = c.account_id AND p.instrument_id = c.instrument_id AND (p.log_tx, p.log_position) <= ($6, $7)
    ORDER BY p.log_tx DESC, p.log_position DESC LIMIT 1
) h
LEFT JOIN instrument i ON i.instrument_id = c.instrument_id
WHERE c.account_id = $1 AND c.instrument_id > $2 AND ($3 OR h.quantity <> 0) AND ($4 = '' OR c.instrument_id = $4)
ORDER BY c.instrument_id LIMIT $5
"""
_LOTS = """
SELECT * FROM lot
WHERE account_id = $1 AND (instrument_id, log_tx, log_position) > ($2, $3, $4) AND {selected} AND {counted}
ORDER BY instrument_id, log_tx, log_position LIMIT $6
"""
_MATCHES = """
SELECT m.* FROM lot_match m
JOIN unnest($2::text[], $3::bigint[], $4::bigint[]) AS u (instrument_id, lot_tx, lot_position) USING (instrument_id, lot_tx, lot_position)
WHERE m.account_id = $1 ORDER BY m.closing_tx, m.closing_position
"""
_INSTRUMENTS = """
SELECT instrument_id FROM current_position WHERE account_id = $1 AND instrument_id >= $2 AND ($3 = '' OR instrument_id = $3)
ORDER BY instrument_id
"""
_HISTORY = """
SELECT * FROM execution WHERE account_id = $1 AND instrument_id = $2 AND (log_tx, log_position) <= ($3, $4)
ORDER BY log_tx, log_position LIMIT $5
"""
_REALISED = """
SELECT instrument_id, trade_date, sum(realised) AS realised FROM lot_match
WHERE account_id = $1 AND {selected} AND ($2 = '' OR trade_date >= $2) AND ($3 = '' OR trade_date <= $3)
GROUP BY instrument_id, trade_date ORDER BY instrument_id, trade_date
"""
_CHANGES = """
SELECT message FROM position_change WHERE account_id = $1 AND (log_tx, log_position) < ($2, $3) AND (log_tx, log_position) <= ($4, $5)
ORDER BY log_tx DESC, log_position DESC LIMIT $6
"""
_CHANGES_OF_POSITION = """
SELECT message FROM position_change
WHERE account_id = $1 AND instrument_id = $7 AND (log_tx, log_position) < ($2, $3) AND (log_tx, log_position) <= ($4, $5)
ORDER BY log_tx DESC, log_position DESC LIMIT $6
"""


class LotRow(NamedTuple):
    """A lot, where it belongs, and its closings as far as they were asked for."""

    key: PositionKey
    lot: Lot
    matches: Sequence[Match]


LotKey = tuple[str, int, int]
FIRST_LOT: LotKey = ("", 0, 0)
"""Before every lot: instrument, and the place of the fill in the log."""

Realised = dict[str, dict[str, Decimal]]
"""Realised profit by instrument and trade date."""


class View:
    """One snapshot. `position` is the place in svc_oms's log that it shows; `latest` says whether nothing later is known."""

    def __init__(self, transaction: Transaction, position: LogPosition, *, latest: bool) -> None:
        self._transaction = transaction
        self.position = position
        self.latest = latest

    async def holdings(
        self, account_id: str, *, include_closed: bool, after: str = "", instrument_id: str = "", limit: int
    ) -> list[Holding]:
        """Return positions of an account above an instrument, by instrument; an empty filter means all."""
        arguments = (account_id, after, include_closed, instrument_id, limit)
        if self.latest:
            rows = await self._transaction.fetch(_HOLDINGS, *arguments)
        else:
            rows = await self._transaction.fetch(_HOLDINGS_AS_OF, *arguments, self.position.tx, self.position.position)
        return [read_holding(row) for row in rows]

    async def holding(self, account_id: str, instrument_id: str) -> Holding | None:
        """Return a position; a flat one where the instrument is known and was not traded, None where neither is the case."""
        found = await self.holdings(account_id, include_closed=True, instrument_id=instrument_id, limit=1)
        if found:
            return found[0]
        row = await self._transaction.fetchrow("SELECT currency, venue FROM instrument WHERE instrument_id = $1", instrument_id)
        return None if row is None else Holding(account_id, instrument_id, FLAT, row["currency"], row["venue"])

    async def lots(
        self, account_id: str, *, instrument_id: str, include_closed: bool, after: LotKey = FIRST_LOT, limit: int
    ) -> list[LotRow]:
        """Return lots of an account above a key, with their closings where closed ones are asked for. An empty filter means all."""
        if not self.latest:
            return await self._past_lots(account_id, instrument_id, include_closed, after, limit)
        # Statements of their own, because no index serves a condition that may be off.
        selected = "instrument_id = $5" if instrument_id else "$5::text = ''"
        statement = _LOTS.format(selected=selected, counted="true" if include_closed else "remaining > 0")
        rows = await self._transaction.fetch(statement, account_id, *after, instrument_id, limit)
        lots = [(PositionKey(row["account_id"], row["instrument_id"]), read_lot(row)) for row in rows]
        matches = await self._matches(account_id, lots) if include_closed and lots else {}
        return [LotRow(key, lot, matches.get(_lot_key(key, lot), ())) for key, lot in lots]

    async def realised(self, account_id: str, *, instrument_id: str, first: str, last: str) -> Realised:
        """Return realised profit of closings between two trade dates, both included; empty ones and an empty filter mean all."""
        found: Realised = {}
        if self.latest:
            statement = _REALISED.format(selected="instrument_id = $4" if instrument_id else "$4::text = ''")
            for row in await self._transaction.fetch(statement, account_id, first, last, instrument_id):
                found.setdefault(row["instrument_id"], {})[row["trade_date"]] = row["realised"]
            return found
        for name in await self._instruments(account_id, "", instrument_id):
            folded = await self._fold(account_id, name)
            dates: dict[str, Decimal] = {}
            for match in folded.matches:
                if (not first or match.trade_date >= first) and (not last or match.trade_date <= last):
                    dates[match.trade_date] = EXACT.add(dates.get(match.trade_date, ZERO), match.realised)
            if dates:
                found[name] = dict(sorted(dates.items()))
        return found

    async def changes(self, account_id: str, *, instrument_id: str, before: LogPosition, limit: int) -> list[position_pb2.PositionChange]:
        """Return changes of an account's positions below a place in svc_oms's log, newest first. An empty filter means all."""
        arguments = (account_id, before.tx, before.position, self.position.tx, self.position.position, limit)
        if instrument_id:
            rows = await self._transaction.fetch(_CHANGES_OF_POSITION, *arguments, instrument_id)
        else:
            rows = await self._transaction.fetch(_CHANGES, *arguments)
        return [position_pb2.PositionChange.FromString(row["message"]) for row in rows]

    async def _matches(self, account_id: str, lots: Sequence[tuple[PositionKey, Lot]]) -> dict[LotKey, list[Match]]:
        by_key = {_lot_key(key, lot): lot for key, lot in lots}
        names, transactions, places = zip(*by_key, strict=True)
        found: dict[LotKey, list[Match]] = {}
        for row in await self._transaction.fetch(_MATCHES, account_id, list(names), list(transactions), list(places)):
            lot_key = (row["instrument_id"], row["lot_tx"], row["lot_position"])
            found.setdefault(lot_key, []).append(read_match(row, by_key[lot_key]))
        return found

    async def _past_lots(self, account_id: str, instrument_id: str, include_closed: bool, after: LotKey, limit: int) -> list[LotRow]:
        found: list[LotRow] = []
        for name in await self._instruments(account_id, after[0], instrument_id):
            folded = await self._fold(account_id, name)
            matches: dict[object, list[Match]] = {}
            for match in folded.matches if include_closed else ():
                matches.setdefault(match.lot, []).append(match)
            key = PositionKey(account_id, name)
            for lot in sorted(folded.touched.values(), key=lambda lot: lot.log_position):
                if _lot_key(key, lot) > after and (include_closed or lot.remaining):
                    found.append(LotRow(key, lot, matches.get(lot.key, ())))
            if len(found) >= limit:
                break
        return found[:limit]

    async def _instruments(self, account_id: str, first: str, instrument_id: str) -> list[str]:
        return [row["instrument_id"] for row in await self._transaction.fetch(_INSTRUMENTS, account_id, first, instrument_id)]

    async def _fold(self, account_id: str, instrument_id: str) -> Fold:
        rows = await self._transaction.fetch(
            _HISTORY, account_id, instrument_id, self.position.tx, self.position.position, FOLD_EXECUTIONS_MAX + 1
        )
        if len(rows) > FOLD_EXECUTIONS_MAX:
            raise ResourceExhaustedError(
                Reason.QUOTA_EXCEEDED,
                f"as_of: the position had more than {FOLD_EXECUTIONS_MAX} executions by then; its lots are not folded",
            )
        return fold(read_execution(row) for row in rows)[1]


def _lot_key(key: PositionKey, lot: Lot) -> LotKey:
    return key.instrument_id, lot.log_position.tx, lot.log_position.position


class PortfolioReads:
    """Opens views. `wait_seconds` is how long a place in the log that was named is waited for."""

    def __init__(self, database: Database, *, wait_seconds: float = POSITION_WAIT_SECONDS) -> None:
        self._database = database
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def view(self, *, minimum: LogPosition | None = None, as_of: LogPosition | None = None) -> AsyncIterator[View]:
        """Open a view that shows at least a place in svc_oms's log, or exactly one.

        Raises:
            UnavailableError: DEPENDENCY_UNAVAILABLE, executions are not folded that far yet, or the place is not of svc_oms's log.
        """
        await self._wait_for(max(minimum or LogPosition(0, 0), as_of or LogPosition(0, 0)))
        async with self._database.transaction() as transaction:
            await transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor = await transaction.fetchrow(_CURSOR, PROJECTION, SOURCE)
            last = await transaction.fetchrow(_LAST)
            shown = max((LogPosition(*row) for row in (cursor, last) if row is not None), default=LogPosition(0, 0))
            yield View(transaction, shown if as_of is None else as_of, latest=as_of is None or as_of >= shown)

    async def _wait_for(self, position: LogPosition) -> None:
        if position <= LogPosition(0, 0):
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        while True:
            row = await self._database.fetchrow(_CURSOR, PROJECTION, SOURCE)
            if row is not None and LogPosition(*row) >= position:
                return
            if loop.time() >= deadline:
                text = f"executions are not folded up to position {position} of the order log"
                raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, text, retry_after_seconds=RETRY_SECONDS)
            await asyncio.sleep(_POSITION_PAUSE_SECONDS)
