"""A venue as its feed describes it: every instrument's book, day and phase, changed by one message after the other.

Nothing here waits or knows the time: messages carry the venue's. Whoever applies them asks afterwards what has changed (`take_changes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from enum import IntEnum
from typing import NamedTuple

from svc_marketdata.domain.book import BookError, OrderBook
from svc_marketdata.domain.instrument import ListedInstrument
from svc_marketdata.domain.trades import Aggressor, Bust, RecordedDay, Trade, TradingDay


class BookState(IntEnum):
    """Whether what is shown is what the venue has; numbers as in `trademesh.marketdata.v1.BookState`."""

    LIVE = 1
    STALE = 2
    CLOSED = 3


class Close(NamedTuple):
    """An official close: its price, in units of the price grid, and the day that it closed."""

    price: int
    day: date


class Market:
    """One instrument.

    Attributes:
        instrument: what the feed lists.
        book: its orders.
        day: its trades of the latest day that had any.
        trade_date: the day that trades are of from now on; None before the feed has said it.
        prior_close: the last official close before it; None where none is known.
        is_open: whether its session is open.
        is_continuous: whether the book has missed nothing.
        session, sequence: the feed's message that changed it last; empty and 0 before the first.
        time_ns: when the venue made that change; 0 before the first.
    """

    __slots__ = (
        "_before", "book", "day", "instrument", "is_continuous", "is_open", "prior_close", "sequence", "session", "time_ns", "trade_date",
    )  # fmt: skip

    def __init__(self, instrument: ListedInstrument) -> None:
        self.instrument = instrument
        self.book = OrderBook()
        self.day = TradingDay()
        self.trade_date: date | None = None
        self.prior_close: Close | None = None
        self._before: Trade | None = None
        self.is_open = False
        self.is_continuous = False
        self.session = ""
        self.sequence = 0
        self.time_ns = 0

    @property
    def last_trade(self) -> Trade | None:
        """Return the last trade that stands: of the day, or what the feed has told of those before; None where none is known."""
        last, before = self.day.last, self._before
        return before if last is None or (before is not None and before.time_ns > last.time_ns) else last

    def remember(self, trade: Trade) -> bool:
        """Take the last trade before the feed's session; it counts into no day. Return whether trades were missed up to it."""
        known = self.last_trade
        self._before = trade
        return known is not None and known.time_ns < trade.time_ns

    def forget(self, match_number: int) -> Trade | None:
        """Take a trade out of what counts; return it, None where it is not known."""
        before = self._before
        if before is not None and before.match_number == match_number:
            self._before = None
        return self.day.bust(match_number)

    def count(self, recorded: RecordedDay | None) -> None:
        """Count the day that was recorded earlier."""
        if recorded is None:
            return
        prices, lots = self.instrument.price_grid, self.instrument.lot_grid
        for trade in recorded.trades:
            price, quantity = prices.count(trade.price), lots.count(trade.quantity)
            if price and quantity and not trade.busted:
                self.day.add(Trade(*trade._replace(price=price, quantity=quantity)))  # type: ignore[arg-type]  # now whole numbers
        volume, open_price = lots.count(recorded.volume), prices.count(recorded.open)
        high, low = prices.count(recorded.high), prices.count(recorded.low)
        if volume and open_price and high and low:
            self.day.carry(volume=volume, open_price=open_price, high=high, low=low)

    def inherit(self, earlier: Market) -> bool:
        """Go on with the day that was counted before a snapshot. Return whether trades were missed up to the snapshot."""
        told = self._before
        self.day, self._before = earlier.day, earlier._before
        return told is not None and self.remember(told)

    def state(self, *, feed_live: bool) -> BookState:
        """Return whether what is known of it is what the venue has. A crossed book never is."""
        if not feed_live or not self.is_continuous or self.book.is_crossed:
            return BookState.STALE
        return BookState.LIVE if self.is_open else BookState.CLOSED


