"""The feed as calls see it: the venue's present state, and every change once, in order, to whoever listens.

Changes are handed out in rounds, at most one in ten milliseconds: between two rounds quotes and books overtake themselves, and what a
round shows is built once for all listeners. Trades are all handed out, in the feed's order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kernel.errors import NotFoundError, Reason, UnavailableError
from kernel.ports import Clock
from kernel.streams import PositionExpiredError
from kernel.telemetry import Sample
from svc_marketdata.codec.messages import book_message, quote_message, recorded, trade_message
from svc_marketdata.domain import BookState, Bust, Market, RecordedTrade, Trade, Venue
from svc_marketdata.itch.liveness import Liveness
from trademesh.marketdata.v1 import market_data_pb2

ROUND_SECONDS = 0.01
RETRY_SECONDS = 0.5
TRADES_KEPT_MAX = 10_000
"""The latest trades that a resumed stream can be told; a client that was away for more begins with a snapshot."""


class Position(NamedTuple):
    """A place in the feed."""

    session: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.sequence}@{self.session}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse what `str` wrote; tokens that carry it are sealed."""
        sequence, _, session = text.partition("@")
        return cls(session, int(sequence))


class ToldTrade(NamedTuple):
    """A trade, or its bust, and the place of the message that told it."""

    position: Position
    message: market_data_pb2.Trade


class Round:
    """What changed since the last round. Messages are built on demand, once for all listeners."""

    def __init__(self, markets: frozenset[Market], quoted: frozenset[Market], trades: Sequence[ToldTrade], position: Position) -> None:
        self.markets = markets
        self.quoted = quoted
        self.trades = trades
        self.position = position
        self._books: dict[tuple[Market, int], market_data_pb2.OrderBook] = {}
        self._quotes: dict[Market, market_data_pb2.Quote] = {}

    def quote(self, market: Market, state: BookState) -> market_data_pb2.Quote:
        """Return an instrument's quote."""
        message = self._quotes.get(market)
        if message is None:
            message = self._quotes[market] = quote_message(market, state)
        return message

    def book(self, market: Market, state: BookState, depth: int) -> market_data_pb2.OrderBook:
        """Return an instrument's book."""
        message = self._books.get((market, depth))
        if message is None:
            message = self._books[market, depth] = book_message(market, state, depth)
        return message


class Listener(Protocol):
    """Who is told of changes."""

    def take(self, changes: Round) -> None:
        """Take a round. Must not block."""
        ...

    def lose_tape(self) -> None:
        """Take notice that trades are missing, before the round that goes on after them."""
        ...


class TradeSink(Protocol):
    """Where trades are written down."""

    def take(self, told: Sequence[RecordedTrade | Bust]) -> None:
        """Take trades and busts to write, in any order. Must not block."""
        ...


