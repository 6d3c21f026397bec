"""The auditor's own reading of a history. It shares nothing with the services but the contracts: it parses payloads and folds them anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from google.protobuf.message import Message

from tests.simulation.chain.history import History, LogEvent
from trademesh.oms.v1 import events_pb2 as oms_events
from trademesh.risk.v1 import events_pb2 as risk_events

ZERO = Decimal(0)

PENDING_NEW, NEW, PARTIALLY_FILLED, FILLED, CANCELED, REJECTED, EXPIRED, UNKNOWN, ABANDONED = 1, 2, 3, 4, 6, 8, 10, 11, 12
TERMINAL = frozenset({FILLED, CANCELED, REJECTED, EXPIRED, ABANDONED})
TRADE, TRADE_CANCEL, TRADE_CORRECT = 1, 2, 3
BUY, SELL = 1, 2


class Violation(NamedTuple):
    """A rule that a run broke, and how."""

    rule: str
    text: str


class Entry(NamedTuple):
    """An event with its payload parsed."""

    event: LogEvent
    kind: str
    body: Any


def parsed(events: Iterable[LogEvent], module: Any) -> Iterator[Entry]:
    """Yield events with their payloads, by the type's own name."""
    for event in events:
        kind = event.type.rpartition(".")[2]
        message: Message = getattr(module, kind).FromString(event.payload)
        yield Entry(event, kind, message)


@dataclass(slots=True)
class OrderView:
    """An order as its events leave it."""

    order_id: str
    account_id: str = ""
    instrument_id: str = ""
    principal: str = ""
    side: int = 0
    state: int = 0
    quantity: Decimal = ZERO
    limit_price: str = ""
    fills: dict[tuple[str, str, str], tuple[Decimal, Decimal]] = field(default_factory=dict)
    corrected: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    pending: dict[str, Any] = field(default_factory=dict)
    replaced: bool = False
    routed: bool = False

    @property
    def filled(self) -> Decimal:
        """What was traded, busts and corrections included."""
        return sum((quantity for quantity, _ in self.fills.values()), ZERO)

    @property
    def leaves(self) -> Decimal:
        """What may still trade."""
        return ZERO if self.state in TERMINAL else max(self.quantity - self.filled, ZERO)

    def _working(self) -> int:
        return FILLED if self.filled >= self.quantity else PARTIALLY_FILLED if self.filled else NEW

    def apply(self, entry: Entry) -> None:
        """Fold one event."""
        step = _STEPS.get(entry.kind)
        if step is not None:
            step(self, entry.body)


def _begin(state: int) -> Callable[[OrderView, Any], None]:
    def step(order: OrderView, body: Any) -> None:
        terms = body.terms
        order.account_id, order.instrument_id, order.principal = terms.account_id, terms.instrument_id, terms.principal
        order.side, order.quantity, order.limit_price = terms.side, Decimal(terms.quantity), terms.limit_price
        order.state = state

    return step


def _abandoned(order: OrderView, body: Any) -> None:
    order.account_id, order.state = body.account_id, ABANDONED


def _routed(order: OrderView, body: Any) -> None:
    order.routed = True


def _acknowledged(order: OrderView, body: Any) -> None:
    if order.state in (PENDING_NEW, UNKNOWN):
        order.state = order._working()


def _executed(order: OrderView, body: Any) -> None:
    execution = body.execution
    key = (execution.venue, execution.trade_date, execution.exec_id)
    if execution.type == TRADE:
        order.fills[key] = Decimal(execution.last_quantity), Decimal(execution.last_price)
    else:
        root = order.corrected.get(execution.exec_ref_id) or next(
            (known for known in order.fills if known[2] == execution.exec_ref_id), key
        )
        order.corrected[execution.exec_id] = root
        gone = execution.type == TRADE_CANCEL
        order.fills[root] = ZERO if gone else Decimal(execution.last_quantity), Decimal(execution.last_price)
    order.state = body.state


