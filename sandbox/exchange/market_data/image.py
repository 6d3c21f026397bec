"""The market as it was published: what turns book events into ITCH messages, and what a snapshot is made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kernel.itch import messages as itch
from kernel.itch.codec import encode
from kernel.itch.venue import InstrumentDefinition, LastTrade, TradingDay, date_number
from sandbox.exchange import tap
from sandbox.exchange.engine.state import Market, VenueState
from sandbox.exchange.engine.vocabulary import Side
from sandbox.exchange.instruments import Instrument
from sandbox.exchange.tap import BookEvent, resting_orders

STOCK_CHARACTERS_MAX = 8
_TRADING, _HALTED = "T", "H"
_CLOSED_REASON = "CLSD"
_TIMESTAMP_MAX = 2**48 - 1
_TICK_UNITS_MAX = 2**32 - 1
_SCALE_MAX = 18


class FeedRulesError(ValueError):
    """An instrument cannot be published; the message names it, and the rule."""


class BookedOrder(NamedTuple):
    """An order in the published book; shares are lots, the price is in units of the instrument's scale."""

    locate: int
    side: str
    shares: int
    price: int


@dataclass(slots=True)
class _Listing:
    """An instrument's facts besides its orders."""

    instrument: Instrument
    locate: int
    is_open: bool
    trade_date: int
    close_price: int
    close_date: int
    last: LastTrade | None


def check_instruments(instruments: Mapping[str, Instrument]) -> None:
    """Refuse what ITCH has no room for.

    Raises:
        FeedRulesError: a symbol of more than 8 characters, a currency of more than 8, a tick or scale beyond 32 bits or 18 decimals.
    """
    if len(instruments) >= 2**16:
        raise FeedRulesError("a feed has at most 65535 instruments")
    for symbol, instrument in instruments.items():
        where = f"instrument {symbol!r} cannot be published:"
        if len(symbol) > STOCK_CHARACTERS_MAX:
            raise FeedRulesError(f"{where} a symbol has at most {STOCK_CHARACTERS_MAX} characters in ITCH")
        if not 0 < len(instrument.currency) <= STOCK_CHARACTERS_MAX or not instrument.currency.isascii():
            raise FeedRulesError(f"{where} its currency has 1 to {STOCK_CHARACTERS_MAX} ASCII characters")
        if instrument.prices.units > _TICK_UNITS_MAX or max(instrument.prices.scale, instrument.quantities.scale) > _SCALE_MAX:
            raise FeedRulesError(f"{where} its tick or lot has too many digits")


