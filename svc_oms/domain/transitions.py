"""The life of an order as a table: (state, fact) to the next state (FIX 4.4 Appendix D, with the awkward rows).

A pair that the table does not hold fits no rule: the fact is recorded as an anomaly and changes nothing.
`docs/reference/order-lifecycle.md` prints this table; a test keeps both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from svc_oms.domain.state import working
from svc_oms.domain.vocabulary import OrderState as S


class Fact(StrEnum):
    """What can move an order."""

    ACKNOWLEDGED = "ACKNOWLEDGED"
    REFUSED = "REFUSED"
    EXECUTED = "EXECUTED"  # a fill, a bust or a correction
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    DONE_FOR_DAY = "DONE_FOR_DAY"
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    REPLACED = "REPLACED"
    RESTATED = "RESTATED"  # new terms that nobody asked for
    REINSTATED = "REINSTATED"  # the venue says that the order works (again)
    TIMED_OUT = "TIMED_OUT"  # a sent request was not answered within its bound


class Next(StrEnum):
    """A next state that the quantities decide."""

    WORKING = "WORKING"  # NEW, PARTIALLY_FILLED or FILLED
    HALTED = "HALTED"  # FILLED once nothing is left, else as before
    KEEP = "KEEP"


_LIVE = (S.PENDING_NEW, S.NEW, S.PARTIALLY_FILLED, S.DONE_FOR_DAY, S.STOPPED, S.SUSPENDED, S.UNKNOWN)
_WORKING = (S.PENDING_NEW, S.NEW, S.PARTIALLY_FILLED, S.UNKNOWN)
_HALTED = (S.DONE_FOR_DAY, S.STOPPED, S.SUSPENDED)
_DEAD = (S.CANCELED, S.EXPIRED, S.REJECTED)


def _rows(states: tuple[S, ...], fact: Fact, target: S | Next) -> dict[tuple[S, Fact], S | Next]:
    return {(state, fact): target for state in states}


TRANSITIONS: Mapping[tuple[S, Fact], S | Next] = MappingProxyType(
    # An acknowledgement may come after the first fill (B.1.b) and even after the end; it then only brings the venue's order id.
    _rows((S.PENDING_NEW, S.UNKNOWN), Fact.ACKNOWLEDGED, Next.WORKING)
    | _rows((S.NEW, S.PARTIALLY_FILLED, S.FILLED, *_HALTED, *_DEAD), Fact.ACKNOWLEDGED, Next.KEEP)
    # Some venues refuse after their own acknowledgement, when a later check fails.
    | _rows((S.PENDING_NEW, S.NEW, S.UNKNOWN), Fact.REFUSED, S.REJECTED)
    # A fill may beat the acknowledgement, and a bust may reopen a filled order.
    | _rows((*_WORKING, S.FILLED), Fact.EXECUTED, Next.WORKING)
    | _rows(_HALTED, Fact.EXECUTED, Next.HALTED)
    # Late: the quantities count, the status stays (FIX 4.2 Appendix D35).
    | _rows(_DEAD, Fact.EXECUTED, Next.KEEP)
    | _rows(_LIVE, Fact.CANCELED, S.CANCELED)
    | _rows(_LIVE, Fact.EXPIRED, S.EXPIRED)
    | _rows((*_WORKING, S.STOPPED, S.SUSPENDED), Fact.DONE_FOR_DAY, S.DONE_FOR_DAY)
    | _rows((*_WORKING, S.STOPPED, S.DONE_FOR_DAY), Fact.SUSPENDED, S.SUSPENDED)
    | _rows((*_WORKING, S.SUSPENDED, S.DONE_FOR_DAY), Fact.STOPPED, S.STOPPED)
    # A replace upwards reopens a filled order; one to what is filled already fills it (C.3.b, C.3.c).
    | _rows((*_WORKING, S.FILLED), Fact.REPLACED, Next.WORKING)
    | _rows(_HALTED, Fact.REPLACED, Next.HALTED)
    | _rows((*_WORKING, S.FILLED), Fact.RESTATED, Next.WORKING)
    | _rows(_HALTED, Fact.RESTATED, Next.HALTED)
    | _rows(_DEAD, Fact.RESTATED, Next.KEEP)
    # A halted order resumes; a dead one may be reinstated (E.1); an unknown one is found alive.
    | _rows((S.UNKNOWN, *_HALTED, *_DEAD), Fact.REINSTATED, Next.WORKING)
    # Never to REJECTED: an order that was sent may live at the venue. Only evidence from there ends UNKNOWN.
    | _rows(_LIVE, Fact.TIMED_OUT, S.UNKNOWN)
)


def next_state(state: S, fact: Fact, quantity: Decimal, filled: Decimal) -> S | None:
    """Return the state after a fact, given the quantities after it; None where the table has no such row."""
    target = TRANSITIONS.get((state, fact))
    if target is None or isinstance(target, S):
        return target
    if target is Next.WORKING:
        return working(quantity, filled)
    if target is Next.HALTED:
        return S.FILLED if filled >= quantity else state
    return state
