"""What a venue's feed comes to, pure: books, days of trades, instruments."""

from svc_marketdata.domain.book import BookError, Level, OrderBook, Resting
from svc_marketdata.domain.instrument import Grid, ListedInstrument, scaled_text
from svc_marketdata.domain.trades import Aggressor, Bust, RecordedDay, RecordedTrade, Trade, TradingDay
from svc_marketdata.domain.venue import BookState, Close, Market, Venue

__all__ = [
    "Aggressor",
    "BookError",
    "BookState",
    "Bust",
    "Close",
    "Grid",
    "Level",
    "ListedInstrument",
    "Market",
    "OrderBook",
    "RecordedDay",
    "RecordedTrade",
    "Resting",
    "Trade",
    "TradingDay",
    "Venue",
    "scaled_text",
]
