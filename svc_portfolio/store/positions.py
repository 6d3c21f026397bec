"""Executions onto positions, in the projection's transaction: history, positions, lots and our own events are one commit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from kernel.errors import StaleVersionError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import Clock, Commit, NewEvent
from kernel.postgres import Transaction
from svc_portfolio.codec.positions import POSITION_CHANGED, change_message, changed_event, position_stream
from svc_portfolio.domain.executions import Execution, PositionKey, rooted
from svc_portfolio.domain.position import FLAT, Book, Change, Lot, Position
from svc_portfolio.store.rows import (
    EXECUTION_COLUMNS,
    LOT_COLUMNS,
    MATCH_COLUMNS,
    columns,
    execution_row,
    lot_row,
    match_row,
    read_execution,
    read_lot,
    read_position,
)
from trademesh.portfolio.v1 import position_pb2

_logger = logging.getLogger(__name__)

_PAIRS = "SELECT * FROM unnest($1::text[], $2::text[]) AS p (account_id, instrument_id)"
_KNOWN = """
SELECT e.venue, e.trade_date, e.exec_id FROM execution e
JOIN unnest($1::text[], $2::text[], $3::text[]) AS u (venue, trade_date, exec_id) USING (venue, trade_date, exec_id)
"""
_POSITIONS = f"SELECT c.* FROM current_position c JOIN ({_PAIRS}) p USING (account_id, instrument_id)"  # noqa: S608 (constants)
_OPEN_LOTS = f"""
SELECT l.* FROM lot l JOIN ({_PAIRS}) p USING (account_id, instrument_id)
WHERE l.remaining > 0 ORDER BY l.log_tx, l.log_position
"""  # noqa: S608 (constants)
_HISTORY = f"""
SELECT e.* FROM execution e JOIN ({_PAIRS}) p USING (account_id, instrument_id) ORDER BY e.log_tx, e.log_position
"""  # noqa: S608 (constants)
_ADD_EXECUTIONS = f"""
INSERT INTO execution ({EXECUTION_COLUMNS}) SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::smallint[],
    $11::text[], $12::smallint[], $13::numeric[], $14::numeric[], $15::timestamptz[], $16::bigint[], $17::bigint[])
"""  # noqa: S608 (constants)
_ADD_CHANGES = """
INSERT INTO position_change (account_id, instrument_id, version, log_tx, log_position, quantity, cost, realised, message)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::numeric[], $7::numeric[], $8::numeric[],
    $9::bytea[])
"""
_PUT_POSITIONS = """
INSERT INTO current_position (account_id, instrument_id, version, log_tx, log_position, quantity, cost, realised)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::numeric[], $7::numeric[], $8::numeric[])
ON CONFLICT (account_id, instrument_id) DO UPDATE SET version = excluded.version, log_tx = excluded.log_tx,
    log_position = excluded.log_position, quantity = excluded.quantity, cost = excluded.cost, realised = excluded.realised
"""
_FORGET = (
    f"DELETE FROM lot_match m USING ({_PAIRS}) p WHERE (m.account_id, m.instrument_id) = (p.account_id, p.instrument_id)",  # noqa: S608 (constants)
    f"DELETE FROM lot l USING ({_PAIRS}) p WHERE (l.account_id, l.instrument_id) = (p.account_id, p.instrument_id)",  # noqa: S608 (constants)
)
_PUT_LOTS = f"""
INSERT INTO lot ({LOT_COLUMNS}) SELECT * FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::smallint[],
    $10::timestamptz[], $11::numeric[], $12::numeric[], $13::numeric[])
ON CONFLICT (account_id, instrument_id, log_tx, log_position) DO UPDATE SET remaining = excluded.remaining
"""  # noqa: S608 (constants)
_ADD_MATCHES = f"""
INSERT INTO lot_match ({MATCH_COLUMNS}) SELECT * FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[],
    $10::timestamptz[], $11::numeric[], $12::numeric[], $13::numeric[])
