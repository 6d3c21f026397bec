"""What positions are worth: marks, market values, and sums by currency. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from enum import IntEnum
from typing import NamedTuple

from kernel.values import SCALE_MAX, ZERO
from svc_portfolio.domain.position import EXACT, Position

_QUANTUM = Decimal(1).scaleb(-SCALE_MAX)
_TWO = Decimal(2)


class MarkSource(IntEnum):
    """Where a mark comes from, with the contract's numbers."""

    MID = 1
    LAST_TRADE = 2
    PRIOR_CLOSE = 3


@dataclass(frozen=True, slots=True)
class Mark:
    """A price to value with; `stale` where it is the last one known and not a fresh one."""

    price: Decimal
    source: MarkSource
    venue_time: datetime | None
    stale: bool


class Quote(NamedTuple):
    """What a venue said last of an instrument; None for what it never said. `stale` where its book is not continuous."""

    bid: Decimal | None
    ask: Decimal | None
    last_trade: Decimal | None
    prior_close: Decimal | None
    venue_time: datetime | None
    stale: bool


def mark_of(quote: Quote, *, live: bool) -> Mark | None:
    """Return the mark of a quote: the mid, else the last trade, else the prior close; None where there is no price at all.

    Args:
        quote: the latest.
        live: whether its feed is; else the mark is stale.
    """
    stale = quote.stale or not live
    if quote.bid is not None and quote.ask is not None:
        middle = EXACT.divide(EXACT.add(quote.bid, quote.ask), _TWO).quantize(_QUANTUM, rounding=ROUND_HALF_EVEN, context=EXACT)
        return Mark(middle, MarkSource.MID, quote.venue_time, stale)
    if quote.last_trade is not None:
        return Mark(quote.last_trade, MarkSource.LAST_TRADE, quote.venue_time, stale)
    if quote.prior_close is not None:
        return Mark(quote.prior_close, MarkSource.PRIOR_CLOSE, quote.venue_time, stale)
    return None


def market_value(position: Position, mark: Mark) -> Decimal:
    """Return quantity times price, exact; below zero for a short position."""
    return EXACT.multiply(position.quantity, mark.price)


def unrealised(position: Position, mark: Mark) -> Decimal:
    """Return market value less cost, exact."""
    return EXACT.subtract(market_value(position, mark), position.cost)


def rounded(amount: Decimal) -> Decimal:
    """Return an exact amount as it is shown: to 18 places, half to even."""
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)
    return amount if exponent >= -SCALE_MAX else amount.quantize(_QUANTUM, rounding=ROUND_HALF_EVEN, context=EXACT)


class Holding(NamedTuple):
    """A position of an account as it is shown. `currency` and `venue` are empty while the instrument is unknown."""

    account_id: str
    instrument_id: str
    position: Position
    currency: str
    venue: str


@dataclass(slots=True)
class Total:
    """Sums in one currency; `value` and `unrealised` are None until a marked position is added."""

    currency: str
    cost: Decimal = ZERO
    realised: Decimal = ZERO
    value: Decimal | None = None
    unrealised: Decimal | None = None
    unmarked: int = 0
    stale: bool = False

    def add(self, position: Position, realised: Decimal, mark: Mark | None) -> None:
        """Add a position with the realised profit that counts for it; a flat one needs no mark."""
        self.cost = EXACT.add(self.cost, position.cost)
        self.realised = EXACT.add(self.realised, realised)
        if not position.quantity:
            return
        if mark is None:
            self.unmarked += 1
            return
        self.value = EXACT.add(self.value or ZERO, market_value(position, mark))
        self.unrealised = EXACT.add(self.unrealised or ZERO, unrealised(position, mark))
        self.stale = self.stale or mark.stale


def totals(holdings: Iterable[tuple[Holding, Decimal, Mark | None]]) -> tuple[list[Total], int]:
    """Return the sums by currency, and how many holdings are in none because their currency is not known.

    Args:
        holdings: each with the realised profit that counts, and its mark.
    """
    sums: dict[str, Total] = {}
    unknown = 0
    for holding, realised, mark in holdings:
        if not holding.currency:
            unknown += 1
            continue
        sums.setdefault(holding.currency, Total(holding.currency)).add(holding.position, realised, mark)
    return [sums[currency] for currency in sorted(sums)], unknown
