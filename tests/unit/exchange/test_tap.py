"""The tap's events, replayed by a book builder that knows nothing else, give the engine's book."""

from dataclasses import dataclass

from hypothesis import given, settings

from sandbox.exchange.engine import Engine
from sandbox.exchange.engine.commands import AdvanceTime, CorrectTrade
from sandbox.exchange.engine.state import Retention
from sandbox.exchange.tap import (
    BookEvent,
    BookTap,
    OrderAdded,
    OrderDeleted,
    OrderExecuted,
    OrderReduced,
    OrderReplaced,
    TradeBroken,
    resting_orders,
)
from tests.property.exchange.test_matching import Operation, Play, _operations
from tests.unit.exchange.venues import BUY, GTC, MONDAY_NS, SELL, cancel, instruments, new, replace


@dataclass
class _Rest:
    side: str
    price: int
    quantity: int


class Follower:
    """Builds a book from book events alone."""

    def __init__(self) -> None:
        self.orders: dict[int, _Rest] = {}

    def apply(self, event: BookEvent) -> None:
        match event:
            case OrderAdded():
                assert event.reference not in self.orders
                self.orders[event.reference] = _Rest(event.side, event.price, event.quantity)
            case OrderExecuted() | OrderReduced():
                rest = self.orders[event.reference]
                rest.quantity -= event.quantity
                assert rest.quantity >= 0
                if isinstance(event, OrderExecuted):
                    assert rest.price == event.price
                if rest.quantity == 0:
                    del self.orders[event.reference]
            case OrderDeleted():
                del self.orders[event.reference]
            case OrderReplaced():
                old = self.orders.pop(event.reference)
                self.orders[event.new_reference] = _Rest(old.side, event.price, event.quantity)
            case _:
                pass


def tapped() -> tuple[Engine, BookTap]:
    venue = Engine(instruments(), Retention())
    tap = BookTap(venue.state)
    venue = Engine(instruments(), state=venue.state, observer=tap.observe)
    venue.execute(AdvanceTime(MONDAY_NS))
    tap.take()
    return venue, tap


@given(_operations)
@settings(max_examples=100, deadline=None)
def test_a_follower_has_the_same_book(operations: list[Operation]) -> None:
    play, follower = Play(), Follower()
    play.engine, tap = tapped()
    for number, operation in enumerate(operations):
        play.apply(number, operation)
        for event in tap.take():
            follower.apply(event)
        booked = {
            order.book_reference: (order.side, order.price, order.leaves_quantity) for order in resting_orders(play.engine.state, "AAPL")
        }
        assert {reference: (rest.side, rest.price, rest.quantity) for reference, rest in follower.orders.items()} == booked


def test_each_kind_of_change() -> None:
    venue, tap = tapped()
    venue.execute(new("a", BUY, 100))
    assert [type(event) for event in tap.take()] == [OrderAdded]
    venue.execute(replace("a2", "a", 80))
    assert [type(event) for event in tap.take()] == [OrderReduced]
    venue.execute(replace("a2b", "a2", 80, time_in_force=GTC))
    assert tap.take() == []
    venue.execute(replace("a3", "a2b", 80, 9_999))
    assert [type(event) for event in tap.take()] == [OrderReplaced]
    trade = venue.execute(new("s", SELL, 30, 9_999, account="ACC-2"))[1]
    assert [type(event) for event in tap.take()] == [OrderExecuted]
    venue.execute(CorrectTrade(MONDAY_NS, trade.sequence, 9_999, 0))
    assert [type(event) for event in tap.take()] == [OrderDeleted, TradeBroken, OrderAdded]
    venue.execute(cancel("c", "a3"))
    assert [type(event) for event in tap.take()] == [OrderDeleted]


def test_a_replacement_that_trades_first_leaves_and_comes_back() -> None:
    venue, tap = tapped()
    venue.execute(new("s", SELL, 30, 10_005, account="ACC-2"))
    venue.execute(new("a", BUY, 100))
    tap.take()
    venue.execute(replace("a2", "a", 100, 10_005))
    assert [type(event) for event in tap.take()] == [OrderDeleted, OrderExecuted, OrderAdded]
