"""What a reservation holds, fact by fact, and how messages are counted."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from svc_risk.domain import reservation as r
from svc_risk.domain.rate import NO_MESSAGES, counted, messages, tick_of
from svc_risk.domain.reservation import Reservation, ReservationStatus
from svc_risk.domain.vocabulary import OrderState as S
from svc_risk.domain.vocabulary import Side
from tests.unit.risk.parts import NOW

TERMS = r.OrderTerms("o-1", "ACC-1", "AAPL", Side.BUY, Decimal(100), Decimal(50))


def unconfirmed() -> Reservation:
    return Reservation("o-1", "ACC-1", "AAPL", Side.BUY, ReservationStatus.UNCONFIRMED, Decimal(100), Decimal(50))


def executed(version: int, filled: int, state: S) -> r.Executed:
    return r.Executed(version, f"x-{version}", Decimal(50), Decimal(filled), state)


def replaced(version: int, quantity: int, price: int | None, *, restated: bool = False) -> r.Replaced:
    return r.Replaced(version, Decimal(quantity), None if price is None else Decimal(price), restated)


ACCEPTED = r.Accepted(1, TERMS)
ASKED = r.ReplaceAsked(2, "r-1", Decimal(150), Decimal(50))


@pytest.mark.parametrize(
    ("facts", "held", "why"),
    [
        ([ACCEPTED], 100, "confirmed"),
        ([r.Ended(1)], 0, "rejected or given up"),
        ([ACCEPTED, r.Ended(5)], 0, "canceled or refused; events between are no facts of risk"),
        ([ACCEPTED, executed(3, 30, S.PARTIALLY_FILLED)], 70, "partly filled"),
        ([ACCEPTED, executed(3, 100, S.FILLED)], 0, "filled"),
        ([ACCEPTED, executed(3, 100, S.FILLED), executed(4, 60, S.PARTIALLY_FILLED)], 40, "a bust revives"),
        ([ACCEPTED, r.Ended(3), executed(4, 30, S.CANCELED)], 0, "a late fill on a canceled order reserves nothing"),
        ([ACCEPTED, r.StateChanged(3, S.DONE_FOR_DAY)], 100, "done for the day: it may trade tomorrow"),
        ([ACCEPTED, r.StateChanged(3, S.SUSPENDED)], 100, "suspended"),
        ([ACCEPTED, r.StateChanged(3, S.UNKNOWN)], 100, "unknown releases nothing"),
        ([ACCEPTED, r.StateChanged(3, S.EXPIRED)], 0, "expired"),
        ([ACCEPTED, r.StateChanged(3, S.EXPIRED), r.StateChanged(4, S.NEW)], 100, "reinstated"),
        ([ACCEPTED, ASKED], 150, "a replace that was not checked here is a fact all the same"),
        ([ACCEPTED, ASKED, r.ReplaceDropped(3, None)], 100, "the replace came to nothing"),
        ([ACCEPTED, ASKED, r.ReplaceDropped(3, "another")], 150, "another replace was rejected"),
        ([ACCEPTED, ASKED, replaced(3, 150, 50)], 150, "the new terms are in force"),
        ([ACCEPTED, ASKED, executed(3, 100, S.FILLED)], 50, "filled, but a larger quantity is on its way"),
        ([ACCEPTED, ASKED, executed(3, 100, S.FILLED), r.ReplaceDropped(4, None)], 0, "and never came"),
        ([ACCEPTED, ASKED, executed(3, 100, S.FILLED), replaced(4, 150, 50)], 50, "and came"),
        ([ACCEPTED, executed(3, 40, S.PARTIALLY_FILLED), replaced(4, 40, 50)], 0, "replaced to what is filled already"),
        ([ACCEPTED, replaced(3, 80, 50, restated=True)], 80, "restated by the venue"),
        ([ACCEPTED, ASKED, replaced(3, 80, 50, restated=True)], 150, "restated while a replace is pending"),
        ([ACCEPTED, r.Ended(3), replaced(4, 80, 50, restated=True)], 0, "restated after its end"),
        ([ACCEPTED, executed(3, 100, S.FILLED), replaced(4, 120, 50, restated=True)], 20, "restated upwards after being filled"),
        ([r.Ended(1), r.Accepted(2, TERMS)], 100, "svc_oms decides what exists"),
        (
            [ACCEPTED, ACCEPTED, executed(3, 30, S.PARTIALLY_FILLED), executed(3, 30, S.PARTIALLY_FILLED), r.Accepted(2, TERMS)],
            70,
            "repeated",
        ),
    ],
)
def test_what_may_still_trade_stays_reserved(facts: list[r.OrderFact], held: int, why: str) -> None:
    reservation = unconfirmed()
    for fact in facts:
        reservation = r.evolve(reservation, fact)
    assert reservation.held == (Decimal(held), Decimal(held * 50)), why


def working() -> Reservation:
    return unconfirmed()._replace(status=ReservationStatus.CONFIRMED, order_version=1)


def asked(version: int, name: str, quantity: int, price: int) -> r.ReplaceAsked:
    return r.ReplaceAsked(version, name, Decimal(quantity), Decimal(price))


def test_a_refused_order_stays_refused() -> None:
    refused = unconfirmed()._replace(status=ReservationStatus.REFUSED)
    assert r.evolve(refused, r.Ended(1)).status is ReservationStatus.REFUSED


def test_a_new_price_is_in_force_with_a_replace_and_a_sell_below_the_market_counts_at_the_market() -> None:
    buy, sell = working(), working()._replace(side=Side.SELL)
    for reservation, notional in ((buy, 4800), (sell, 5200)):
        pending = reservation.with_pending("r-1", Decimal(100), Decimal(60), confirmed=True)
        assert r.evolve(pending, replaced(2, 100, 48), Decimal(52)).held.notional == notional
    assert r.evolve(sell, replaced(2, 100, 55), Decimal(52)).held.notional == 5500
    assert r.evolve(sell, replaced(2, 100, None), Decimal(52)).held.notional == 5000


def test_messages_of_any_one_second_count() -> None:
    window = NO_MESSAGES
    for milliseconds in (0, 50, 950, 999):
        window = counted(window, tick_of(NOW + timedelta(milliseconds=milliseconds)))
    assert messages(window, tick_of(NOW + timedelta(milliseconds=999))) == 4
    # A second that begins within the first tenth still covers it.
    assert messages(window, tick_of(NOW + timedelta(milliseconds=1049))) == 4
    assert messages(window, tick_of(NOW + timedelta(milliseconds=1100))) == 2
    assert messages(window, tick_of(NOW + timedelta(milliseconds=2100))) == 0


def test_a_clock_that_steps_back_forgets_nothing() -> None:
    window = counted(NO_MESSAGES, tick_of(NOW))
    assert messages(counted(window, tick_of(NOW - timedelta(hours=1))), tick_of(NOW)) == 2
