"""What one order holds reserved, from the check to its end, moved by the facts that svc_oms records.

| fact | effect |
| --- | --- |
| `OrderAccepted` | confirmed: an order stands behind the reservation |
| `OrderRejected`, `OrderAbandoned`, `OrderRefused`, `OrderCanceled` | released |
| `ExecutionRecorded` | the filled part moves to the position; a terminal state releases the rest, a bust that revives holds it again |
| `ReplaceRequested` | the pending terms are confirmed; the larger of old and new stays reserved |
| `ReplaceRefused`, `ReplaceRejected` | the pending terms are dropped, unless a later approval waits to be confirmed |
| `OrderReplaced` | the new terms are in force; a later approval that waits to be confirmed stays covered |
| `OrderStateChanged` | a terminal state releases, a live one holds (again) |
| all others (routed, acknowledged, cancel requested or refused, UNKNOWN, anomalies) | nothing: what may trade stays reserved |
"""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple

from kernel.values import ZERO
from svc_risk.domain.exposure import NOTHING, Held, bounded_product
from svc_risk.domain.vocabulary import TERMINAL, OrderState, Side


class ReservationStatus(IntEnum):
    """Where a reservation stands."""

    REFUSED = 0  # nothing was reserved; the row remembers the answer
    UNCONFIRMED = 1  # reserved, and no order is known to stand behind it
    CONFIRMED = 2
    CLOSED = 3  # the order is terminal; late fills still count


class PendingTerms(NamedTuple):
    """Terms of approved replaces that nobody has answered: the largest of them, under the last one that is not confirmed yet.

    `confirmed` once svc_oms has recorded the request. One that is not may still be recorded, or was refused by svc_oms, which says so to
    nobody: it stays until it is recorded or settled as an orphan.
    """

    request_id: str
    quantity: Decimal
    price: Decimal
    confirmed: bool


class Reservation(NamedTuple):
    """One order's reservation. `price` is what open quantity is reckoned with per unit, `order_version` the last event folded in."""

    order_id: str
    account_id: str
    instrument_id: str
    side: Side
    status: ReservationStatus
    quantity: Decimal
    price: Decimal
    filled: Decimal = ZERO
    pending: PendingTerms | None = None
    order_version: int = 0

    @property
    def live(self) -> bool:
        """Say whether it may hold anything."""
        return self.status in (ReservationStatus.UNCONFIRMED, ReservationStatus.CONFIRMED)

    @property
    def held(self) -> Held:
        """Return what is reserved: what may still trade under the terms in force, or under the pending ones where those are larger."""
        if not self.live:
            return NOTHING
        held = _open(self.quantity, self.filled, self.price)
        if self.pending is None:
            return held
        pending = _open(self.pending.quantity, self.filled, self.pending.price)
        return Held(max(held.quantity, pending.quantity), max(held.notional, pending.notional))

    def with_pending(self, request_id: str, quantity: Decimal, price: Decimal, *, confirmed: bool = False) -> Reservation:
        """Return the reservation with further pending terms. Where an earlier replace is still unanswered, both stay covered."""
        pending = self.pending
        if pending is not None and pending.request_id != request_id:
            quantity, price = max(quantity, pending.quantity), max(price, pending.price)
        return self._replace(pending=PendingTerms(request_id, quantity, price, confirmed))


def _open(quantity: Decimal, filled: Decimal, price: Decimal) -> Held:
    leaves = quantity - filled
    return Held(leaves, bounded_product(leaves, price)) if leaves > 0 else NOTHING


class OrderTerms(NamedTuple):
    """What an order was accepted with; a fact, whether or not risk knows a reservation for it."""

    order_id: str
    account_id: str
    instrument_id: str
    side: Side
    quantity: Decimal
    limit_price: Decimal | None


class Accepted(NamedTuple):
    """svc_oms recorded the order."""

    version: int
    terms: OrderTerms


class Ended(NamedTuple):
    """The order will not trade any more."""

    version: int


class Executed(NamedTuple):
    """A fill, bust or correction, with the order's filled quantity and state after it."""

    version: int
    exec_id: str
    price: Decimal
    filled: Decimal
    state: OrderState


class ReplaceAsked(NamedTuple):
    """svc_oms recorded a replace that risk had approved."""

    version: int
    request_id: str
    quantity: Decimal
    limit_price: Decimal | None


class ReplaceDropped(NamedTuple):
    """A replace came to nothing: refused by the venue, not sent, or rejected. `request_id` None means whichever is pending."""

    version: int
    request_id: str | None


