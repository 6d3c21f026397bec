"""The order service's record, folded from its event table by rules of the auditor's own, and its read models beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from trademesh.oms.v1 import events_pb2, execution_pb2, order_pb2

_S = order_pb2.OrderState
TERMINAL = frozenset(
    {_S.ORDER_STATE_FILLED, _S.ORDER_STATE_CANCELED, _S.ORDER_STATE_REJECTED, _S.ORDER_STATE_EXPIRED, _S.ORDER_STATE_ABANDONED}
)
_ENDED = TERMINAL - {_S.ORDER_STATE_FILLED}
_BEGINNINGS = {
    "OrderAccepted": _S.ORDER_STATE_PENDING_NEW,
    "OrderRejected": _S.ORDER_STATE_REJECTED,
    "OrderAbandoned": _S.ORDER_STATE_ABANDONED,
}

_EVENTS = """
SELECT stream_id, version, type, payload, tx::text::bigint AS tx, position FROM svc_oms.event
WHERE stream_id LIKE 'order-%' ORDER BY stream_id, version
"""


class Told(NamedTuple):
    """An execution as its event tells it: a fill, or what was said of one later, `reference`. `place` is in svc_oms's log."""

    place: tuple[int, int]
    version: int
    type: execution_pb2.ExecutionType.ValueType
    venue: str
    trade_date: str
    exec_id: str
    reference: str
    quantity: Decimal
    price: Decimal

    @property
    def key(self) -> tuple[str, str]:
        """Its own trade date and id."""
        return self.trade_date, self.exec_id

    @property
    def root(self) -> tuple[str, str]:
        """The fill that it is, or is about: this venue always names the first id, and reports on the trade's own date."""
        return self.trade_date, self.reference or self.exec_id


@dataclass(slots=True)
class OrderHistory:
    """One order, folded from its events. `told` is every execution, `fills` what counts of them in the end, by the fill's own key."""

    order_id: str
    types: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    terms: events_pb2.OrderTerms | None = None
    state: order_pb2.OrderState.ValueType = order_pb2.ORDER_STATE_UNSPECIFIED
    quantity: Decimal = Decimal(0)
    limit_price: Decimal | None = None
    told: list[Told] = field(default_factory=list)
    fills: dict[tuple[str, str], tuple[Decimal, Decimal]] = field(default_factory=dict)
    fills_repeated: list[str] = field(default_factory=list)
    cancel_keys: Counter[str] = field(default_factory=Counter)
    replace_keys: Counter[str] = field(default_factory=Counter)
    replaces_rejected: Counter[str] = field(default_factory=Counter)
    routed: Counter[str] = field(default_factory=Counter)
    anomalies: list[str] = field(default_factory=list)
    was_unknown: bool = False

    @property
    def begins(self) -> bool:
        """Whether its first event is one that an order may begin with."""
        return self.types[0] in _BEGINNINGS

    @property
    def beginnings(self) -> int:
        """How many of its events are of that kind."""
        return sum(name in _BEGINNINGS for name in self.types)

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
            _execute(order, _told(row, event.execution))
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


def _told(row: asyncpg.Record, execution: execution_pb2.Execution) -> Told:
    return Told(
        (row["tx"], row["position"]),
        row["version"],
        execution.type,
        execution.venue,
        execution.trade_date,
        execution.exec_id,
        execution.exec_ref_id,
        Decimal(execution.last_quantity),
        Decimal(execution.last_price),
    )


def _execute(order: OrderHistory, told: Told) -> None:
    if any(told.key == earlier.key for earlier in order.told):
        order.fills_repeated.append(told.exec_id)
    order.told.append(told)
    if told.type == execution_pb2.EXECUTION_TYPE_TRADE_CANCEL:
        del order.fills[told.root]
    else:
        assert told.type == execution_pb2.EXECUTION_TYPE_TRADE or told.root in order.fills, f"a correction of nothing: {told}"
        order.fills[told.root] = told.quantity, told.price
    if order.state in _ENDED:
        # Late, or of an order that is over: the quantities count, the state stays.
        return
    if order.filled_quantity >= order.quantity:
        order.state = _S.ORDER_STATE_FILLED
    else:
        order.state = _S.ORDER_STATE_PARTIALLY_FILLED if order.fills else _S.ORDER_STATE_NEW