class Venue:
    """All instruments of one feed, by the numbers (`locate`) that its messages use.

    Messages of unknown instruments, and changes that do not fit a book, make what is known of the instrument not continuous, until
    `adopt` brings a snapshot.

    Args:
        days: what was recorded earlier; each counts once its instrument is listed.
    """

    def __init__(self, days: Iterable[RecordedDay] = ()) -> None:
        self.session = ""
        self.sequence = 0
        self.misfits = 0
        self.tape_breaks = 0
        self._is_whole = False
        self.unknown_busts: list[Bust] = []
        self._markets: dict[int, Market] = {}
        self._by_id: dict[str, Market] = {}
        self._recorded = {day.instrument_id: day for day in days}
        self._changed: set[Market] = set()
        self._trades: list[Trade] = []

    @classmethod
    def empty(cls, session: str, sequence: int) -> Venue:
        """Return a venue at a place of the feed that lists nothing yet, and misses nothing of what it will."""
        venue = cls()
        venue.session, venue.sequence = session, sequence
        venue._is_whole = True
        return venue

    def __iter__(self) -> Iterator[Market]:
        """Iterate over all instruments."""
        return iter(self._by_id.values())

    def __len__(self) -> int:
        """Return how many instruments are listed."""
        return len(self._by_id)

    def market(self, instrument_id: str) -> Market | None:
        """Return an instrument, None for one that the feed does not list."""
        return self._by_id.get(instrument_id)

    def located(self, locate: int) -> Market | None:
        """Return the instrument of a number, None where the feed has listed none under it."""
        return self._markets.get(locate)

    def instrument_ids(self) -> list[str]:
        """Return the ids of all instruments, sorted."""
        return sorted(self._by_id)

    @property
    def is_continuous(self) -> bool:
        """Return whether no instrument misses anything."""
        return all(market.is_continuous and not market.book.is_crossed for market in self)

    def take_changes(self) -> tuple[set[Market], list[Trade]]:
        """Return the instruments that changed and the trades told since the last call, busts among them, in the feed's order."""
        changed, trades = self._changed, self._trades
        self._changed, self._trades = set(), []
        return changed, trades

    def list_instrument(self, locate: int, instrument: ListedInstrument) -> Market:
        """List an instrument, or list it again with what the feed now says of it."""
        market = self._by_id.get(instrument.instrument_id)
        if market is None:
            market = self._by_id[instrument.instrument_id] = Market(instrument)
            market.count(self._recorded.pop(instrument.instrument_id, None))
        market.instrument = instrument
        market.is_continuous = self._is_whole
        self._markets[locate] = market
        self._touch(market, 0)
        return market

    def set_phase(self, locate: int, time_ns: int, *, is_open: bool) -> None:
        """Open or close an instrument's session."""
        market = self._markets.get(locate)
        if market is not None:
            market.is_open = is_open
            self._touch(market, time_ns)

    def add(self, locate: int, time_ns: int, reference: int, *, is_bid: bool, quantity: int, price: int) -> None:
        """Book an order."""
        market = self._markets.get(locate)
        if market is None:
            self.misfits += 1
            return
        try:
            market.book.add(reference, is_bid=is_bid, quantity=quantity, price=price)
        except BookError:
            self._misfit(market)
        self._touch(market, time_ns)

    def execute(self, locate: int, time_ns: int, reference: int, quantity: int, match_number: int, price: int | None = None) -> None:
        """Execute a booked order, at its own price unless another one is given: a trade."""
        market = self._markets.get(locate)
        if market is None:
            self.misfits += 1
            return
        self._touch(market, time_ns)
        try:
            order = market.book.reduce(reference, quantity)
        except BookError:
            self._misfit(market)
            return
        aggressor = Aggressor.SELL if order.is_bid else Aggressor.BUY
        self._trade(market, match_number, order.price if price is None else price, quantity, aggressor, time_ns)

    def reduce(self, locate: int, time_ns: int, reference: int, quantity: int) -> None:
        """Take quantity from a booked order without a trade."""
        market = self._markets.get(locate)
        if market is None:
            self.misfits += 1
            return
        try:
            market.book.reduce(reference, quantity)
        except BookError:
            self._misfit(market)
        self._touch(market, time_ns)

    def delete(self, locate: int, time_ns: int, reference: int) -> None:
        """Remove a booked order."""
        market = self._markets.get(locate)
        if market is None:
            self.misfits += 1
            return
        try:
            market.book.delete(reference)
        except BookError:
            self._misfit(market)
        self._touch(market, time_ns)

    def replace(self, locate: int, time_ns: int, reference: int, new_reference: int, *, quantity: int, price: int) -> None:
        """Move a booked order under another reference."""
        market = self._markets.get(locate)
        if market is None:
            self.misfits += 1
            return
        try:
            market.book.replace(reference, new_reference, quantity=quantity, price=price)
        except BookError:
            self._misfit(market)
        self._touch(market, time_ns)

    def trade(self, locate: int, time_ns: int, match_number: int, *, quantity: int, price: int) -> None:
        """Tell a trade that changes no book."""
        market = self._markets.get(locate)
        if market is None:
            self.misfits += 1
            return
        self._touch(market, time_ns)
        self._trade(market, match_number, price, quantity, Aggressor.UNKNOWN, time_ns)

    def bust(self, locate: int, time_ns: int, match_number: int) -> None:
        """Break a trade: it no longer counts. `trade` with the same number corrects it."""
        market = self._markets.get(locate)
        if market is not None:
            self._touch(market, time_ns)
        trade = None if market is None else market.forget(match_number)
        if trade is None:
            self.unknown_busts.append(Bust(match_number, self.session, self.sequence))
            return
        self._trades.append(trade._replace(session=self.session, sequence=self.sequence, busted=True))

    def set_day(self, locate: int, trade_date: date | None, prior_close: Close | None) -> None:
        """Say what day an instrument's trades are of from now on, and its last close before."""
        market = self._markets.get(locate)
        if market is None:
            self.misfits += 1
            return
        market.trade_date = trade_date
        market.prior_close = prior_close
        self._touch(market, 0)

    def remember(self, locate: int, trade: Trade) -> None:
        """Take an instrument's last trade before the session or snapshot."""
        market = self._markets.get(locate)
        if market is not None:
            self.tape_breaks += market.remember(trade)
            self._touch(market, 0)

    def begin(self, session: str) -> None:
        """A session of the feed begins: books are empty, and instruments and orders are told anew by its messages.

        Nothing in them says when the last of the orders has been told, so no instrument is continuous until `adopt` brings a snapshot.
        """
        self.session, self.sequence = session, 0
        self._markets = {}
        self._is_whole = False
        for market in self:
            market.book.clear()
            market.is_continuous = False
            self._changed.add(market)

    def interrupt(self) -> None:
        """Messages are missing: no instrument is continuous until `adopt` brings a snapshot."""
        self.tape_breaks += 1
        self._is_whole = False
        for market in self:
            market.is_continuous = False
            self._changed.add(market)

    def adopt(self, snapshot: Venue) -> None:
        """Take over books and phases of a snapshot, which are continuous now, and drop instruments that it does not list.

        Days stay, with trades counted in that were told after the snapshot's moment and not known here.
        """
        told = [trade for trade in snapshot._trades if snapshot._by_id[trade.instrument_id].day.stands(trade)]
        before, self._by_id, self._markets = self._by_id, {}, {}
        self.session, self.sequence = snapshot.session, snapshot.sequence
        self._is_whole = True
        for locate, market in snapshot._markets.items():
            known = before.get(market.instrument.instrument_id)
            if known is None:
                market.count(self._recorded.pop(market.instrument.instrument_id, None))
            else:
                self.tape_breaks += market.inherit(known)
            self._markets[locate] = self._by_id[market.instrument.instrument_id] = market
        for trade in told:
            day = self._by_id[trade.instrument_id].day
            if not day.knows(trade.match_number) and day.add(trade):
                self._trades.append(trade)
        self._changed = set(self)

    def _trade(self, market: Market, match_number: int, price: int, quantity: int, aggressor: Aggressor, time_ns: int) -> None:
        trade_date = market.trade_date
        if trade_date is None:
            # The feed says the day before the first trade; without it nobody could tell the trade from another day's.
            self._misfit(market)
            return
        trade = Trade(
            market.instrument.instrument_id, match_number, price, quantity, aggressor, trade_date, time_ns, self.session, self.sequence
        )
        trade = market.day.restored(trade)
        if market.day.add(trade):
            self._trades.append(trade)

    def _misfit(self, market: Market) -> None:
        self.misfits += 1
        market.is_continuous = False

    def _touch(self, market: Market, time_ns: int) -> None:
        market.session = self.session
        market.sequence = self.sequence
        if time_ns:
            market.time_ns = time_ns
        self._changed.add(market)
