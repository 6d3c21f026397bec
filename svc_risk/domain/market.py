"""The market of an instrument as a transaction finds it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from svc_risk.domain.policy import InstrumentPolicy, LimitValue
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.vocabulary import LimitType


class Market(NamedTuple):
    """An instrument's market at one moment, the same for all orders of a transaction. Made by `market`.

    `edges` are the lowest and highest limit price within the collar; None where no order passes, whatever its price: the market is closed,
    there is no fresh reference price, or no collar for its source.
    """

    reference: ReferencePrice | None
    is_open: bool
    edges: tuple[Decimal, Decimal] | None


def market(instrument: InstrumentPolicy | None, reference: ReferencePrice | None, *, is_open: bool) -> Market:
    """Return the market of an instrument, None for one that does not exist."""
    if instrument is None or reference is None or not is_open or not reference.fresh:
        return Market(reference, is_open, None)
    collar = collar_of(instrument, reference)[1]
    if collar is None:
        return Market(reference, is_open, None)
    reach = reference.price * collar.value
    return Market(reference, is_open, (reference.price - reach, reference.price + reach))


def market_at(instrument: InstrumentPolicy | None, reference: ReferencePrice | None, moment: datetime) -> Market:
    """Return the market of an instrument at a moment, by its calendar."""
    return market(instrument, reference, is_open=instrument is None or instrument.instrument.calendar.is_open(moment))


def collar_of(instrument: InstrumentPolicy, reference: ReferencePrice | None) -> tuple[LimitType, LimitValue | None]:
    """Return the collar of the reference price's source, None where it is not set."""
    if reference is not None and reference.source is PriceSource.PRIOR_CLOSE:
        return LimitType.PRICE_COLLAR_PRIOR_CLOSE, instrument.bounds.price_collar_prior_close
    return LimitType.PRICE_COLLAR, instrument.bounds.price_collar
