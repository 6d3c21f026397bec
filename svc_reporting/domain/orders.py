"""An order as its events tell it: the facts of one event, and where the order stands after it.

The transitions are those of `docs/reference/order-lifecycle.md`, for events that do not state the state themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal

from kernel.values import ZERO
from svc_reporting.domain.vocabulary import DEAD, HALTED, TERMINAL, ExecutionType, OrderState

NEW_ORDER = "NEW"
"""The action of an `OrderRouted` that sends the order itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTerms:
    """What an order is for ever. Numbers of enums are the contract's."""

    order_id: str
    client_order_id: str = ""
    account_id: str
    tenant: str = ""
    principal: str = ""
    instrument_id: str = ""
    side: int = 0
    order_type: int = 0
    time_in_force: int = 0
    venue: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A fill, bust or correction with the order's quantities after it. In a bust, quantity and price are those of the busted fill."""

    exec_id: str
    type: ExecutionType
    exec_ref_id: str
    quantity: Decimal
    price: Decimal
    filled_quantity: Decimal
    average_price: Decimal | None
    venue: str
    trade_date: date
    transact_time: datetime
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEvent:
    """The facts of one event; what it does not state is unset.

    `quantity` and `limit_price` are the terms that it states: those placed, asked for or put in force.
    """

    type: str
    event_time: datetime
    terms: OrderTerms | None = None
    principal: str = ""
    request_id: str = ""
    state: OrderState | None = None
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    reason: str = ""
    text: str = ""
    breaches: str = ""
    venue: str = ""
    venue_order_id: str = ""
    venue_client_order_id: str = ""
    venue_reason: int | None = None
    message_sequence: int | None = None
    action: str = ""
    exec_id: str = ""
    trade_date: str = ""
    transact_time: datetime | None = None
    unsolicited: bool | None = None
    report: bytes = b""
    execution: Execution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderView:
    """An order after one of its events: its terms, those in force, and what the venue calls it."""

    terms: OrderTerms
    state: OrderState
    quantity: Decimal
    limit_price: Decimal | None
    filled_quantity: Decimal = ZERO
    average_price: Decimal | None = None
    venue_order_id: str = ""
    routed: bool = False

    @property
    def leaves_quantity(self) -> Decimal:
        """Return what may still trade: nothing once the order is terminal."""
        return ZERO if self.state in TERMINAL else max(self.quantity - self.filled_quantity, ZERO)


def evolve(view: OrderView | None, event: OrderEvent) -> OrderView:
    """Return the order after the event. Total over every history that svc_oms writes; a type that these rules do not know changes nothing.

    Raises:
        ValueError: the history does not begin with an order's first event.
    """
    if view is None:
        if event.terms is None:
            raise ValueError(f"{event.type} cannot begin an order")
        return OrderView(
            terms=event.terms,
            state=event.state or OrderState.UNSPECIFIED,
            quantity=event.quantity or ZERO,
            limit_price=event.limit_price,
        )
    view = replace(view, venue_order_id=event.venue_order_id or view.venue_order_id)
    change = _CHANGES.get(event.type)
    return view if change is None else change(view, event)


def _working(quantity: Decimal, filled: Decimal) -> OrderState:
    if filled >= quantity:
        return OrderState.FILLED
    return OrderState.PARTIALLY_FILLED if filled else OrderState.NEW


def _routed(view: OrderView, event: OrderEvent) -> OrderView:
    return replace(view, routed=True) if event.action == NEW_ORDER else view


def _acknowledged(view: OrderView, _: OrderEvent) -> OrderView:
    if view.state not in (OrderState.PENDING_NEW, OrderState.UNKNOWN):
        return view
    return replace(view, state=_working(view.quantity, view.filled_quantity))


def _refused(view: OrderView, _: OrderEvent) -> OrderView:
    refusable = (OrderState.PENDING_NEW, OrderState.NEW, OrderState.UNKNOWN)
    return replace(view, state=OrderState.REJECTED) if view.state in refusable else view


def _executed(view: OrderView, event: OrderEvent) -> OrderView:
    execution = event.execution
    assert execution is not None, "an execution event has an execution"
    return replace(
        view,
        state=view.state if event.state is None else event.state,
        filled_quantity=execution.filled_quantity,
        average_price=execution.average_price,
    )


def _canceled(view: OrderView, _: OrderEvent) -> OrderView:
    return view if view.state in TERMINAL else replace(view, state=OrderState.CANCELED)


def _replaced(view: OrderView, event: OrderEvent) -> OrderView:
    quantity = view.quantity if event.quantity is None else event.quantity
    state = view.state
    # An order that was never sent keeps its state, and so do dead ones, whose terms a venue may still restate.
    if view.routed and state not in DEAD:
        working = _working(quantity, view.filled_quantity)
        state = state if state in HALTED and working is not OrderState.FILLED else working
    return replace(view, quantity=quantity, limit_price=event.limit_price, state=state)


def _state_changed(view: OrderView, event: OrderEvent) -> OrderView:
    return view if event.state is None else replace(view, state=event.state)


def _marked_unknown(view: OrderView, _: OrderEvent) -> OrderView:
    return view if view.state in TERMINAL else replace(view, state=OrderState.UNKNOWN)


_CHANGES: Mapping[str, Callable[[OrderView, OrderEvent], OrderView]] = {
    "oms.v1.OrderRouted": _routed,
    "oms.v1.OrderAcknowledged": _acknowledged,
    "oms.v1.OrderRefused": _refused,
    "oms.v1.ExecutionRecorded": _executed,
    "oms.v1.OrderCanceled": _canceled,
    "oms.v1.OrderReplaced": _replaced,
    "oms.v1.OrderStateChanged": _state_changed,
    "oms.v1.OrderMarkedUnknown": _marked_unknown,
}
