"""The order service's record, folded from its event table by rules of the auditor's own, and its read models beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import asyncpg

from trademesh.oms.v1 import events_pb2, execution_pb2, order_pb2

_S = order_pb2.OrderState
TERMINAL = frozenset(
    {_S.ORDER_STATE_FILLED, _S.ORDER_STATE_CANCELED, _S.ORDER_STATE_REJECTED, _S.ORDER_STATE_EXPIRED, _S.ORDER_STATE_ABANDONED}
)
_BEGINNINGS = {
    "OrderAccepted": _S.ORDER_STATE_PENDING_NEW,
    "OrderRejected": _S.ORDER_STATE_REJECTED,
    "OrderAbandoned": _S.ORDER_STATE_ABANDONED,
}

_EVENTS = """
SELECT stream_id, version, type, payload, tx::text::bigint AS tx, position FROM svc_oms.event
WHERE stream_id LIKE 'order-%' ORDER BY stream_id, version
"""


@dataclass(slots=True)
class OrderHistory:
    """One order, folded from its events."""

    order_id: str
    types: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    terms: events_pb2.OrderTerms | None = None
    state: order_pb2.OrderState.ValueType = order_pb2.ORDER_STATE_UNSPECIFIED
    quantity: Decimal = Decimal(0)
    limit_price: Decimal | None = None
    fills: dict[tuple[str, str], tuple[Decimal, Decimal]] = field(default_factory=dict)
    fills_repeated: list[str] = field(default_factory=list)
    cancel_keys: Counter[str] = field(default_factory=Counter)
    replace_keys: Counter[str] = field(default_factory=Counter)
    replaces_rejected: Counter[str] = field(default_factory=Counter)
    routed: Counter[str] = field(default_factory=Counter)
    anomalies: list[str] = field(default_factory=list)
    was_unknown: bool = False

    @property
    def filled_quantity(self) -> Decimal:
        """The sum of its fills."""
        return sum((quantity for quantity, _ in self.fills.values()), Decimal(0))

    @property
    def is_open(self) -> bool:
        """Whether it may still trade."""
        return self.state not in TERMINAL


@dataclass(slots=True)
class OrderRecord:
    """Everything that svc_oms has on disk: histories by order id, read models beside them."""

    histories: dict[str, OrderHistory]
    snapshots: dict[str, order_pb2.Order]
    executions: list[execution_pb2.Execution]
    messages: list[dict[str, Any]]
    session: dict[str, Any]


async def read_order_record(connection: asyncpg.Connection) -> OrderRecord:
    """Read all of it at one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        histories: dict[str, OrderHistory] = {}
        for row in await connection.fetch(_EVENTS):
            order_id = row["stream_id"].removeprefix("order-")
            _fold(histories.setdefault(order_id, OrderHistory(order_id)), row)
        orders = await connection.fetch("SELECT order_id, snapshot FROM svc_oms.orders")
        executions = await connection.fetch("SELECT payload FROM svc_oms.execution")
        messages = await connection.fetch("SELECT sequence, msg_type, order_id FROM svc_oms.fix_message ORDER BY sequence")
        session = await connection.fetchrow("SELECT next_in, next_out FROM svc_oms.fix_session")
    return OrderRecord(
        histories,
        {row["order_id"]: order_pb2.Order.FromString(row["snapshot"]) for row in orders},
        [execution_pb2.Execution.FromString(row["payload"]) for row in executions],
        [dict(row) for row in messages],
        dict(session) if session is not None else {},
    )


def _fold(order: OrderHistory, row: asyncpg.Record) -> None:
    name = row["type"].removeprefix("oms.v1.")
    event: Any = getattr(events_pb2, name).FromString(row["payload"])
    order.types.append(name)
    order.versions.append(row["version"])
    order.places.append((row["tx"], row["position"]))
    if name in _BEGINNINGS:
        order.state = _BEGINNINGS[name]
        if name != "OrderAbandoned":
            order.terms = event.terms
            order.quantity = Decimal(event.terms.quantity)
            order.limit_price = Decimal(event.terms.limit_price) if event.terms.HasField("limit_price") else None
        return
    match name:
        case "OrderRouted":
            order.routed[event.venue_client_order_id] += 1
        case "OrderAcknowledged":
            # A fill may come before its acknowledgement.
            if order.state in (_S.ORDER_STATE_PENDING_NEW, _S.ORDER_STATE_UNKNOWN):
                order.state = _S.ORDER_STATE_PARTIALLY_FILLED if order.fills else _S.ORDER_STATE_NEW
        case "OrderRefused":
            order.state = _S.ORDER_STATE_REJECTED
        case "ExecutionRecorded":
            _fill(order, event)
        case "OrderCanceled":
            order.state = _S.ORDER_STATE_CANCELED
        case "CancelRequested":
            order.cancel_keys[event.request_id] += 1
        case "ReplaceRequested":
            order.replace_keys[event.request_id] += 1
        case "ReplaceRejected":
            order.replaces_rejected[event.request_id] += 1
        case "OrderReplaced":
            order.quantity = Decimal(event.quantity)
            order.limit_price = Decimal(event.limit_price) if event.HasField("limit_price") else order.limit_price
            if order.filled_quantity >= order.quantity:
                order.state = _S.ORDER_STATE_FILLED
        case "OrderStateChanged":
            order.state = event.state
        case "OrderMarkedUnknown":
            order.was_unknown = True
            if order.state == _S.ORDER_STATE_PENDING_NEW:
                order.state = _S.ORDER_STATE_UNKNOWN
        case "AnomalyRecorded":
            order.anomalies.append(event.text)
        case _:
            assert name in ("CancelRefused", "ReplaceRefused"), f"an event that the auditor does not know: {name}"


def _fill(order: OrderHistory, event: events_pb2.ExecutionRecorded) -> None:
    execution = event.execution
    assert execution.type == execution_pb2.EXECUTION_TYPE_TRADE, "these tests bust and correct nothing"
    key = (execution.trade_date, execution.exec_id)
    if key in order.fills:
        order.fills_repeated.append(execution.exec_id)
    order.fills[key] = Decimal(execution.last_quantity), Decimal(execution.last_price)
    if order.filled_quantity >= order.quantity:
        order.state = _S.ORDER_STATE_FILLED
    elif order.is_open:
        order.state = _S.ORDER_STATE_PARTIALLY_FILLED
