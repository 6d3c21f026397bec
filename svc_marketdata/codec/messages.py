"""What the feed has told, as the contract shows it."""

from __future__ import annotations

from datetime import date

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.values import format_decimal
from svc_marketdata.domain import BookState, Level, ListedInstrument, Market, RecordedTrade, Trade
from trademesh.marketdata.v1 import market_data_pb2, reference_price_service_pb2

NANOSECONDS = 1_000_000_000


def timestamp(time_ns: int) -> Timestamp | None:
    """Return a moment on the wire, None for 0, which is none."""
    return Timestamp(seconds=time_ns // NANOSECONDS, nanos=time_ns % NANOSECONDS) if time_ns else None


def _day(day: date | None) -> str:
    return "" if day is None else day.isoformat()


def listed_message(venue: str, market: Market, state: BookState) -> market_data_pb2.ListedInstrument:
    """Return an instrument of the feed."""
    instrument, close = market.instrument, market.prior_close
    return market_data_pb2.ListedInstrument(
        instrument_id=instrument.instrument_id,
        currency=instrument.currency,
        venue=venue,
        tick_size=format_decimal(instrument.tick_size),
        lot_size=instrument.lot_grid.text(1),
        price_scale=instrument.price_grid.scale,
        state=int(state),  # type: ignore[arg-type]  # equal numbers, by a test
        open=market.is_open,
        trade_date=_day(market.trade_date),
        prior_close=None if close is None else instrument.price_grid.text(close.price),
        prior_close_date="" if close is None else close.day.isoformat(),
    )


def quote_message(market: Market, state: BookState) -> market_data_pb2.Quote:
    """Return the touch, the last trade and the day of an instrument."""
    prices, lots = market.instrument.price_grid, market.instrument.lot_grid
    bid, ask, last = market.book.best_bid, market.book.best_ask, market.last_trade
    day, close = market.day, market.prior_close
    return market_data_pb2.Quote(
        instrument_id=market.instrument.instrument_id,
        bid_price=None if bid is None else prices.text(bid.price),
        bid_quantity=None if bid is None else lots.text(bid.quantity),
        ask_price=None if ask is None else prices.text(ask.price),
        ask_quantity=None if ask is None else lots.text(ask.quantity),
        last_price=None if last is None else prices.text(last.price),
        last_quantity=None if last is None else lots.text(last.quantity),
        last_trade_time=None if last is None else timestamp(last.time_ns),
        volume=lots.text(day.volume),
        open_price=None if day.open is None else prices.text(day.open),
        high_price=None if day.high is None else prices.text(day.high),
        low_price=None if day.low is None else prices.text(day.low),
        trade_date=_day(day.trade_date),
        prior_close=None if close is None else prices.text(close.price),
        prior_close_date="" if close is None else close.day.isoformat(),
        state=int(state),  # type: ignore[arg-type]  # equal numbers, by a test
        feed_session=market.session,
        sequence=market.sequence,
        venue_time=timestamp(market.time_ns),
    )


def book_message(market: Market, state: BookState, depth: int) -> market_data_pb2.OrderBook:
    """Return the best `depth` levels of each side."""
    return market_data_pb2.OrderBook(
        instrument_id=market.instrument.instrument_id,
        bids=[_level(market.instrument, level) for level in market.book.bids(depth)],
        asks=[_level(market.instrument, level) for level in market.book.asks(depth)],
        state=int(state),  # type: ignore[arg-type]  # equal numbers, by a test
        feed_session=market.session,
        sequence=market.sequence,
        venue_time=timestamp(market.time_ns),
    )


def _level(instrument: ListedInstrument, level: Level) -> market_data_pb2.PriceLevel:
    return market_data_pb2.PriceLevel(
        price=instrument.price_grid.text(level.price),
        quantity=instrument.lot_grid.text(level.quantity),
        order_count=level.order_count,
    )


def recorded(instrument: ListedInstrument, trade: Trade) -> RecordedTrade:
    """Return a trade as it is written down."""
    price, quantity = instrument.price_grid.decimal(trade.price), instrument.lot_grid.decimal(trade.quantity)
    return RecordedTrade(*trade._replace(price=price, quantity=quantity))  # type: ignore[arg-type]  # now decimals


def trade_message(venue: str, trade: RecordedTrade) -> market_data_pb2.Trade:
    """Return a trade."""
    return market_data_pb2.Trade(
        instrument_id=trade.instrument_id,
        venue=venue,
        match_number=trade.match_number,
        trade_date=trade.trade_date.isoformat(),
        price=format_decimal(trade.price),
        quantity=format_decimal(trade.quantity),
        aggressor_side=int(trade.aggressor),  # type: ignore[arg-type]  # equal numbers, by a test
        trade_time=timestamp(trade.time_ns),
        busted=trade.busted,
    )


def reference_message(market: Market, state: BookState) -> reference_price_service_pb2.ReferencePrice:
    """Return what orders and positions are valued with."""
    prices = market.instrument.price_grid
    bid, ask, last, close = market.book.best_bid, market.book.best_ask, market.last_trade, market.prior_close
    return reference_price_service_pb2.ReferencePrice(
        instrument_id=market.instrument.instrument_id,
        bid=None if bid is None else prices.text(bid.price),
        ask=None if ask is None else prices.text(ask.price),
        last_trade=None if last is None else prices.text(last.price),
        prior_close=None if close is None else prices.text(close.price),
        prior_close_date="" if close is None else close.day.isoformat(),
        stale=state is BookState.STALE,
        open=market.is_open,
        venue_time=timestamp(market.time_ns),
    )
