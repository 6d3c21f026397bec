"""Trades as the feed tells them, and what a day's come to."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple

TRADES_KEPT_MAX = 20_000
"""Trades of the day and instrument that are kept one by one, for busts. Older ones are kept as sums."""


class Aggressor(IntEnum):
    """The side that met a resting order; numbers as in `trademesh.type.v1.Side`."""

    UNKNOWN = 0
    BUY = 1
    SELL = 2


class Trade(NamedTuple):
    """One trade. Price and quantity in units of the instrument's grids, time in nanoseconds since 1970, the day as the venue counts it.

    `session` and `sequence` name the feed's message that told of it, or of its bust.
    """

    instrument_id: str
    match_number: int
    price: int
    quantity: int
    aggressor: Aggressor
    trade_date: date
    time_ns: int
    session: str
    sequence: int
    busted: bool = False


class RecordedTrade(NamedTuple):
    """A trade as it was written down: as `Trade`, with price and quantity as decimals, because grids may change."""

    instrument_id: str
    match_number: int
    price: Decimal
    quantity: Decimal
    aggressor: Aggressor
    trade_date: date
    time_ns: int
    session: str
    sequence: int
    busted: bool


class _Sums(NamedTuple):
    """What trades that are no longer kept came to; zeros for none."""

    open: int = 0
    high: int = 0
    low: int = 0
    volume: int = 0


class TradingDay:
    """The trades of one instrument on one day: volume, open, high, low and last of those that stand.

    At most 20,000 trades are kept. A bust of an older one is not followed in open, high and low; the recorded trade is marked all the same.
    """

    __slots__ = ("_sums", "_trades", "high", "low", "open", "trade_date", "volume")

    def __init__(self) -> None:
        self._begin(None)

    def _begin(self, trade_date: date | None) -> None:
        self.trade_date = trade_date
        self._sums = _Sums()
        self._trades: dict[int, Trade] = {}
        self.volume = 0
        self.open: int | None = None
        self.high: int | None = None
        self.low: int | None = None

    @property
    def last(self) -> Trade | None:
        """Return the last trade that stands, None where none does."""
        return next(reversed(self._trades.values()), None)

    def find(self, match_number: int) -> Trade | None:
        """Return a trade that stands, None where it is unknown or no longer kept."""
        return self._trades.get(match_number)

    def add(self, trade: Trade) -> bool:
        """Count a trade; False where it was counted before, or is of an earlier day than the present one."""
        if trade.trade_date != self.trade_date:
            if self.trade_date is not None and trade.trade_date < self.trade_date:
                return False
            self._begin(trade.trade_date)
        if trade.match_number in self._trades:
            return False
        self._trades[trade.match_number] = trade
        price = trade.price
        if self.high is None or self.low is None:
            self.open = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.volume += trade.quantity
        if len(self._trades) > TRADES_KEPT_MAX:
            self._let_go()
        return True

    def bust(self, match_number: int) -> Trade | None:
        """Take a trade out of what counts; return it, None where it is not known."""
        trade = self._trades.pop(match_number, None)
        if trade is not None:
            self._count()
        return trade

    def _let_go(self) -> None:
        trade = self._trades.pop(next(iter(self._trades)))
        sums, price = self._sums, trade.price
        low = min(sums.low or price, price)
        self._sums = _Sums(sums.open or price, max(sums.high, price), low, sums.volume + trade.quantity)

    def _count(self) -> None:
        sums, trades = self._sums, self._trades.values()
        prices = [trade.price for trade in trades]
        self.volume = sums.volume + sum(trade.quantity for trade in trades)
        self.open = sums.open or (prices[0] if prices else None)
        self.high = max([*prices, *filter(None, [sums.high])], default=None)
        self.low = min([*prices, *filter(None, [sums.low])], default=None)
