"""Several replaces of one order, approved before any of them is answered: each is covered until evidence of its own."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations

import pytest

from kernel.errors import Reason
from svc_risk.domain import reservation as r
from svc_risk.domain.book import Book
from svc_risk.domain.check import Approval, Invalidity
from svc_risk.domain.exposure import no_exposure
from svc_risk.domain.policy import Policy
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.reservation import Reservation, ReservationStatus
from svc_risk.domain.vocabulary import CheckKind, LimitType, OrderState, Side
from tests.unit.risk.parts import ACCOUNT_LIMITS, NOW, account_policy, instrument_policy, order, trader_bounds

TERMS = {"r-1": (150, 40), "r-2": (120, 60), "r-3": (200, 30)}
"""Quantity and price of what is asked for: each is the largest in something."""


def working() -> Reservation:
    return Reservation(
        "o-1", "ACC-1", "AAPL", Side.BUY, ReservationStatus.CONFIRMED, Decimal(100), Decimal(50), order_version=1
    )  # fmt: skip


def approved(*names: str) -> Reservation:
    reservation = working()
    for name in names:
        quantity, price = TERMS[name]
        reservation = reservation.with_pending(name, Decimal(quantity), Decimal(price))
    return reservation


def asked(version: int, name: str) -> r.ReplaceAsked:
    quantity, price = TERMS[name]
    return r.ReplaceAsked(version, name, Decimal(quantity), Decimal(price))


def replaced(version: int, name: str) -> r.Replaced:
    quantity, price = TERMS[name]
    return r.Replaced(version, Decimal(quantity), Decimal(price), False)


def largest(*terms: tuple[int, int]) -> tuple[Decimal, Decimal]:
    return Decimal(max(quantity for quantity, _ in terms)), Decimal(max(quantity * price for quantity, price in terms))


OLD = (100, 50)


@pytest.mark.parametrize("names", [("r-1", "r-2"), ("r-1", "r-2", "r-3")])
def test_whatever_is_settled_in_whatever_order_the_rest_stays_covered_exactly(names: tuple[str, ...]) -> None:
    for order_of_approval in permutations(names):
        for order_of_rejection in permutations(names):
            reservation, left = approved(*order_of_approval), set(names)
            assert reservation.held == largest(OLD, *(TERMS[name] for name in left))
            for version, name in enumerate(order_of_rejection, start=2):
                fact = r.ReplaceDropped(version, name)
                reservation = r.evolve(reservation, fact)
                left.remove(name)
                assert reservation.held == largest(OLD, *(TERMS[other] for other in left))
                assert r.evolve(reservation, fact) == reservation, "a repetition"


@pytest.mark.parametrize("recorded", TERMS)
@pytest.mark.parametrize("granted", [True, False], ids=["granted", "refused"])
def test_the_venues_answer_is_for_the_one_that_was_recorded(recorded: str, granted: bool) -> None:
    others = [name for name in TERMS if name != recorded]
    reservation = r.evolve(approved(*TERMS), asked(2, recorded))
    assert reservation.held == largest(OLD, *TERMS.values()), "nothing is released by being asked for"
    answer = replaced(3, recorded) if granted else r.ReplaceDropped(3, None)
    reservation = r.evolve(reservation, answer)
    in_force = TERMS[recorded] if granted else OLD
    assert reservation.held == largest(in_force, *(TERMS[name] for name in others))
    # The next one is recorded only now, the last one was an orphan.
    reservation = r.evolve(reservation, asked(4, others[0]))
    reservation = reservation.without_pending(others[1])
    assert reservation.held == largest(in_force, TERMS[others[0]])
    reservation = r.evolve(reservation, replaced(5, others[0]))
    assert reservation.held == largest(TERMS[others[0]])
    assert not reservation.pending


def test_what_was_recorded_is_given_up_neither_as_an_orphan_nor_by_a_rejection_of_its_id() -> None:
    reservation = r.evolve(approved("r-1", "r-2"), asked(2, "r-1"))
    assert reservation.without_pending("r-1") is reservation
    after = r.evolve(reservation, r.ReplaceDropped(3, "r-1"))
    assert (after.pending, after.order_version) == (reservation.pending, 3)


def test_an_answer_to_nothing_recorded_releases_nothing() -> None:
    reservation = approved("r-1", "r-2")
    assert r.evolve(reservation, r.ReplaceDropped(2, None)).pending == reservation.pending
    restated = r.evolve(reservation, r.Replaced(2, Decimal(80), Decimal(50), True))
    assert restated.held == largest((80, 50), TERMS["r-1"], TERMS["r-2"])


@pytest.mark.parametrize("end", [r.Ended(3), r.StateChanged(3, OrderState.EXPIRED)], ids=["canceled", "expired"])
def test_the_orders_end_releases_every_one_of_them(end: r.OrderFact) -> None:
    """Also those that svc_oms never recorded: it refuses requests of an ended order, and says so afterwards or not at all."""
    ended = r.evolve(r.evolve(approved(*TERMS), asked(2, "r-2")), end)
    assert ended.status is ReservationStatus.CLOSED
    assert not any(ended.held)
    assert not ended.pending
    assert r.evolve(ended, r.ReplaceDropped(4, "r-1")) == ended._replace(order_version=4)


def test_a_filled_order_is_closed_by_the_last_replace_that_comes_to_nothing() -> None:
    """It may be reopened by a larger replace, so its fill alone does not close it."""
    filled = r.evolve(approved("r-1", "r-2"), r.Executed(2, "x", Decimal(50), Decimal(100), OrderState.FILLED))
    assert filled.held == (Decimal(50), Decimal(2000))
    one = r.evolve(filled, r.ReplaceDropped(3, "r-1"))
    assert (one.status, one.held) == (ReservationStatus.CONFIRMED, (Decimal(20), Decimal(1200)))
    assert r.evolve(one, r.ReplaceDropped(4, "r-2")).status is ReservationStatus.CLOSED


def book() -> Book:
    policy = Policy(
        {"ACC-1": account_policy(ACCOUNT_LIMITS | {LimitType.MESSAGE_RATE: "100"})}, {"ada": trader_bounds()}, {"AAPL": instrument_policy()}
    )
    return Book(
        moment=NOW,
        policy=policy,
        accounts={"ACC-1": no_exposure(NOW)},
        references={"AAPL": ReferencePrice(Decimal(100), PriceSource.MID, True)},
    )


def test_only_so_many_may_be_under_way() -> None:
    under_test, first = book(), order(Side.BUY, "1", "100")
    assert isinstance(under_test.check(first), Approval)
    last = r.PENDING_MAX + 1
    replaces = [
        order(Side.BUY, str(number + 1), "100", kind=CheckKind.REPLACE, order_id=first.order_id, request_id=f"r-{number}")
        for number in range(1, last + 1)
    ]
    outcomes = [under_test.check(replace) for replace in replaces]
    assert [type(outcome) for outcome in outcomes] == [*[Approval] * r.PENDING_MAX, Invalidity]
    assert isinstance(outcomes[-1], Invalidity)
    assert outcomes[-1].reason is Reason.ORDER_REQUEST_PENDING
    assert under_test.reservations[first.order_id].held.quantity == last
    # The refusal was not recorded: with room again, the same question is decided.
    under_test.drop_pending(first.order_id, "r-1")
    assert isinstance(under_test.check(replaces[-1]), Approval)
    assert under_test.accounts["ACC-1"].open_notional == (last + 1) * 100
