"""Rows of the tables as the domain has them."""

from __future__ import annotations

from collections.abc import Iterable

from kernel.ports import LogPosition
from kernel.postgres import Record
from svc_portfolio.domain.executions import Execution, ExecutionKey, ExecutionType, PositionKey, Side
from svc_portfolio.domain.position import Lot, Match, Position
from svc_portfolio.domain.valuation import Holding

EXECUTION_COLUMNS = (
    "venue, trade_date, exec_id, root_venue, root_trade_date, root_exec_id, account_id, instrument_id, order_id, type, exec_ref_id, side,"
    " quantity, price, transact_time, log_tx, log_position"
)
LOT_COLUMNS = (
    "account_id, instrument_id, log_tx, log_position, venue, trade_date, exec_id, order_id, side, open_time, quantity, price, remaining"
)
MATCH_COLUMNS = (
    "account_id, instrument_id, lot_tx, lot_position, closing_tx, closing_position, venue, trade_date, exec_id, close_time, quantity,"
    " close_price, realised"
)


def read_execution(row: Record) -> Execution:
    """Return an execution of the history."""
    return Execution(
        LogPosition(row["log_tx"], row["log_position"]),
        ExecutionKey(row["venue"], row["trade_date"], row["exec_id"]),
        ExecutionKey(row["root_venue"], row["root_trade_date"], row["root_exec_id"]),
        PositionKey(row["account_id"], row["instrument_id"]),
        row["order_id"],
        ExecutionType(row["type"]),
        row["exec_ref_id"],
        Side(row["side"]),
        row["quantity"],
        row["price"],
        row["transact_time"],
    )


def execution_row(execution: Execution) -> tuple[object, ...]:
    """Return an execution's row in the order of `EXECUTION_COLUMNS`."""
    return (
        *execution.key, *execution.root, *execution.position, execution.order_id, int(execution.type), execution.exec_ref_id,
        int(execution.side), execution.quantity, execution.price, execution.transact_time, *_place(execution.log_position),
    )  # fmt: skip


def read_position(row: Record) -> Position:
    """Return the position of a row."""
    return Position(row["version"], LogPosition(row["log_tx"], row["log_position"]), row["quantity"], row["cost"], row["realised"])


def read_holding(row: Record) -> Holding:
    """Return a position with what is known of its instrument."""
    return Holding(row["account_id"], row["instrument_id"], read_position(row), row["currency"] or "", row["venue"] or "")


def read_lot(row: Record) -> Lot:
    """Return the lot of a row."""
    return Lot(
        ExecutionKey(row["venue"], row["trade_date"], row["exec_id"]),
        LogPosition(row["log_tx"], row["log_position"]),
        row["order_id"],
        Side(row["side"]),
        row["open_time"],
        row["quantity"],
        row["price"],
        row["remaining"],
    )


def lot_row(key: PositionKey, lot: Lot) -> tuple[object, ...]:
    """Return a lot's row in the order of `LOT_COLUMNS`."""
    return (
        *key, *_place(lot.log_position), *lot.key, lot.order_id, int(lot.side), lot.open_time, lot.quantity, lot.price, lot.remaining,
    )  # fmt: skip


def read_match(row: Record, lot: Lot) -> Match:
    """Return the match of a row; its lot is known."""
    return Match(
        lot.key,
        lot.log_position,
        ExecutionKey(row["venue"], row["trade_date"], row["exec_id"]),
        LogPosition(row["closing_tx"], row["closing_position"]),
        row["close_time"],
        row["quantity"],
        lot.price,
        row["close_price"],
        row["realised"],
    )


def match_row(key: PositionKey, match: Match) -> tuple[object, ...]:
    """Return a match's row in the order of `MATCH_COLUMNS`."""
    return (
        *key, *_place(match.lot_position), *_place(match.closing_position), *match.closing, match.close_time, match.quantity,
        match.close_price, match.realised,
    )  # fmt: skip


def columns(rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    """Return rows, at least one, as the arrays of a statement."""
    return [list(column) for column in zip(*rows, strict=True)]


def _place(position: LogPosition) -> tuple[int, int]:
    return position.tx, position.position