class MarketFeed:
    """One venue's feed.

    Args:
        name: of the venue.
        venue: its state; the receiver changes it and calls `notify`.
        liveness: when the feed was last heard of; the receiver's too.
        recovering: says whether messages are missing that the receiver is asking for.
        sink: takes every trade.
        clock: monotonic time for liveness, wall time for what is shown.
    """

    def __init__(self, name: str, venue: Venue, liveness: Liveness, recovering: Callable[[], bool], sink: TradeSink, clock: Clock) -> None:
        self.name = name
        self.venue = venue
        self._liveness = liveness
        self._recovering = recovering
        self._sink = sink
        self._clock = clock
        self._listeners: dict[Listener, None] = {}
        self._told: deque[ToldTrade] = deque()
        self._told_after = Position("", 0)
        self._tape_breaks = venue.tape_breaks
        self._shown: dict[str, tuple[object, ...]] = {}
        self._was_continuous = False
        # Busts of trades that only the record may know, until it says whether it does.
        self._unknown_busts: set[int] = set()
        self._round: asyncio.TimerHandle | None = None
        self._round_at = 0.0
        self.trades_told = 0

    @property
    def is_live(self) -> bool:
        """Return whether the feed was heard of within two seconds."""
        return self._liveness.is_live(self._clock.monotonic())

    @property
    def is_continuous(self) -> bool:
        """Return whether the feed is live and nothing of it is being asked for again; what is shown meanwhile is old."""
        return self.is_live and not self._recovering()

    @property
    def heard_time_ns(self) -> int:
        """Return when the feed was last heard of, on the wall clock; 0 for never."""
        heard_at = self._liveness.heard_at
        return 0 if heard_at is None else self._clock.now_ns() - round((self._clock.monotonic() - heard_at) * 1e9)

    @property
    def position(self) -> Position:
        """Return the place up to which everything is known."""
        return Position(self.venue.session, self.venue.sequence)

    def require_heard(self) -> None:
        """Check that the feed has said what it lists.

        Raises:
            UnavailableError: MARKET_DATA_STALE, it has not been received since the start; what exists is not known.
        """
        if not len(self.venue):
            text = f"the feed of {self.name} has not been received yet"
            raise UnavailableError(Reason.MARKET_DATA_STALE, text, retry_after_seconds=RETRY_SECONDS)

    def market(self, instrument_id: str) -> Market:
        """Return an instrument.

        Raises:
            UnavailableError: MARKET_DATA_STALE, the feed has not been received since the start.
            NotFoundError: INSTRUMENT_NOT_FOUND, the feed does not list it.
        """
        self.require_heard()
        market = self.venue.market(instrument_id)
        if market is None:
            text = f"the feed of {self.name} does not list {instrument_id}"
            raise NotFoundError(Reason.INSTRUMENT_NOT_FOUND, text, metadata={"instrument_id": instrument_id})
        return market

    def state(self, market: Market) -> BookState:
        """Return whether what is known of an instrument is what the venue has."""
        return market.state(feed_live=self.is_continuous)

    def enter(self, listener: Listener) -> None:
        """Hand the listener every later round; what happened before it is in the state."""
        self.flush()
        self._listeners[listener] = None

    def leave(self, listener: Listener) -> None:
        """Forget a listener."""
        self._listeners.pop(listener, None)

    def trades_after(self, position: Position) -> list[ToldTrade]:
        """Return every trade told after a place.

        Raises:
            PositionExpiredError: not all of them are known any more, or the place is of another session.
        """
        if position.session != self.venue.session or position.session != self._told_after.session:
            raise PositionExpiredError
        if not self._told_after.sequence <= position.sequence <= self.venue.sequence:
            raise PositionExpiredError
        return [told for told in self._told if told.position.sequence > position.sequence]

    def notify(self) -> None:
        """Something may have changed: a round follows soon."""
        if self._round is None:
            loop = asyncio.get_running_loop()
            self._round = loop.call_at(max(loop.time(), self._round_at + ROUND_SECONDS), self.flush)

    def flush(self) -> None:
        """Hand out what has changed, now."""
        if self._round is not None:
            self._round.cancel()
            self._round = None
        self._round_at = asyncio.get_running_loop().time()
        changed, trades = self.venue.take_changes()
        continuous = self.is_continuous
        if continuous is not self._was_continuous:
            self._was_continuous = continuous
            changed = set(self.venue)
        busts, self.venue.unknown_busts = self.venue.unknown_busts, []
        if not (changed or trades or busts):
            return
        told = self._tell(trades, busts)
        quoted = frozenset(market for market in changed if self._is_news(market))
        self._hand_out(Round(frozenset(changed), quoted, told, self.position))

    def tell_busts(self, trades: Sequence[RecordedTrade]) -> None:
        """Tell of busted trades that only the record knew; `trades` are all that it has marked."""
        latest = {trade.match_number: trade for trade in sorted(trades, key=lambda trade: (trade.session, trade.sequence))}
        unknown = self._unknown_busts & latest.keys()
        self._unknown_busts -= unknown
        told = [ToldTrade(self.position, trade_message(self.name, latest[number])) for number in sorted(unknown)]
        if told:
            self._keep(told)
            self._hand_out(Round(frozenset(), frozenset(), told, self.position))

    def samples(self) -> list[Sample]:
        """Return the feed's metrics."""
        labels = (("venue", self.name),)
        stale = sum(self.state(market) is BookState.STALE for market in self.venue)
        return [
            Sample("feed_live", self.is_live, labels),
            Sample("feed_instruments", len(self.venue), labels),
            Sample("feed_stale_instruments", stale, labels),
            Sample("feed_misfits_total", self.venue.misfits, labels),
            Sample("feed_tape_breaks_total", self.venue.tape_breaks, labels),
            Sample("feed_trades_total", self.trades_told, labels),
            Sample("feed_listeners", len(self._listeners), labels),
        ]

    def _hand_out(self, changes: Round) -> None:
        for listener in tuple(self._listeners):
            listener.take(changes)

    def _tell(self, trades: Sequence[Trade], busts: Sequence[Bust]) -> list[ToldTrade]:
        """Write the trades down, keep them for resumed streams, and return them as messages."""
        venue = self.venue
        written = [recorded(self.market(trade.instrument_id).instrument, trade) for trade in trades]
        if written or busts:
            self._unknown_busts |= {bust.match_number for bust in busts}
            if len(self._unknown_busts) > TRADES_KEPT_MAX:
                # The record knew none of so many; what it may still say of them is left out.
                self._unknown_busts.clear()
            facts = [Bust(trade.match_number, trade.session, trade.sequence) if trade.busted else trade for trade in written]
            self._sink.take([*facts, *busts])
        self.trades_told += len(written)
        told = [ToldTrade(Position(trade.session, trade.sequence), trade_message(self.name, trade)) for trade in written]
        if venue.session != self._told_after.session:
            self._told.clear()
            self._told_after = Position(venue.session, 0)
        if venue.tape_breaks != self._tape_breaks or not self._is_in_order(told):
            self._tape_breaks = venue.tape_breaks
            self._told.clear()
            self._told_after = self.position
            for listener in tuple(self._listeners):
                listener.lose_tape()
            return told
        self._keep(told)
        return told

    def _keep(self, told: Sequence[ToldTrade]) -> None:
        self._told += (trade for trade in told if trade.position.session == self._told_after.session)
        while len(self._told) > TRADES_KEPT_MAX:
            self._told_after = self._told.popleft().position

    def _is_in_order(self, told: Sequence[ToldTrade]) -> bool:
        """Trades that a snapshot has brought to light may be older than what was told: no stream can put them in their place."""
        last = self._told[-1].position if self._told else self._told_after
        sequences = [trade.position.sequence for trade in told if trade.position.session == last.session]
        return sequences == sorted(sequences) and (not sequences or sequences[0] > last.sequence)

    def _is_news(self, market: Market) -> bool:
        """Whether the quote differs from the one shown last; changes deep in the book leave it as it was."""
        day, book = market.day, market.book
        touch = self.state(market), book.best_bid, book.best_ask, market.last_trade, market.prior_close
        shows = (*touch, day.volume, day.open, day.high, day.low)
        name = market.instrument.instrument_id
        if self._shown.get(name) == shows:
            return False
        self._shown[name] = shows
        return True
