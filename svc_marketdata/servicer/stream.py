"""One client's stream of market data: conflated quotes and books, every trade (`kernel.streams.Source`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from kernel.streams import Item, Mailbox
from svc_marketdata.codec.messages import book_message, quote_message, recorded, trade_message
from svc_marketdata.domain import Market
from svc_marketdata.servicer.feed import MarketFeed, Position, Round
from trademesh.marketdata.v1 import market_data_pb2, market_data_service_pb2
from trademesh.type.v1 import stream_pb2

SNAPSHOT_INSTRUMENTS_MAX = 20
WAITING_TRADES_MAX = 4_096
"""Trades that may wait for a client; a healthy one must outlast what a recovered gap brings at once."""

_SNAPSHOT_UNFINISHED = "snapshot"

Response = market_data_service_pb2.StreamMarketDataResponse
Channel = market_data_service_pb2.MarketDataChannel


def mailbox_messages_max(instruments: int) -> int:
    """Return how many messages may wait for a client: trades, and a quote and a book of each instrument."""
    return WAITING_TRADES_MAX + 2 * instruments


class MarketSource:
    """One client's selection of the feed."""

    def __init__(self, feed: MarketFeed, instrument_ids: Sequence[str], channels: Sequence[Channel.ValueType], depth: int) -> None:
        self._feed = feed
        self._ids = dict.fromkeys(instrument_ids)
        self._quotes = market_data_service_pb2.MARKET_DATA_CHANNEL_QUOTES in channels
        self._books = market_data_service_pb2.MARKET_DATA_CHANNEL_BOOK in channels
        self._trades = market_data_service_pb2.MARKET_DATA_CHANNEL_TRADES in channels
        self._depth = depth
        self._mailbox: Mailbox[Response] | None = None
        # What waits in the mailbox and may still be overtaken, by channel and instrument.
        self._waiting: dict[tuple[str, str], Response] = {}

    async def snapshot(self, mailbox: Mailbox[Response]) -> AsyncIterator[Item[Response]]:
        """See `Source.snapshot`. All instruments are shown at one moment, and every later change reaches the mailbox."""
        self._begin(mailbox)
        position = str(self._feed.position)
        ids = list(self._ids)
        shown = [self._shown(self._feed.market(instrument_id)) for instrument_id in ids]
        for start in range(0, len(shown), SNAPSHOT_INSTRUMENTS_MAX):
            complete = start + SNAPSHOT_INSTRUMENTS_MAX >= len(shown)
            page = market_data_service_pb2.MarketDataSnapshot(
                instruments=shown[start : start + SNAPSHOT_INSTRUMENTS_MAX], complete=complete
            )
            # A stream that breaks inside a snapshot begins it anew: what it has seen is only a part.
            yield Item(Response(snapshot=page), position if complete else _SNAPSHOT_UNFINISHED)

    async def resume(self, position: str, mailbox: Mailbox[Response]) -> None:
        """See `Source.resume`. Trades go on after the position; quotes and books come once in their present state."""
        missed = []
        if self._trades:
            # An unfinished snapshot has no place in the feed, and expires as one of another session does.
            place = Position("", 0) if position == _SNAPSHOT_UNFINISHED else Position.parse(position)
            self._feed.flush()
            missed = self._feed.trades_after(place)
        self._begin(mailbox)
        markets = frozenset(market for name in self._ids if (market := self._feed.venue.market(name)) is not None)
        self.take(Round(markets, markets, missed, self._feed.position))

    async def close(self) -> None:
        """See `Source.close`."""
        self._feed.leave(self)

    def take(self, changes: Round) -> None:
        """See `Listener.take`."""
        mailbox = self._mailbox
        assert mailbox is not None
        if self._trades:
            for position, message in changes.trades:
                if message.instrument_id in self._ids:
                    event = market_data_service_pb2.MarketDataEvent(trade=message)
                    if not mailbox.put(Item(Response(event=event), str(position))):
                        return
        for market in changes.markets:
            if market.instrument.instrument_id in self._ids:
                self._overtake(market, changes, str(changes.position))

    def lose_tape(self) -> None:
        """See `Listener.lose_tape`."""
        if self._trades and self._mailbox is not None and self._mailbox.resync_reason is None:
            self._mailbox.request_resync(stream_pb2.STREAM_RESYNC_REASON_SOURCE_GAP)

    def _begin(self, mailbox: Mailbox[Response]) -> None:
        # Not told of what the entry flushes: the state that is shown next has it.
        self._feed.leave(self)
        self._mailbox = mailbox
        self._waiting.clear()
        self._feed.enter(self)

    def _shown(self, market: Market) -> market_data_service_pb2.InstrumentSnapshot:
        state, last = self._feed.state(market), market.last_trade
        return market_data_service_pb2.InstrumentSnapshot(
            instrument_id=market.instrument.instrument_id,
            quote=quote_message(market, state) if self._quotes else None,
            book=book_message(market, state, self._depth) if self._books else None,
            last_trade=trade_message(self._feed.name, recorded(market.instrument, last)) if self._trades and last is not None else None,
        )

    def _overtake(self, market: Market, changes: Round, position: str) -> None:
        state = self._feed.state(market)
        if self._quotes and market in changes.quoted:
            self._put("quote", market, changes.quote(market, state), position)
        if self._books:
            self._put("book", market, changes.book(market, state, self._depth), position)

    def _put(self, channel: str, market: Market, latest: market_data_pb2.Quote | market_data_pb2.OrderBook, position: str) -> None:
        """Show the latest state: in the place of an earlier one that still waits, else behind everything else."""
        key = channel, market.instrument.instrument_id
        waiting = self._waiting.get(key)
        # The stream numbers a message when it takes it out of the mailbox.
        if waiting is None or waiting.sequence:
            waiting = self._waiting[key] = Response()
            self._copy(waiting, latest)
            assert self._mailbox is not None
            self._mailbox.put(Item(waiting, position))
        else:
            self._copy(waiting, latest)
            waiting.event.conflated_count += 1

    @staticmethod
    def _copy(response: Response, latest: market_data_pb2.Quote | market_data_pb2.OrderBook) -> None:
        if isinstance(latest, market_data_pb2.Quote):
            response.event.quote.CopyFrom(latest)
        else:
            response.event.book.CopyFrom(latest)
