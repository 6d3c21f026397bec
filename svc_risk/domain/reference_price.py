"""The price that an order is judged against, and when it may be trusted.

Fresh means: the feed gave a sign of life within two seconds, by the receiver's clock, and did not declare the instrument stale. A fresh
reference is the middle of best bid and offer, else the last trade, else a dated prior close, which has a wider collar of its own.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

FEED_AGE_MAX = timedelta(seconds=2)
PRIOR_CLOSE_DAYS_MAX = 7
"""A prior close older than this many days is no reference: the longest regular market holiday is shorter."""

_HALF = Decimal("0.5")


class PriceSource(StrEnum):
    """Where a reference price comes from."""

    MID = "mid"
    LAST_TRADE = "last trade"
    PRIOR_CLOSE = "prior close"


class Quote(NamedTuple):
    """What the feed last said of an instrument; prices above zero, None where it said nothing."""

    bid: Decimal | None
    ask: Decimal | None
    last_trade: Decimal | None
    prior_close: Decimal | None
    prior_close_date: date | None
    stale: bool


class ReferencePrice(NamedTuple):
    """A price, its source, and whether an order may be approved on it. A price that is not fresh still values positions."""

    price: Decimal
    source: PriceSource
    fresh: bool


def reference_price(quote: Quote, heartbeat: datetime | None, now: datetime) -> ReferencePrice | None:
    """Return the reference price of an instrument, None where the feed never named one.

    Args:
        quote: what the feed last said.
        heartbeat: when the feed last gave a sign of life, None for never; on the same clock as `now`.
        now: the moment of the decision.
    """
    live = heartbeat is not None and now - heartbeat <= FEED_AGE_MAX and not quote.stale
    if quote.bid is not None and quote.ask is not None and quote.bid <= quote.ask:
        return ReferencePrice((quote.bid + quote.ask) * _HALF, PriceSource.MID, live)
    if quote.last_trade is not None:
        return ReferencePrice(quote.last_trade, PriceSource.LAST_TRADE, live)
    if quote.prior_close is not None and quote.prior_close_date is not None:
        dated = abs((now.date() - quote.prior_close_date).days) <= PRIOR_CLOSE_DAYS_MAX
        return ReferencePrice(quote.prior_close, PriceSource.PRIOR_CLOSE, live and dated)
    return None
