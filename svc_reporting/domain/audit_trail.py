"""`audit-trail/1`: one row for each event of each order, in the order of svc_oms's log."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime

from kernel.ports import LogPosition
from svc_reporting.domain.cells import Cell, decimal_text, text, time_text, value
from svc_reporting.domain.orders import OrderEvent, OrderView
from svc_reporting.domain.vocabulary import ExecutionType, OrderState, OrderType, Side, TimeInForce, name_of

COLUMNS = (
    value("log_position"),
    value("record_time"),
    value("event_time"),
    value("order_id"),
    value("version"),
    value("event_type"),
    value("account_id"),
    text("tenant"),
    text("client_order_id"),
    text("order_principal"),
    text("principal"),
    value("request_id"),
    value("instrument_id"),
    value("side"),
    value("order_type"),
    value("time_in_force"),
    text("labels"),
    value("state"),
    value("quantity"),
    value("limit_price"),
    value("filled_quantity"),
    value("leaves_quantity"),
    value("average_price"),
    value("stated_quantity"),
    value("stated_limit_price"),
    value("reason"),
    text("text"),
    text("breaches"),
    text("venue"),
    text("venue_order_id"),
    text("venue_client_order_id"),
    value("venue_reason"),
    value("message_sequence"),
    value("action"),
    value("unsolicited"),
    text("exec_id"),
    value("exec_type"),
    text("exec_ref_id"),
    value("last_quantity"),
    value("last_price"),
    value("late"),
    value("trade_date"),
    value("transact_time"),
    text("report"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What a row is made of. `order` stands after the event."""

    position: LogPosition
    record_time: datetime
    version: int
    event: OrderEvent
    order: OrderView


def cells(entry: AuditEntry) -> list[Cell]:
    """Return the row of an event, in the order of `COLUMNS`.

    Terms and state are the order's after it; `stated_*` is what it states itself.
    """
    event, order = entry.event, entry.order
    return [*_who(entry, event, order), *_where(order), *_what(event, order), *_executed(event)]


def _who(entry: AuditEntry, event: OrderEvent, order: OrderView) -> list[Cell]:
    terms = order.terms
    labels = json.dumps(dict(terms.labels), ensure_ascii=False, sort_keys=True, separators=(",", ":")) if terms.labels else ""
    return [
        str(entry.position),
        time_text(entry.record_time),
        time_text(event.event_time),
        terms.order_id,
        entry.version,
        event.type,
        terms.account_id,
        terms.tenant,
        terms.client_order_id,
        terms.principal,
        event.principal,
        event.request_id,
        terms.instrument_id,
        name_of(Side, terms.side),
        name_of(OrderType, terms.order_type),
        name_of(TimeInForce, terms.time_in_force),
        labels,
    ]


def _where(order: OrderView) -> list[Cell]:
    return [
        name_of(OrderState, order.state),
        decimal_text(order.quantity),
        decimal_text(order.limit_price),
        decimal_text(order.filled_quantity),
        decimal_text(order.leaves_quantity),
        decimal_text(order.average_price),
    ]


def _what(event: OrderEvent, order: OrderView) -> list[Cell]:
    return [
        decimal_text(event.quantity),
        decimal_text(event.limit_price),
        event.reason,
        event.text,
        event.breaches,
        event.venue or order.terms.venue,
        order.venue_order_id,
        event.venue_client_order_id,
        event.venue_reason,
        event.message_sequence,
        event.action,
        event.unsolicited,
    ]


def _executed(event: OrderEvent) -> list[Cell]:
    execution = event.execution
    report = base64.b64encode(event.report).decode()
    if execution is None:
        return [event.exec_id, None, None, None, None, None, event.trade_date, time_text(event.transact_time), report]
    return [
        execution.exec_id,
        name_of(ExecutionType, execution.type),
        execution.exec_ref_id,
        decimal_text(execution.quantity),
        decimal_text(execution.price),
        execution.late,
        execution.trade_date.isoformat(),
        time_text(execution.transact_time),
        report,
    ]