def _ended(state: int) -> Callable[[OrderView, Any], None]:
    def step(order: OrderView, body: Any) -> None:
        order.state = state
        order.pending = {name: request for name, request in order.pending.items() if isinstance(request, oms_events.ReplaceRequested)}

    return step


def _requested(order: OrderView, body: Any) -> None:
    order.pending[body.venue_client_order_id] = body


def _request_refused(order: OrderView, body: Any) -> None:
    order.pending.pop(body.venue_client_order_id, None)


def _replaced(order: OrderView, body: Any) -> None:
    order.quantity, order.limit_price, order.replaced = Decimal(body.quantity), body.limit_price, True
    if not body.restated:
        order.pending = {name: request for name, request in order.pending.items() if not isinstance(request, oms_events.ReplaceRequested)}
    if order.routed and order.state in (PENDING_NEW, NEW, PARTIALLY_FILLED, FILLED, UNKNOWN):
        order.state = order._working()


def _state_changed(order: OrderView, body: Any) -> None:
    order.state = body.state


def _unknown(order: OrderView, body: Any) -> None:
    if order.state not in TERMINAL:
        order.state = UNKNOWN


_STEPS: dict[str, Callable[[OrderView, Any], None]] = {
    "OrderAccepted": _begin(PENDING_NEW),
    "OrderRejected": _begin(REJECTED),
    "OrderAbandoned": _abandoned,
    "OrderRouted": _routed,
    "OrderAcknowledged": _acknowledged,
    "OrderRefused": _ended(REJECTED),
    "ExecutionRecorded": _executed,
    "CancelRequested": _requested,
    "CancelRefused": _request_refused,
    "OrderCanceled": _ended(CANCELED),
    "ReplaceRequested": _requested,
    "ReplaceRefused": _request_refused,
    "OrderReplaced": _replaced,
    "OrderStateChanged": _state_changed,
    "OrderMarkedUnknown": _unknown,
}


@dataclass(slots=True)
class Hold:
    """What risk holds for one order, by its exposure events."""

    account_id: str
    instrument_id: str
    side: int
    quantity: Decimal = ZERO
    notional: Decimal = ZERO
    position: Decimal = ZERO
    unit_price: Decimal = ZERO
    checks: int = 0


class Audited:
    """A history, parsed once, and the folds that several rules need."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.orders = list(parsed(history.orders, oms_events))
        self.risk = list(parsed(history.risk, risk_events))

    def order_entries(self, upto: int | None = None) -> Iterator[tuple[str, Entry]]:
        """Yield the events of orders with the order's id, in order of commits, among the first `upto` of the log."""
        for entry in self.orders[:upto]:
            if entry.event.stream_id.startswith("order-"):
                yield entry.event.stream_id.removeprefix("order-"), entry

    def folded(self, upto: int | None = None) -> dict[str, OrderView]:
        """Return all orders as the first `upto` events leave them."""
        found: dict[str, OrderView] = {}
        for order_id, entry in self.order_entries(upto):
            found.setdefault(order_id, OrderView(order_id)).apply(entry)
        return found

    def deltas(self, upto: int | None = None) -> Iterator[Entry]:
        """Yield the events that carry an exposure's change."""
        return (entry for entry in self.risk[:upto] if entry.event.stream_id.startswith("exposure-") and entry.kind != "LimitUpdated")

    def holds(self, upto: int | None = None) -> dict[str, Hold]:
        """Return what risk holds for each order."""
        found: dict[str, Hold] = {}
        for entry in self.deltas(upto):
            delta = entry.body.delta
            hold = found.setdefault(delta.order_id, Hold(delta.account_id, delta.instrument_id, delta.side))
            hold.quantity += Decimal(delta.delta_quantity)
            hold.notional += Decimal(delta.delta_notional)
            if entry.kind == "ExposureFilled":
                hold.position += Decimal(entry.body.position_delta)
            elif entry.kind == "ExposureReserved":
                hold.checks += 1
                if hold.checks == 1:
                    hold.unit_price = Decimal(delta.delta_notional) / Decimal(delta.delta_quantity)
        return found
