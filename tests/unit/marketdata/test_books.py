"""Books, days of trades, grids."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from svc_marketdata.domain import Aggressor, BookError, Grid, Level, OrderBook, Trade, TradingDay, scaled_text
from svc_marketdata.domain.trades import TRADES_KEPT_MAX

DAY = date(2026, 1, 5)


def trade(match: int, price: int, quantity: int = 1, day: date = DAY) -> Trade:
    return Trade("AAPL", match, price, quantity, Aggressor.BUY, day, match, "s", match)


def test_a_book_sums_its_orders_by_price_best_first() -> None:
    book = OrderBook()
    for reference, (is_bid, quantity, price) in enumerate(
        [(True, 5, 100), (True, 7, 100), (True, 1, 99), (False, 3, 102), (False, 4, 101)]
    ):
        book.add(reference, is_bid=is_bid, quantity=quantity, price=price)
    assert book.bids(10) == [Level(100, 12, 2), Level(99, 1, 1)]
    assert book.asks(1) == [Level(101, 4, 1)]
    assert book.best_bid == Level(100, 12, 2)
    assert book.best_ask == Level(101, 4, 1)
    assert not book.is_crossed


def test_an_order_loses_quantity_and_leaves_with_the_last_of_it() -> None:
    book = OrderBook()
    book.add(1, is_bid=True, quantity=5, price=100)
    assert book.reduce(1, 2).quantity == 5
    assert book.best_bid == Level(100, 3, 1)
    book.reduce(1, 3)
    assert book.bids(5) == []
    assert len(book) == 0


def test_a_replaced_order_keeps_its_side() -> None:
    book = OrderBook()
    book.add(1, is_bid=False, quantity=5, price=100)
    book.replace(1, 2, quantity=4, price=103)
    assert book.order(1) is None
    assert book.asks(5) == [Level(103, 4, 1)]


@pytest.mark.parametrize(
    "change",
    [
        lambda book: book.add(1, is_bid=True, quantity=1, price=1),
        lambda book: book.add(9, is_bid=True, quantity=0, price=1),
        lambda book: book.reduce(1, 6),
        lambda book: book.reduce(9, 1),
        lambda book: book.reduce(1, 0),
        lambda book: book.delete(9),
        lambda book: book.replace(9, 10, quantity=1, price=1),
        lambda book: book.replace(1, 1, quantity=1, price=1),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change) -> None:  # type: ignore[no-untyped-def]  # a lambda
    book = OrderBook()
    book.add(1, is_bid=True, quantity=5, price=100)
    with pytest.raises(BookError):
        change(book)
    assert book.bids(5) == [Level(100, 5, 1)]


def test_a_book_whose_bid_meets_its_offer_is_crossed() -> None:
    book = OrderBook()
    book.add(1, is_bid=True, quantity=5, price=100)
    book.add(2, is_bid=False, quantity=5, price=100)
    assert book.is_crossed


def test_a_day_counts_each_trade_once_and_a_bust_takes_it_out() -> None:
    day = TradingDay()
    assert [day.add(trade(match, price)) for match, price in ((1, 100), (2, 105), (3, 95), (2, 105))] == [True, True, True, False]
    assert (day.volume, day.open, day.high, day.low, day.last) == (3, 100, 105, 95, trade(3, 95))
    assert day.bust(2) == trade(2, 105)
    assert day.bust(2) is None
    assert (day.volume, day.high) == (2, 100)
    day.bust(3)
    day.bust(1)
    assert (day.volume, day.open, day.high, day.low, day.last) == (0, None, None, None, None)


def test_another_day_begins_with_its_first_trade_and_an_earlier_one_counts_no_more() -> None:
    day = TradingDay()
    day.add(trade(1, 100))
    day.add(trade(2, 50, day=date(2026, 1, 6)))
    assert (day.trade_date, day.volume, day.open) == (date(2026, 1, 6), 1, 50)
    assert not day.add(trade(3, 70))


def test_a_day_lets_old_trades_go_and_keeps_what_they_came_to() -> None:
    day = TradingDay()
    day.add(trade(1, 7))
    for match in range(2, TRADES_KEPT_MAX + 3):
        day.add(trade(match, 100))
    assert (day.volume, day.open, day.low, day.high) == (TRADES_KEPT_MAX + 2, 7, 7, 100)
    assert day.bust(1) is None
    day.bust(TRADES_KEPT_MAX)
    assert (day.volume, day.open, day.low, day.high) == (TRADES_KEPT_MAX + 1, 7, 7, 100)


@pytest.mark.parametrize(
    ("value", "scale", "text"), [(0, 0, "0"), (5, 0, "5"), (123, 2, "1.23"), (120, 2, "1.2"), (100, 2, "1"), (7, 4, "0.0007")]
)
def test_whole_numbers_become_canonical_decimals(value: int, scale: int, text: str) -> None:
    assert scaled_text(value, scale) == text


def test_a_grid_counts_its_steps() -> None:
    grid = Grid.of(Decimal("0.05"))
    assert grid.text(3) == "0.15"
    assert grid.decimal(3) == Decimal("0.15")
    assert grid.count(Decimal("0.150")) == 3
    assert grid.count(Decimal("0.16")) is None
    with pytest.raises(ValueError, match="not a step"):
        Grid.of(Decimal(0))
