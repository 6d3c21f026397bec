"""The state of an order: facts, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from kernel.errors import Reason
from kernel.values import ZERO, exact_context
from svc_oms.domain.vocabulary import TERMINAL, Action, OrderState, OrderType, Side, TimeInForce

EXACT = exact_context()
_PLACES = Decimal(1).scaleb(-18)


class ExecutionKey(NamedTuple):
    """What makes an execution once-only. The session is not part of it, so a drop copy does not count twice."""

    venue: str
    trade_date: str
    exec_id: str


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule of risk that an order broke: whose limit, the limit and the value it would have reached as decimal text (empty: none)."""

    reason: Reason
    scope: str
    limit: str
    actual: str
    text: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Why an order or a replace was refused. `text` has at most 512 characters; `breaches` is empty where risk did not refuse."""

    reason: Reason
    text: str
    breaches: tuple[Breach, ...] = ()


class Terms(NamedTuple):
    """The terms under which an order was placed. Price in quote currency per unit, quantity in units of the instrument."""

    order_id: str
    client_order_id: str
    account_id: str
    tenant: str
    principal: str
    instrument_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    limit_price: Decimal | None
    labels: Mapping[str, str]
    command_hash: bytes
    venue: str


@dataclass(frozen=True, slots=True)
class Fill:
    """A fill as it counts now: after corrections, and zero once busted."""

    quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A cancel or replace that the venue has not answered.

    `sent` once it was persisted for the session, `overdue` once its bound passed.
    """

    venue_client_order_id: str
    action: Action
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    sent: bool = False
    overdue: bool = False


_NONE: Mapping[ExecutionKey, Any] = MappingProxyType({})


class Order(NamedTuple):
    """An order, folded from its events. A tuple, because it is made anew for each of them, and a dataclass of this size takes thrice the
    time.

    `quantity` and `limit_price` are those in force. `fills` holds every execution that counts, by key; corrections point at the fill
    they changed through `corrections`. `filled_quantity` and `filled_value` (quantity times price) are their exact sums.
    `reports` are the venue's ids of reports already recorded.
    """

    terms: Terms
    state: OrderState
    version: int
    quantity: Decimal
    limit_price: Decimal | None
    create_time: datetime
    update_time: datetime
    terminal_time: datetime | None = None
    filled_quantity: Decimal = ZERO
    filled_value: Decimal = ZERO
    fills: Mapping[ExecutionKey, Fill] = _NONE
    corrections: Mapping[ExecutionKey, ExecutionKey] = _NONE
    reports: frozenset[ExecutionKey] = frozenset()
    requests: tuple[PendingRequest, ...] = ()
    routed: bool = False
    acknowledged: bool = False
    overdue: bool = False
    venue_client_order_id: str = ""
    venue_order_id: str = ""
    message_sequence: int = 0
    reject: Reject | None = None

    @property
    def order_id(self) -> str:
        """The order's id."""
        return self.terms.order_id

    @property
    def terminal(self) -> bool:
        """Whether nothing may trade any more."""
        return self.state in TERMINAL

    @property
    def reopening(self) -> bool:
        """Whether it is filled, and a replace that was sent may yet enlarge it: not at its end until the venue has answered."""
        return self.state is OrderState.FILLED and any(request.sent and request.action is Action.REPLACE for request in self.requests)

    @property
    def leaves_quantity(self) -> Decimal:
        """What may still trade: 0 once terminal, never below 0 (a venue may overfill)."""
        return leaves(self.state, self.quantity, self.filled_quantity)

    @property
    def average_price(self) -> Decimal | None:
        """The mean price of the fills to 18 places, half to even; None while nothing is filled."""
        return mean_price(self.filled_quantity, self.filled_value)

    @property
    def pending_action(self) -> Action | None:
        """The pending request that counts for the reported status: a cancel before a replace (FIX 39: 6 over E). None once terminal."""
        if self.terminal or not self.requests:
            return None
        return Action.CANCEL if any(request.action is Action.CANCEL for request in self.requests) else Action.REPLACE

    @property
    def working_state(self) -> OrderState:
        """NEW, PARTIALLY_FILLED or FILLED, whichever the quantities say."""
        return working(self.quantity, self.filled_quantity)

    @property
    def etag(self) -> str:
        """The version as an entity tag."""
        return str(self.version)

    def request(self, venue_client_order_id: str) -> PendingRequest | None:
        """Return the open request with that ClOrdID."""
        for request in self.requests:
            if request.venue_client_order_id == venue_client_order_id:
                return request
        return None


def leaves(state: OrderState, quantity: Decimal, filled: Decimal) -> Decimal:
    """Return the quantity that may still trade in a state."""
    if state in TERMINAL or filled >= quantity:
        return ZERO
    return EXACT.subtract(quantity, filled)


def working(quantity: Decimal, filled: Decimal) -> OrderState:
    """Return the state of a working order by its quantities."""
    if filled >= quantity:
        return OrderState.FILLED
    return OrderState.PARTIALLY_FILLED if filled else OrderState.NEW


def mean_price(quantity: Decimal, value: Decimal) -> Decimal | None:
    """Return value per unit to 18 places, rounded half to even; None for nothing."""
    return EXACT.quantize(EXACT.divide(value, quantity), _PLACES) if quantity else None


def total_of(fills: Mapping[ExecutionKey, Fill]) -> tuple[Decimal, Decimal]:
    """Return the exact filled quantity and value of all fills: what `filled_quantity` and `filled_value` must equal."""
    quantity, value = ZERO, ZERO
    for fill in fills.values():
        quantity = EXACT.add(quantity, fill.quantity)
        value = EXACT.add(value, EXACT.multiply(fill.quantity, fill.price))
    return quantity, value