class MarketImage:
    """Not the engine's state, which may be ahead of what was published, but the state after the latest message.

    Args:
        state: as it is durable now.

    Raises:
        FeedRulesError: an order in the book has a price that 32 bits of units cannot hold.
    """

    def __init__(self, state: VenueState) -> None:
        self.orders: dict[int, BookedOrder] = {}
        self._listings: dict[str, _Listing] = {}
        self._by_locate: list[_Listing] = []
        for locate, (symbol, market) in enumerate(state.markets.items(), start=1):
            listing = _listing(state, market, locate)
            self._listings[symbol] = listing
            self._by_locate.append(listing)
            units, price_max = market.instrument.prices.units, market.instrument.price_max
            for order in resting_orders(state, symbol):
                if order.price > price_max:
                    raise FeedRulesError(
                        f"instrument {symbol!r}: an order's price of {market.instrument.prices.text(order.price)} is too large"
                    )
                side = "B" if order.side is Side.BUY else "S"
                self.orders[order.book_reference] = BookedOrder(locate, side, order.leaves_quantity, order.price * units)

    def apply(self, event: BookEvent, midnight_ns: int) -> list[bytes]:
        """Fold an event and return the messages that tell of it."""
        listing = self._listings[event.instrument]
        timestamp = _timestamp(event.time_ns, midnight_ns)
        told = [encode(message) for message in self._tell(event, listing, (listing.locate, 0, timestamp))]
        assert told, "every book event is told"
        return told

    def _tell(self, event: BookEvent, listing: _Listing, head: tuple[int, int, int]) -> Iterator[Any]:
        units, stock = listing.instrument.prices.units, listing.instrument.symbol
        match event:
            case tap.OrderAdded():
                booked = BookedOrder(listing.locate, "B" if event.side is Side.BUY else "S", event.quantity, event.price * units)
                self.orders[event.reference] = booked
                yield itch.AddOrder(*head, event.reference, booked.side, booked.shares, stock, booked.price)
            case tap.OrderExecuted():
                self._reduce(event.reference, event.quantity)
                listing.last = LastTrade(
                    *head, stock, event.quantity, event.price * units, event.match_id, listing.trade_date, event.time_ns
                )
                yield itch.OrderExecuted(*head, event.reference, event.quantity, event.match_id)
            case tap.OrderReduced():
                self._reduce(event.reference, event.quantity)
                yield itch.OrderCancel(*head, event.reference, event.quantity)
            case tap.OrderDeleted():
                del self.orders[event.reference]
                yield itch.OrderDelete(*head, event.reference)
            case tap.OrderReplaced():
                side = self.orders.pop(event.reference).side
                self.orders[event.new_reference] = BookedOrder(listing.locate, side, event.quantity, event.price * units)
                yield itch.OrderReplace(*head, event.reference, event.new_reference, event.quantity, event.price * units)
            case tap.TradeBroken():
                yield from self._tell_correction(event, listing, head)
            case tap.TradingPhase():
                listing.is_open, listing.trade_date = event.is_open, date_number(event.trade_date)
                yield _trading_day(listing, head)
                yield _trading_action(listing, head)
            case tap.OfficialClose():
                listing.close_price, listing.close_date = event.price * units, date_number(event.close_date)
                yield itch.CrossTrade(*head, 0, stock, listing.close_price, 0, "C")
                yield _trading_day(listing, head)

    def _reduce(self, reference: int, quantity: int) -> None:
        booked = self.orders[reference]
        rest = booked.shares - quantity
        assert rest >= 0, "an order has lost more than it had"
        if rest:
            self.orders[reference] = booked._replace(shares=rest)
        else:
            del self.orders[reference]

    def _tell_correction(self, event: tap.TradeBroken, listing: _Listing, head: tuple[int, int, int]) -> Iterator[Any]:
        """A bust is B; a correction is B and then the trade as it is now, under the same match number."""
        price = event.price * listing.instrument.prices.units
        last = listing.last
        if last is not None and last.match_number == event.match_id:
            listing.last = last._replace(shares=event.quantity, price=price) if event.quantity else None
        yield itch.BrokenTrade(*head, event.match_id)
        if event.quantity:
            yield itch.Trade(*head, 0, "B", event.quantity, listing.instrument.symbol, price, event.match_id)

    def frame(self, now_ns: int, midnight_ns: int) -> list[bytes]:
        """Return what is said of every instrument before its orders: R, d, y, Q if there is a close, H, and l if it has traded."""
        told: list[bytes] = []
        for listing in self._by_locate:
            head = (listing.locate, 0, _timestamp(now_ns, midnight_ns))
            told += map(encode, _frame(listing, head))
        return told

    def booked(self) -> list[tuple[int, BookedOrder]]:
        """Return the orders by reference, each queue from its front: who came later is behind."""
        return list(self.orders.items())

    def add_message(self, reference: int, order: BookedOrder, now_ns: int, midnight_ns: int) -> bytes:
        """Return A for an order that was booked before."""
        stock = self._by_locate[order.locate - 1].instrument.symbol
        head = (order.locate, 0, _timestamp(now_ns, midnight_ns))
        return encode(itch.AddOrder(*head, reference, order.side, order.shares, stock, order.price))


def _timestamp(time_ns: int, midnight_ns: int) -> int:
    return min(max(time_ns - midnight_ns, 0), _TIMESTAMP_MAX)


def _listing(state: VenueState, market: Market, locate: int) -> _Listing:
    units, symbol = market.instrument.prices.units, market.instrument.symbol
    price, quantity = market.last_price, market.last_quantity
    trade = state.trades.get(market.last_match_id)
    if trade is not None:
        price, quantity = trade.price, trade.quantity
    last = None
    if market.last_match_id and quantity:
        last = LastTrade(
            locate, 0, 0, symbol, quantity, price * units, market.last_match_id, date_number(market.last_trade_date), market.last_time_ns
        )
    return _Listing(
        market.instrument, locate, market.is_open, date_number(market.trade_date), market.close_price * units,
        date_number(market.close_date), last,
    )  # fmt: skip


def _trading_day(listing: _Listing, head: tuple[int, int, int]) -> TradingDay:
    return TradingDay(*head, listing.instrument.symbol, listing.trade_date, listing.close_date, listing.close_price)


def _trading_action(listing: _Listing, head: tuple[int, int, int]) -> itch.StockTradingAction:
    state, reason = (_TRADING, "") if listing.is_open else (_HALTED, _CLOSED_REASON)
    return itch.StockTradingAction(*head, listing.instrument.symbol, state, "", reason)


def _frame(listing: _Listing, head: tuple[int, int, int]) -> Iterator[Any]:
    instrument = listing.instrument
    stock, prices, lots = instrument.symbol, instrument.prices, instrument.quantities
    # A round lot of one lot; issue type not applicable; T: not a production feed.
    yield itch.StockDirectory(*head, stock, "", "", 1, "N", "", "Z", "T", "N", "", "", "N", 0, "N")
    kind = "E" if instrument.kind == "equity" else "C"
    yield InstrumentDefinition(
        *head, stock, stock, kind, instrument.currency, prices.scale, prices.units, lots.scale, lots.units, instrument.quantity_max
    )
    yield _trading_day(listing, head)
    if listing.close_price:
        yield itch.CrossTrade(*head, 0, stock, listing.close_price, 0, "C")
    yield _trading_action(listing, head)
    if listing.last is not None:
        yield listing.last._replace(timestamp_ns=head[2])
