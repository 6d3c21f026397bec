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


class Bust(NamedTuple):
    """Everything told under a match number before a place of the feed is void. A correction is a bust and another trade of that number."""

    match_number: int
    session: str
    sequence: int


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


class RecordedDay(NamedTuple):
    """A day of one instrument as it was written down: what all its trades come to that stand, and the latest of them, oldest first."""

    instrument_id: str
    trade_date: date
    volume: Decimal
    open: Decimal
    high: Decimal
    low: Decimal
    trades: tuple[RecordedTrade, ...]


class _Sums(NamedTuple):
    """What trades that are no longer kept came to; zeros for none."""

    open: int = 0
    high: int = 0
    low: int = 0
    volume: int = 0


class TradingDay:
    """The trades of one instrument on one day: volume, open, high, low and last of those that stand, None where none does.

    At most 20,000 trades are kept. A bust of an older one is not followed in open, high and low; the recorded trade is marked all the same.
    """

    __slots__ = ("_broken", "_sums", "_trades", "high", "last", "low", "open", "trade_date", "volume")

    def __init__(self) -> None:
        self._begin(None)

    def _begin(self, trade_date: date | None) -> None:
        self.trade_date = trade_date
        self._sums = _Sums()
        self._trades: dict[int, Trade] = {}
        self._broken: dict[int, Trade] = {}
        self.last: Trade | None = None
        self.volume = 0
        self.open: int | None = None
        self.high: int | None = None
        self.low: int | None = None

    def carry(self, *, volume: int, open_price: int, high: int, low: int) -> None:
        """Count in what all of the day's trades come to, where only the latest of them were added."""
        rest = volume - self.volume
        if rest > 0:
            self._sums = _Sums(open_price, high, low, rest)
            self._count()

    def knows(self, match_number: int) -> bool:
        """Return whether a trade was told, standing or busted."""
        return match_number in self._trades or match_number in self._broken

    def stands(self, trade: Trade) -> bool:
        """Return whether a trade is counted as it is."""
        return self._trades.get(trade.match_number) == trade

    def restored(self, trade: Trade) -> Trade:
        """Return a trade as it is counted: the correction of a busted one has that one's time and side."""
        broken = self._broken.get(trade.match_number)
        return trade if broken is None else trade._replace(time_ns=broken.time_ns, aggressor=broken.aggressor)

    def add(self, trade: Trade) -> bool:
        """Count a trade; False where it was counted before, or is of an earlier day than the present one."""
        if trade.trade_date != self.trade_date:
            if self.trade_date is not None and trade.trade_date < self.trade_date:
                return False
            self._begin(trade.trade_date)
        if trade.match_number in self._trades:
            return False
        self._trades[trade.match_number] = trade
        if self.last is not None and trade.time_ns < self.last.time_ns:
            # A correction takes the place of what it corrects.
            self._count()
        else:
            self.last = trade
            self.volume += trade.quantity
            self.open = trade.price if self.open is None else self.open
            self.high = trade.price if self.high is None else max(self.high, trade.price)
            self.low = trade.price if self.low is None else min(self.low, trade.price)
        if len(self._trades) > TRADES_KEPT_MAX:
            self._let_go()
        return True

    def bust(self, match_number: int) -> Trade | None:
        """Take a trade out of what counts; return it, None where it is not known."""
        trade = self._trades.pop(match_number, None)
        if trade is not None:
            self._broken[match_number] = trade
            self._count()
        return trade

    def _let_go(self) -> None:
        trade = self._trades.pop(next(iter(self._trades)))
        sums, price = self._sums, trade.price
        low = min(sums.low or price, price)
        self._sums = _Sums(sums.open or price, max(sums.high, price), low, sums.volume + trade.quantity)

    def _count(self) -> None:
        sums, trades = self._sums, sorted(self._trades.values(), key=lambda trade: trade.time_ns)
        self.last = trades[-1] if trades else None
        prices = [trade.price for trade in trades]
        self.volume = sums.volume + sum(trade.quantity for trade in trades)
        self.open = sums.open or (prices[0] if prices else None)
        self.high = max([*prices, *filter(None, [sums.high])], default=None)
        self.low = min([*prices, *filter(None, [sums.low])], default=None)