"""  # noqa: S608 (constants)


class PositionStore:
    """Adds executions to positions."""

    def __init__(self, log: PostgresEventStore, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self.repeated_executions = 0

    async def record(self, transaction: Transaction, executions: Sequence[Execution]) -> None:
        """Add executions, in log order, to their positions; one whose key is known counts nothing.

        The caller is the only writer (it holds the projection's lease in this transaction).
        """
        fresh = await self._fresh(transaction, executions)
        if not fresh:
            return
        history = await _histories(transaction, {item.position for item in fresh if not item.is_fill})
        books = await _books(transaction, {item.position for item in fresh}, history)
        changes = []
        for item in fresh:
            amended = item if item.is_fill else rooted(item, {other.key: other for other in history[item.position]})
            changes.append(books[item.position].add(amended))
        messages = [change_message(change) for change in changes]
        await self._announce(transaction, changes, messages)
        await transaction.execute(_ADD_EXECUTIONS, *columns(execution_row(change.execution) for change in changes))
        await transaction.execute(_ADD_CHANGES, *columns(_change_row(*pair) for pair in zip(changes, messages, strict=True)))
        await _write(transaction, books)

    async def _fresh(self, transaction: Transaction, executions: Sequence[Execution]) -> list[Execution]:
        if not executions:
            return []
        rows = await transaction.fetch(_KNOWN, *columns(tuple(execution.key) for execution in executions))
        known = {tuple(row) for row in rows}
        fresh = []
        for execution in executions:
            if tuple(execution.key) in known:
                self.repeated_executions += 1
                _logger.warning("execution %s was told before; it counts once", execution.key)
                continue
            known.add(tuple(execution.key))
            fresh.append(execution)
        return fresh

    async def _announce(self, transaction: Transaction, changes: Iterable[Change], messages: Iterable[position_pb2.PositionChange]) -> None:
        now = self._clock.now()
        commits = [
            Commit.single(
                position_stream(*change.execution.position), change.before.version, NewEvent(POSITION_CHANGED, changed_event(message, now))
            )
            for change, message in zip(changes, messages, strict=True)
        ]
        for outcome in await self._log.append(transaction, commits):
            if isinstance(outcome, StaleVersionError):
                raise outcome


async def _histories(transaction: Transaction, keys: set[PositionKey]) -> dict[PositionKey, list[Execution]]:
    """All executions so far of positions of which one is amended now."""
    found: dict[PositionKey, list[Execution]] = {key: [] for key in keys}
    if keys:
        for row in await transaction.fetch(_HISTORY, *columns(sorted(keys))):
            execution = read_execution(row)
            found[execution.position].append(execution)
    return found


async def _books(transaction: Transaction, keys: set[PositionKey], history: dict[PositionKey, list[Execution]]) -> dict[PositionKey, Book]:
    pairs = columns(sorted(keys))
    positions: dict[PositionKey, Position] = {
        PositionKey(row["account_id"], row["instrument_id"]): read_position(row) for row in await transaction.fetch(_POSITIONS, *pairs)
    }
    lots: dict[PositionKey, list[Lot]] = {}
    for row in await transaction.fetch(_OPEN_LOTS, *pairs):
        lots.setdefault(PositionKey(row["account_id"], row["instrument_id"]), []).append(read_lot(row))
    return {key: Book(positions.get(key, FLAT), lots.get(key, ()), history.get(key)) for key in keys}


async def _write(transaction: Transaction, books: dict[PositionKey, Book]) -> None:
    ordered = sorted(books.items())
    await transaction.execute(_PUT_POSITIONS, *columns((*key, *_position_row(book.position)) for key, book in ordered))
    restated = [key for key, book in ordered if book.restated]
    if restated:
        for statement in _FORGET:
            await transaction.execute(statement, *columns(restated))
    lots = [lot_row(key, lot) for key, book in ordered for lot in book.lots]
    if lots:
        await transaction.execute(_PUT_LOTS, *columns(lots))
    matches = [match_row(key, match) for key, book in ordered for match in book.matches]
    if matches:
        await transaction.execute(_ADD_MATCHES, *columns(matches))


def _position_row(position: Position) -> tuple[object, ...]:
    place = position.log_position
    return position.version, place.tx, place.position, position.quantity, position.cost, position.realised


def _change_row(change: Change, message: position_pb2.PositionChange) -> tuple[object, ...]:
    return (*change.execution.position, *_position_row(change.after), message.SerializeToString(deterministic=True))
