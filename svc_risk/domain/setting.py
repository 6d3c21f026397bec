"""What holds for every order of one trader, account and instrument while a transaction lasts: gathered once, asked for every order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from svc_risk.domain.exposure import AMOUNT_MAX
from svc_risk.domain.policy import AccountPolicy, Bounds, InstrumentPolicy, LimitValue
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.vocabulary import AccountStatus, InstrumentStatus, LimitType

_COUNT_MAX = 2**62
"""Of messages, where no rate is set."""


class Room(NamedTuple):
    """The least of all limits in force: an order within them breaks no rule. Made by `room`."""

    tenant: str
    venue: str
    tick_size: Decimal
    lot_size: Decimal
    reference: Decimal
    quantity_max: Decimal
    notional_max: Decimal
    price_min: Decimal
    price_max: Decimal
    open_max: Decimal
    gross_max: Decimal
    account_messages_max: int
    trader_messages_max: int


class Setting(NamedTuple):
    """What is in force for an order, apart from what the account holds. `room` is None where no order passes; made by `setting`."""

    account: AccountPolicy | None
    trader: Bounds
    instrument: InstrumentPolicy | None
    reference: ReferencePrice | None
    market_open: bool
    room: Room | None


def setting(
    account: AccountPolicy | None,
    trader: Bounds,
    instrument: InstrumentPolicy | None,
    reference: ReferencePrice | None,
    *,
    market_open: bool,
) -> Setting:
    """Return what is in force, with its room."""
    found = None
    if account is not None and instrument is not None and reference is not None and market_open:
        found = room(account, trader, instrument, reference)
    return Setting(account, trader, instrument, reference, market_open, found)


def collar_of(instrument: InstrumentPolicy, reference: ReferencePrice | None) -> tuple[LimitType, LimitValue | None]:
    """Return the collar of the reference price's source, None where it is not set."""
    if reference is not None and reference.source is PriceSource.PRIOR_CLOSE:
        return LimitType.PRICE_COLLAR_PRIOR_CLOSE, instrument.bounds.price_collar_prior_close
    return LimitType.PRICE_COLLAR, instrument.bounds.price_collar


def room(account: AccountPolicy, trader: Bounds, instrument: InstrumentPolicy, reference: ReferencePrice) -> Room | None:
    """Return the room in an open market, None where some rule stands against every order."""
    owner, traded = account.account, instrument.instrument
    subjects = (account.bounds, trader, instrument.bounds)
    collar, open_exposure, gross_exposure = collar_of(instrument, reference)[1], account.bounds.open_exposure, account.bounds.gross_exposure
    if (
        not reference.fresh
        or owner.status is not AccountStatus.ACTIVE
        or traded.status is not InstrumentStatus.ACTIVE
        or owner.currency != traded.currency
        or any(bounds.kill_switches or bounds.missing for bounds in subjects)
        or collar is None
        or open_exposure is None
        or gross_exposure is None
    ):
        return None
    reach = reference.price * collar.value
    return Room(
        owner.tenant,
        traded.venue,
        traded.tick_size,
        traded.lot_size,
        reference.price,
        _least(bounds.max_quantity for bounds in subjects),
        _least(bounds.max_notional for bounds in subjects),
        reference.price - reach,
        reference.price + reach,
        open_exposure.value,
        gross_exposure.value,
        _messages_max(account.bounds.message_rate),
        _messages_max(trader.message_rate),
    )


def _least(limits: Iterable[LimitValue | None]) -> Decimal:
    return min((limit.value for limit in limits if limit is not None), default=AMOUNT_MAX)


def _messages_max(limit: LimitValue | None) -> int:
    """The count at which a rate refuses."""
    return _COUNT_MAX if limit is None else math.ceil(limit.value)
