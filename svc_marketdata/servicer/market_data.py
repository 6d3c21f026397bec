"""MarketDataService: what clients see of the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.paging import PageTokens, page_size
from kernel.ports import Clock
from kernel.server_context import CallContext
from kernel.streams import EnvelopeStream, ResumeTokens, heartbeat_seconds
from svc_marketdata.codec.messages import NANOSECONDS, book_message, listed_message, quote_message, trade_message
from svc_marketdata.servicer.feed import MarketFeed
from svc_marketdata.servicer.stream import MarketSource, mailbox_messages_max
from svc_marketdata.store.trades import MATCH_NUMBER_END, TradeKey, TradeStore
from trademesh.marketdata.v1 import market_data_service_pb2 as pb

DEPTH_DEFAULT = 10
PAGE_SIZE_MAX = 500
_TIME_END_NS = (1 << 63) - 1


class MarketDataServicer:
    """Shows the feed's present state, its trades on record, and streams of both."""

    def __init__(self, feed: MarketFeed, trades: TradeStore, page_tokens: PageTokens, resume_tokens: ResumeTokens, clock: Clock) -> None:
        self._feed = feed
        self._trades = trades
        self._page_tokens = page_tokens
        self._resume_tokens = resume_tokens
        self._clock = clock

    async def ListInstruments(self, request: pb.ListInstrumentsRequest, context: CallContext) -> pb.ListInstrumentsResponse:  # noqa: N802 (the contract's name)
        """List what the feed lists; see the contract."""
        self._feed.require_heard()
        after = self._page_tokens.read("listed", (self._feed.name,), request.page_token) or ""
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        names = [name for name in self._feed.venue.instrument_ids() if name > after]
        token = self._page_tokens.issue("listed", (self._feed.name,), names[size - 1]) if len(names) > size else ""
        markets = [self._feed.market(name) for name in names[:size]]
        listed = [listed_message(self._feed.name, market, self._feed.state(market)) for market in markets]
        return pb.ListInstrumentsResponse(instruments=listed, next_page_token=token)

    async def GetInstrument(self, request: pb.GetInstrumentRequest, context: CallContext) -> pb.GetInstrumentResponse:  # noqa: N802 (the contract's name)
        """Show an instrument; see the contract."""
        market = self._feed.market(request.instrument_id)
        return pb.GetInstrumentResponse(instrument=listed_message(self._feed.name, market, self._feed.state(market)))

    async def BatchGetQuotes(self, request: pb.BatchGetQuotesRequest, context: CallContext) -> pb.BatchGetQuotesResponse:  # noqa: N802 (the contract's name)
        """Show quotes; see the contract."""
        markets = [self._feed.market(name) for name in request.instrument_ids]
        context.batch_size = len(markets)
        return pb.BatchGetQuotesResponse(quotes=[quote_message(market, self._feed.state(market)) for market in markets])

    async def GetOrderBook(self, request: pb.GetOrderBookRequest, context: CallContext) -> pb.GetOrderBookResponse:  # noqa: N802 (the contract's name)
        """Show a book; see the contract."""
        market = self._feed.market(request.instrument_id)
        return pb.GetOrderBookResponse(book=book_message(market, self._feed.state(market), request.depth or DEPTH_DEFAULT))

    async def ListTrades(self, request: pb.ListTradesRequest, context: CallContext) -> pb.ListTradesResponse:  # noqa: N802 (the contract's name)
        """Show trades on record; see the contract. They outlive their instrument's listing."""
        start_ns = _nanoseconds(request.start_time) if request.HasField("start_time") else 0
        end_ns = _nanoseconds(request.end_time) if request.HasField("end_time") else _TIME_END_NS
        filters = (self._feed.name, request.instrument_id, str(start_ns), str(end_ns))
        key = self._page_tokens.read("trades", filters, request.page_token)
        before = TradeKey(end_ns, 0) if key is None else _trade_key(key)
        if key is None and end_ns == _TIME_END_NS:
            before = TradeKey(end_ns, MATCH_NUMBER_END)
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        rows = await self._trades.page(request.instrument_id, before=before, start_ns=start_ns, limit=size + 1)
        if not rows and key is None:
            self._feed.market(request.instrument_id)
        token = ""
        if len(rows) > size:
            last = rows[size - 1]
            token = self._page_tokens.issue("trades", filters, f"{last.time_ns}:{last.match_number}:{last.sequence}:{last.session}")
        return pb.ListTradesResponse(trades=[trade_message(self._feed.name, row) for row in rows[:size]], next_page_token=token)

    async def StreamMarketData(  # noqa: N802 (the contract's name)
        self, request: pb.StreamMarketDataRequest, context: CallContext
    ) -> AsyncIterator[pb.StreamMarketDataResponse]:
        """Stream what changes; see the contract."""
        for instrument_id in request.instrument_ids:
            self._feed.market(instrument_id)
        depth = request.depth or DEPTH_DEFAULT
        channels = sorted(request.channels)
        stream = EnvelopeStream(
            pb.StreamMarketDataResponse,
            MarketSource(self._feed, request.instrument_ids, channels, depth),
            context,
            self._resume_tokens,
            self._clock,
            filters=(self._feed.name, str(depth), ",".join(map(str, channels)), *sorted(request.instrument_ids)),
            heartbeat_seconds=heartbeat_seconds(request.heartbeat_interval),
            mailbox_messages_max=mailbox_messages_max(len(request.instrument_ids)),
        )
        async with aclosing(stream.run(request.resume_token)) as messages:
            async for message in messages:
                yield message


def _trade_key(text: str) -> TradeKey:
    time_ns, match_number, sequence, session = text.split(":", 3)
    return TradeKey(int(time_ns), int(match_number), session, int(sequence))


def _nanoseconds(moment: Timestamp) -> int:
    """The moment, no further off than PostgreSQL's bigint reaches: the years 1677 to 2262."""
    return min(max(moment.seconds * NANOSECONDS + moment.nanos, -_TIME_END_NS), _TIME_END_NS)
