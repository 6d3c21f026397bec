"""Positions, lots, changes and marks as clients see them. Exact amounts are rounded here, once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.event_records import from_position, to_position
from kernel.values import format_decimal
from svc_portfolio.domain.executions import ExecutionType
from svc_portfolio.domain.position import Change, Lot, Match, Position
from svc_portfolio.domain.valuation import Holding, Mark, Total, market_value, rounded, unrealised
from trademesh.portfolio.v1 import events_pb2, portfolio_service_pb2, position_pb2

POSITION_CHANGED = "portfolio.v1.PositionChanged"

_CHANGE_TYPES = {
    ExecutionType.TRADE: position_pb2.POSITION_CHANGE_TYPE_FILL,
    ExecutionType.TRADE_CANCEL: position_pb2.POSITION_CHANGE_TYPE_BUST,
    ExecutionType.TRADE_CORRECT: position_pb2.POSITION_CHANGE_TYPE_CORRECTION,
}


def position_stream(account_id: str, instrument_id: str) -> str:
    """Return the stream of a position's events; neither id has a slash."""
    return f"position-{account_id}/{instrument_id}"


def timestamp(moment: datetime) -> Timestamp:
    """Return a moment on the wire."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def amount(value: Decimal) -> str:
    """Return an exact amount as text, to 18 places, half to even.

    Raises:
        ValueError: 10**20 or more; more than any contract can say.
    """
    return format_decimal(rounded(value))


def optional_amount(value: Decimal | None) -> str | None:
    """Return an amount's text, None for none."""
    return None if value is None else amount(value)


def mark_message(mark: Mark | None) -> position_pb2.Mark | None:
    """Return a mark on the wire; None leaves the field unset."""
    if mark is None:
        return None
    return position_pb2.Mark(
        price=amount(mark.price),
        source=mark.source,  # type: ignore[arg-type]  # the contract's numbers
        venue_time=None if mark.venue_time is None else timestamp(mark.venue_time),
        stale=mark.stale,
    )


def position_message(holding: Holding, mark: Mark | None) -> position_pb2.Position:
    """Return a position, valued where there is a mark."""
    position = holding.position
    return position_pb2.Position(
        account_id=holding.account_id,
        instrument_id=holding.instrument_id,
        currency=holding.currency,
        quantity=amount(position.quantity),
        average_cost=optional_amount(position.average_cost),
        cost=amount(position.cost),
        realised_pnl=amount(position.realised),
        mark=mark_message(mark),
        market_value=None if mark is None else amount(market_value(position, mark)),
        unrealised_pnl=None if mark is None else amount(unrealised(position, mark)),
        version=position.version,
        last_order_log_position=to_position(position.log_position) if position.version else None,
    )


def valuation_message(holding: Holding, mark: Mark) -> portfolio_service_pb2.Valuation:
    """Return what a position is worth."""
    return portfolio_service_pb2.Valuation(
        instrument_id=holding.instrument_id,
        version=holding.position.version,
        mark=mark_message(mark),
        market_value=amount(market_value(holding.position, mark)),
        unrealised_pnl=amount(unrealised(holding.position, mark)),
    )


def total_message(total: Total) -> portfolio_service_pb2.CurrencyTotal:
    """Return sums in one currency."""
    return portfolio_service_pb2.CurrencyTotal(
        currency=total.currency,
        cost=amount(total.cost),
        realised_pnl=amount(total.realised),
        market_value=optional_amount(total.value),
        unrealised_pnl=optional_amount(total.unrealised),
        unmarked_positions=total.unmarked,
        stale=total.stale,
    )


def lot_message(account_id: str, instrument_id: str, lot: Lot, matches: Iterable[Match]) -> position_pb2.Lot:
    """Return a lot with its closings."""
    return position_pb2.Lot(
        lot_id=str(lot.key),
        account_id=account_id,
        instrument_id=instrument_id,
        side=lot.side,  # type: ignore[arg-type]  # the contract's numbers
        open_time=timestamp(lot.open_time),
        trade_date=lot.key.trade_date,
        quantity=amount(lot.quantity),
        price=amount(lot.price),
        remaining_quantity=amount(lot.remaining),
        order_log_position=to_position(lot.log_position),
        matches=[match_message(match) for match in matches],
    )


def match_message(match: Match) -> position_pb2.LotMatch:
    """Return a closing."""
    return position_pb2.LotMatch(
        lot_id=str(match.lot),
        closing_id=str(match.closing),
        close_time=timestamp(match.close_time),
        trade_date=match.trade_date,
        quantity=amount(match.quantity),
        open_price=amount(match.open_price),
        close_price=amount(match.close_price),
        realised_pnl=amount(match.realised),
    )


def change_message(change: Change) -> position_pb2.PositionChange:
    """Return what an execution did."""
    execution, before, after = change.execution, change.before, change.after
    return position_pb2.PositionChange(
        account_id=execution.position.account_id,
        instrument_id=execution.position.instrument_id,
        version=after.version,
        type=_CHANGE_TYPES[execution.type],
        venue=execution.key.venue,
        trade_date=execution.key.trade_date,
        exec_id=execution.key.exec_id,
        amended_id="" if execution.is_fill else str(execution.root),
        order_id=execution.order_id,
        side=execution.side,  # type: ignore[arg-type]  # the contract's numbers
        last_quantity=amount(execution.quantity),
        last_price=amount(execution.price),
        transact_time=timestamp(execution.transact_time),
        quantity_before=amount(before.quantity),
        quantity=amount(after.quantity),
        cost=amount(after.cost),
        average_cost=optional_amount(after.average_cost),
        realised_pnl_delta=amount(after.realised - before.realised),
        realised_pnl=amount(after.realised),
        order_log_position=to_position(after.log_position),
    )


def changed_event(change: position_pb2.PositionChange, time: datetime) -> bytes:
    """Return a change as the event that the log keeps."""
    return events_pb2.PositionChanged(change=change, event_time=timestamp(time)).SerializeToString(deterministic=True)


def changed_position(change: position_pb2.PositionChange) -> Position:
    """Return the position that a recorded change has made, as exactly as the change says it."""
    return Position(
        change.version,
        from_position(change.order_log_position),
        Decimal(change.quantity),
        Decimal(change.cost),
        Decimal(change.realised_pnl),
    )
