"""What one order holds reserved, from the check to its end, moved by the facts that svc_oms records.

| fact | effect |
| --- | --- |
| `OrderAccepted` | confirmed: an order stands behind the reservation |
| `OrderRejected`, `OrderAbandoned`, `OrderRefused`, `OrderCanceled` | released |
| `ExecutionRecorded` | the filled part moves to the position; a terminal state releases the rest, a bust that revives holds it again |
| `ReplaceRequested` | its pending terms are confirmed; the larger of old and new stays reserved |
| `ReplaceRefused` | the confirmed terms are dropped |
| `ReplaceRejected` | the terms of that request are dropped, which svc_oms will not record any more |
| `OrderReplaced` | the confirmed terms are in force; approvals that wait to be confirmed stay covered |
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


PENDING_MAX = 16
"""Approved replaces of one order that may wait at once for svc_oms to record them or for the venue's answer; a further one is refused."""


class PendingTerms(NamedTuple):
    """Terms of an approved replace that are neither in force nor given up.

    `confirmed` once svc_oms has recorded the request. It records one at a time, and the venue's answer is for that one. The others may
    still be recorded: each stays until it is, or is rejected, or is settled as an orphan.
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
    pending: tuple[PendingTerms, ...] = ()
    order_version: int = 0

    @property
    def live(self) -> bool:
        """Say whether it may hold anything."""
        return self.status in (ReservationStatus.UNCONFIRMED, ReservationStatus.CONFIRMED)

    @property
    def held(self) -> Held:
        """Return what is reserved: the most that may still trade under the terms in force or under any that are pending."""
        if not self.live:
            return NOTHING
        held = _open(self.quantity, self.filled, self.price)
        if not self.pending:
            return held
        each = [held, *(_open(terms.quantity, self.filled, terms.price) for terms in self.pending)]
        return Held(max(one.quantity for one in each), max(one.notional for one in each))

    def with_pending(self, request_id: str, quantity: Decimal, price: Decimal, *, confirmed: bool = False) -> Reservation:
        """Return the reservation with further pending terms, beside those of all other requests."""
        others = (terms for terms in self.pending if terms.request_id != request_id)
        return self._replace(pending=(*others, PendingTerms(request_id, quantity, price, confirmed)))

    def without_pending(self, request_id: str) -> Reservation:
        """Return the reservation without the terms of a request that came to nothing. Confirmed terms stay: the venue answers them."""
        left = tuple(terms for terms in self.pending if terms.confirmed or terms.request_id != request_id)
        return self if len(left) == len(self.pending) else settled(self._replace(pending=left))


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
    """A replace came to nothing. `request_id` names one that svc_oms never recorded; None means the one that it has recorded, and that
    the venue refused or never got."""

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
            return _unanswered(reservation) if fact.request_id is None else reservation.without_pending(fact.request_id)
        case Replaced():
            return _replaced(reservation, fact, mark)
        case StateChanged():
            return _in_state(reservation, fact.state)


def _asked(reservation: Reservation, fact: ReplaceAsked) -> Reservation:
    approved = next((terms for terms in reservation.pending if terms.request_id == fact.request_id), None)
    if approved is not None:
        # What was approved is what was asked for, reckoned with the price of the approval.
        return reservation.with_pending(fact.request_id, approved.quantity, approved.price, confirmed=True)
    price = reservation.price if fact.limit_price is None else fact.limit_price
    return reservation.with_pending(fact.request_id, fact.quantity, price, confirmed=True)


def _unanswered(reservation: Reservation) -> Reservation:
    left = _unconfirmed(reservation)
    return reservation if left == reservation.pending else settled(reservation._replace(pending=left))


def _unconfirmed(reservation: Reservation) -> tuple[PendingTerms, ...]:
    return tuple(terms for terms in reservation.pending if not terms.confirmed)


def _replaced(reservation: Reservation, fact: Replaced, mark: Decimal) -> Reservation:
    price = reservation.price if fact.limit_price is None else fact.limit_price
    if fact.limit_price is not None and reservation.side is Side.SELL:
        # As in the decision: a seller's limit is the least that is received, so below the market it counts at the market.
        price = max(price, mark)
    # A filled order is reopened by a larger quantity; a canceled or expired one keeps its end whatever is restated.
    revivable = reservation.live or reservation.filled >= reservation.quantity
    pending = reservation.pending if fact.restated else _unconfirmed(reservation)
    replaced = reservation._replace(quantity=fact.quantity, price=price, pending=pending)
    return settled(replaced._replace(status=ReservationStatus.CONFIRMED)) if revivable else replaced


def _closed(reservation: Reservation) -> Reservation:
    status = reservation.status if reservation.status is ReservationStatus.REFUSED else ReservationStatus.CLOSED
    return reservation._replace(status=status, pending=())


def settled(reservation: Reservation) -> Reservation:
    """Close what is filled, unless a pending replace may yet make it larger."""
    done = not reservation.pending and reservation.filled >= reservation.quantity
    return _closed(reservation) if done else reservation


def _in_state(reservation: Reservation, state: OrderState) -> Reservation:
    if state in TERMINAL and state is not OrderState.FILLED:
        return _closed(reservation)
    return settled(reservation._replace(status=ReservationStatus.CONFIRMED))
