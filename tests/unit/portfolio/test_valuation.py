"""Marks, and what they make of positions."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from svc_portfolio.clients.marks import FRESH_SECONDS, MarkBook
from svc_portfolio.domain.position import FLAT, Position
from svc_portfolio.domain.valuation import Holding, Mark, MarkSource, Quote, mark_of, market_value, rounded, totals, unrealised
from tests.unit.portfolio.make import NOON, facts

EMPTY = Quote(None, None, None, None, NOON, stale=False)


def position(quantity: str, cost: str, realised: str = "0") -> Position:
    return replace(FLAT, quantity=Decimal(quantity), cost=Decimal(cost), realised=Decimal(realised))


def holding(name: str, currency: str, held: Position) -> Holding:
    return Holding("ACC-1", name, held, currency, "XSIM" if currency else "")


@pytest.mark.parametrize(
    ("said", "price", "source"),
    [
        ({"bid": "10", "ask": "11", "last_trade": "9", "prior_close": "8"}, "10.5", MarkSource.MID),
        ({"bid": "10", "last_trade": "9", "prior_close": "8"}, "9", MarkSource.LAST_TRADE),
        ({"ask": "10", "prior_close": "8"}, "8", MarkSource.PRIOR_CLOSE),
    ],
)
def test_a_mark_is_the_mid_else_the_last_trade_else_the_prior_close(said: dict[str, str], price: str, source: MarkSource) -> None:
    quote = EMPTY._replace(**{name: Decimal(text) for name, text in said.items()})  # type: ignore[arg-type]  # prices by name
    assert mark_of(quote, live=True) == Mark(Decimal(price), source, NOON, stale=False)


def test_no_price_is_no_mark() -> None:
    assert mark_of(EMPTY, live=True) is None
    assert mark_of(EMPTY._replace(bid=Decimal(1)), live=True) is None, "one side of a book says nothing"


def test_marks_go_stale_and_stay() -> None:
    book = MarkBook()
    assert book.mark("XSIM", "AAPL", 0.0) is None
    book.take("XSIM", {"AAPL": EMPTY._replace(last_trade=Decimal(5))}, live=True, now=10.0)
    fresh = book.mark("XSIM", "AAPL", 10.0 + FRESH_SECONDS - 0.1)
    assert fresh == Mark(Decimal(5), MarkSource.LAST_TRADE, NOON, stale=False)
    silent = book.mark("XSIM", "AAPL", 10.0 + FRESH_SECONDS)
    assert silent is not None
    assert facts(silent.price, silent.stale) == (5, True)
    book.take("XSIM", {}, live=True, now=20.0)
    assert book.mark("XSIM", "AAPL", 20.0) == fresh, "a sign of life is enough"
    book.take("XSIM", {}, live=False, now=20.5)
    assert book.mark("XSIM", "AAPL", 20.5) == silent, "the venue's feed is dead, whoever tells it"
    book.take("XSIM", {"AAPL": EMPTY._replace(last_trade=Decimal(6), stale=True)}, live=True, now=21.0)
    broken = book.mark("XSIM", "AAPL", 21.0)
    assert broken is not None
    assert facts(broken.price, broken.stale) == (6, True)
    assert book.mark("OTHER", "AAPL", 21.0) is None, "a price counts for its own venue's instruments"


def test_long_and_short_values() -> None:
    mark = Mark(Decimal(12), MarkSource.MID, NOON, stale=False)
    assert facts(market_value(position("10", "100"), mark), unrealised(position("10", "100"), mark)) == (120, 20)
    assert facts(market_value(position("-10", "-100"), mark), unrealised(position("-10", "-100"), mark)) == (-120, -20)


def test_totals_keep_currencies_apart_and_say_what_they_leave_out() -> None:
    fresh, old = Mark(Decimal(12), MarkSource.MID, NOON, stale=False), Mark(Decimal(3), MarkSource.LAST_TRADE, NOON, stale=True)
    sums, unknown = totals(
        [
            (holding("AAPL", "USD", position("10", "100", "5")), Decimal(5), fresh),
            (holding("MSFT", "USD", position("2", "50", "1")), Decimal(1), None),
            (holding("GONE", "USD", position("0", "0", "-4")), Decimal(-4), None),
            (holding("SAP", "EUR", position("-1", "-4")), Decimal(0), old),
            (holding("NEW", "", position("7", "70")), Decimal(0), None),
        ]
    )
    euro, dollar = sums
    assert facts(dollar.currency, dollar.cost, dollar.realised, dollar.value, dollar.unrealised) == ("USD", 150, 2, 120, 20)
    assert (dollar.unmarked, dollar.stale) == (1, False)
    assert facts(euro.currency, euro.value, euro.unrealised, euro.stale) == ("EUR", -3, 1, True)
    assert unknown == 1


def test_amounts_are_rounded_once_half_to_even() -> None:
    assert rounded(Decimal("0.0000000000000000025")) == Decimal("0.000000000000000002")
    assert rounded(Decimal("1.5")) == Decimal("1.5")
