"""The book-event tap: what a market data publisher needs, in book order, after it is durable.

The events mirror what order-by-order feeds carry (Nasdaq TotalView-ITCH 5.0: A, E, X, D, U, P-less). `reference` is unique in the
journal's lifetime and names one stay of an order in the book: an order that loses priority comes back under another one.
Prices in ticks, quantities in lots; trades are seen as executions of booked orders, and every trade has exactly one.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from sandbox.exchange.engine import events
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.state import VenueState
from sandbox.exchange.engine.vocabulary import Order, Side


class OrderAdded(NamedTuple):
    """An order joined the back of the queue at its price."""

    time_ns: int
    instrument: str
    reference: int
    side: Side
    quantity: int
    price: int


class OrderExecuted(NamedTuple):
    """A booked order traded at its price; one without a rest has left."""

    time_ns: int
    instrument: str
    reference: int
    quantity: int
    match_id: int
    price: int


class OrderReduced(NamedTuple):
    """A booked order lost quantity and kept its place."""

    time_ns: int
    instrument: str
    reference: int
    quantity: int


class OrderDeleted(NamedTuple):
    """A booked order left with all its rest."""

    time_ns: int
    instrument: str
    reference: int


class OrderReplaced(NamedTuple):
    """A booked order moved to the back of a queue under another reference, with new quantity and price."""

    time_ns: int
    instrument: str
    reference: int
    new_reference: int
    quantity: int
    price: int


class TradeBroken(NamedTuple):
    """An earlier execution is void (quantity 0) or has other terms."""

    time_ns: int
    instrument: str
    match_id: int
    quantity: int
    price: int


class TradingPhase(NamedTuple):
    """An instrument's session opened or closed; `trade_date` (ISO 8601) is the session's, or while closed of the one before."""

    time_ns: int
    instrument: str
    is_open: bool
    trade_date: str


class OfficialClose(NamedTuple):
    """A session's official close, and the date (ISO 8601) of the session that the price is from."""

    time_ns: int
    instrument: str
    price: int
    close_date: str


BookEvent = OrderAdded | OrderExecuted | OrderReduced | OrderDeleted | OrderReplaced | TradeBroken | TradingPhase | OfficialClose


class BookPublisher(Protocol):
    """Where book events go; a market data feed implements it."""

    def publish(self, book_events: list[BookEvent]) -> None:
        """Take the durable book events of one batch, in order. Must not block and must not raise."""


class BookTap:
    """Translates engine events, each seen right after it was folded, into book events."""

    def __init__(self, state: VenueState) -> None:
        self._state = state
        self._pending: list[BookEvent] = []
        # A replaced order that has left its place and, if the next event books it, moves rather than leaves.
        self._moving: tuple[int, OrderDeleted] | None = None

    def observe(self, event: Event) -> None:
        """Note one event."""
        moving, self._moving = self._moving, None
        if moving is not None:
            order_id, deleted = moving
            if isinstance(event, events.Booked) and event.order_id == order_id:
                order = self._state.orders[order_id]
                self._pending.append(
                    OrderReplaced(deleted.time_ns, order.instrument, deleted.reference, event.sequence, order.leaves_quantity, order.price)
                )
                return
            self._pending.append(deleted)
        self._pending.extend(self._translate(event))

    def take(self) -> list[BookEvent]:
        """Return what was noted since the last call; commands are whole by then."""
        if self._moving is not None:
            self._pending.append(self._moving[1])
            self._moving = None
        taken, self._pending = self._pending, []
        return taken

    def _translate(self, event: Event) -> Iterable[BookEvent]:
        match event:
            case events.Booked():
                order = self._state.orders[event.order_id]
                yield OrderAdded(self._state.time_ns, order.instrument, event.sequence, order.side, order.leaves_quantity, order.price)
            case events.Traded():
                yield OrderExecuted(event.time_ns, event.instrument, event.maker_reference, event.quantity, event.sequence, event.price)
            case events.Replaced() if event.book_reference:
                yield from self._replaced(event)
            case events.Canceled() | events.Expired() if event.book_reference:
                yield OrderDeleted(event.time_ns, event.instrument, event.book_reference)
            case events.TradeCorrected():
                instrument = self._state.trades[event.match_id].instrument
                for reference in filter(None, (event.buy_reference, event.sell_reference)):
                    yield OrderDeleted(event.time_ns, instrument, reference)
                yield TradeBroken(event.time_ns, instrument, event.match_id, event.quantity, event.price)
            case events.PhaseChanged():
                yield TradingPhase(event.time_ns, event.instrument, event.is_open, event.trade_date)
            case events.OfficialClose():
                yield OfficialClose(event.time_ns, event.instrument, event.close_price, event.close_date)
            case _:
                pass

    def _replaced(self, event: events.Replaced) -> Iterable[BookEvent]:
        order = self._state.orders.get(event.order_id)
        if event.keeps_priority and order is not None and order.book_reference:
            # A replace may change nothing that a book shows.
            if event.reduced_by:
                yield OrderReduced(event.time_ns, event.instrument, event.book_reference, event.reduced_by)
        else:
            self._moving = (event.order_id, OrderDeleted(event.time_ns, event.instrument, event.book_reference))


def resting_orders(state: VenueState, instrument: str) -> Iterable[Order]:
    """Yield an instrument's booked orders, bids from the best price then asks, each queue from its front: a snapshot for late joiners."""
    book = state.markets[instrument].book
    for side in (book.bids, book.asks):
        for level in side:
            yield from level.orders.values()
