"""`blotter/1`: one row for each fill, bust and correction, in the order of svc_oms's log."""

from __future__ import annotations

import decimal
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from kernel.ports import LogPosition
from svc_reporting.domain.cells import Cell, decimal_text, text, time_text, value
from svc_reporting.domain.fills import Fill, TradeKey
from svc_reporting.domain.orders import Execution, OrderView
from svc_reporting.domain.vocabulary import ExecutionType, Side, name_of

COLUMNS = (
    value("trade_date"),
    text("exec_id"),
    value("exec_type"),
    text("exec_ref_id"),
    value("root_trade_date"),
    text("root_exec_id"),
    value("order_id"),
    text("client_order_id"),
    value("account_id"),
    value("instrument_id"),
    value("side"),
    value("quantity"),
    value("price"),
    value("gross_amount"),
    value("net_quantity"),
    value("net_amount"),
    value("currency"),
    text("venue"),
    text("venue_order_id"),
    value("transact_time"),
    value("late"),
    text("principal"),
    value("settlement_id"),
    value("settlement_date"),
    value("settlement_state"),
    value("order_version"),
    value("log_position"),
    value("record_time"),
)

# Two factors of at most 38 digits have at most 76, and their difference one more: nothing is rounded.
_EXACT = decimal.Context(prec=100, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])
_EXEC_TYPES = {ExecutionType.TRADE: "TRADE", ExecutionType.TRADE_CANCEL: "BUST", ExecutionType.TRADE_CORRECT: "CORRECTION"}


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where the settlement of an execution stands."""

    settlement_id: str
    settlement_date: date | None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlotterEntry:
    """What a row is made of.

    Attributes:
        trade: the execution that the trade began with, which a bust or correction amends.
        before: what counted in the execution's place before it.
        order: the order after it.
    """

    position: LogPosition
    record_time: datetime
    order_version: int
    execution: Execution
    trade: TradeKey
    before: Fill
    order: OrderView
    currency: str
    settlement: Settlement | None


def cells(entry: BlotterEntry) -> list[Cell]:
    """Return the row of an execution, in the order of `COLUMNS`.

    `net_quantity` and `net_amount` are what the row adds to position and cost, sells below zero: they sum to both whatever was busted or
    corrected in between.
    """
    execution, order, terms = entry.execution, entry.order, entry.order.terms
    amount = _EXACT.multiply(execution.quantity, execution.price)
    after = Fill(Decimal(0), Decimal(0)) if execution.type is ExecutionType.TRADE_CANCEL else Fill(execution.quantity, execution.price)
    sign = Decimal(-1 if terms.side == Side.SELL else 1)
    net_quantity = _EXACT.multiply(sign, _EXACT.subtract(after.quantity, entry.before.quantity))
    net_amount = _EXACT.multiply(sign, _EXACT.subtract(_EXACT.multiply(*after), _EXACT.multiply(*entry.before)))
    settlement = entry.settlement
    return [
        execution.trade_date.isoformat(),
        execution.exec_id,
        _EXEC_TYPES.get(execution.type, ""),
        execution.exec_ref_id,
        entry.trade.trade_date.isoformat(),
        entry.trade.exec_id,
        terms.order_id,
        terms.client_order_id,
        terms.account_id,
        terms.instrument_id,
        name_of(Side, terms.side),
        decimal_text(execution.quantity),
        decimal_text(execution.price),
        decimal_text(amount),
        decimal_text(net_quantity),
        decimal_text(net_amount),
        entry.currency,
        execution.venue,
        order.venue_order_id,
        time_text(execution.transact_time),
        execution.late,
        terms.principal,
        settlement.settlement_id if settlement is not None else "",
        settlement.settlement_date.isoformat() if settlement is not None and settlement.settlement_date is not None else "",
        settlement.state if settlement is not None else "",
        entry.order_version,
        str(entry.position),
        time_text(entry.record_time),
    ]