class Replaced(NamedTuple):
    """New terms are in force; `restated` where nobody here had asked."""

    version: int
    quantity: Decimal
    limit_price: Decimal | None
    restated: bool


class StateChanged(NamedTuple):
    """The venue moved the order without a trade."""

    version: int
    state: OrderState


OrderFact = Accepted | Ended | Executed | ReplaceAsked | ReplaceDropped | Replaced | StateChanged


def begun(fact: Accepted, mark: Decimal) -> Reservation:
    """Return the reservation of an accepted order that risk holds none for: recorded as the fact that it is."""
    terms = fact.terms
    price = mark if terms.limit_price is None else terms.limit_price
    return Reservation(
        terms.order_id, terms.account_id, terms.instrument_id, terms.side, ReservationStatus.CONFIRMED, terms.quantity, price,
        order_version=fact.version,
    )  # fmt: skip


def evolve(reservation: Reservation, fact: OrderFact, mark: Decimal = ZERO) -> Reservation:
    """Return the reservation after a fact. A repetition (a version that counted already) changes nothing.

    Facts come in order of their versions; versions of events that are no facts here are missing between them. `mark` is the last price
    that risk saw, zero for none.
    """
    if fact.version <= reservation.order_version:
        return reservation
    return _moved(reservation, fact, mark)._replace(order_version=fact.version)


def _moved(reservation: Reservation, fact: OrderFact, mark: Decimal) -> Reservation:
    match fact:
        case Accepted():
            if reservation.status is ReservationStatus.UNCONFIRMED:
                return reservation._replace(status=ReservationStatus.CONFIRMED)
            # Given up, and accepted all the same: svc_oms decides what exists.
            return reservation._replace(status=ReservationStatus.CONFIRMED, quantity=fact.terms.quantity)
        case Ended():
            return _closed(reservation)
        case Executed():
            return _in_state(reservation._replace(filled=fact.filled), fact.state)
        case ReplaceAsked():
            return _asked(reservation, fact)
        case ReplaceDropped():
            dropped = _answered(reservation.pending, fact.request_id)
            return settled(reservation._replace(pending=None)) if dropped and reservation.live else reservation
        case Replaced():
            return _replaced(reservation, fact, mark)
        case StateChanged():
            return _in_state(reservation, fact.state)


def _asked(reservation: Reservation, fact: ReplaceAsked) -> Reservation:
    pending = reservation.pending
    if pending is not None and pending.request_id == fact.request_id:
        # What was approved is what was asked for, reckoned with the price of the approval.
        return reservation._replace(pending=pending._replace(confirmed=True))
    price = reservation.price if fact.limit_price is None else fact.limit_price
    covered = reservation.with_pending(fact.request_id, fact.quantity, price, confirmed=True)
    if pending is None or pending.confirmed or covered.pending is None:
        return covered
    return covered._replace(pending=covered.pending._replace(request_id=pending.request_id, confirmed=False))


def _answered(pending: PendingTerms | None, request_id: str | None) -> bool:
    """Whether an answer to this request, None for the one that svc_oms has recorded, leaves nothing pending."""
    return pending is not None and (pending.confirmed if request_id is None else pending.request_id == request_id)


def _replaced(reservation: Reservation, fact: Replaced, mark: Decimal) -> Reservation:
    price = reservation.price if fact.limit_price is None else fact.limit_price
    if fact.limit_price is not None and reservation.side is Side.SELL:
        # As in the decision: a seller's limit is the least that is received, so below the market it counts at the market.
        price = max(price, mark)
    # A filled order is reopened by a larger quantity; a canceled or expired one keeps its end whatever is restated.
    revivable = reservation.live or reservation.filled >= reservation.quantity
    pending = None if not fact.restated and _answered(reservation.pending, None) else reservation.pending
    replaced = reservation._replace(quantity=fact.quantity, price=price, pending=pending)
    return settled(replaced._replace(status=ReservationStatus.CONFIRMED)) if revivable else replaced


def _closed(reservation: Reservation) -> Reservation:
    status = reservation.status if reservation.status is ReservationStatus.REFUSED else ReservationStatus.CLOSED
    return reservation._replace(status=status, pending=None)


def settled(reservation: Reservation) -> Reservation:
    """Close what is filled, unless a pending replace may yet make it larger."""
    done = reservation.pending is None and reservation.filled >= reservation.quantity
    return _closed(reservation) if done else reservation


def _in_state(reservation: Reservation, state: OrderState) -> Reservation:
    if state in TERMINAL and state is not OrderState.FILLED:
        return _closed(reservation)
    return settled(reservation._replace(status=ReservationStatus.CONFIRMED))
