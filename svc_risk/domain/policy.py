"""What is in force for an account, a trader and an instrument: reference data, limits with their defaults, kill switches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from kernel.values import format_decimal
from svc_risk.domain.calendar import TradingCalendar
from svc_risk.domain.exposure import AMOUNT_MAX
from svc_risk.domain.vocabulary import AccountStatus, AssetClass, InstrumentStatus, LimitScope, LimitType

SCOPES: Mapping[LimitType, frozenset[LimitScope]] = {
    LimitType.MAX_QUANTITY: frozenset({LimitScope.ACCOUNT, LimitScope.TRADER, LimitScope.INSTRUMENT}),
    LimitType.MAX_NOTIONAL: frozenset({LimitScope.ACCOUNT, LimitScope.TRADER, LimitScope.INSTRUMENT}),
    LimitType.PRICE_COLLAR: frozenset({LimitScope.INSTRUMENT}),
    LimitType.PRICE_COLLAR_PRIOR_CLOSE: frozenset({LimitScope.INSTRUMENT}),
    LimitType.OPEN_EXPOSURE: frozenset({LimitScope.ACCOUNT}),
    LimitType.GROSS_EXPOSURE: frozenset({LimitScope.ACCOUNT}),
    LimitType.MESSAGE_RATE: frozenset({LimitScope.ACCOUNT, LimitScope.TRADER}),
    LimitType.DUPLICATE_WINDOW: frozenset({LimitScope.ACCOUNT}),
}
"""Whom each type of limit can bind."""

MANDATORY: Mapping[LimitScope, tuple[LimitType, ...]] = {
    LimitScope.ACCOUNT: (LimitType.MAX_NOTIONAL, LimitType.OPEN_EXPOSURE, LimitType.GROSS_EXPOSURE, LimitType.MESSAGE_RATE),
    LimitScope.TRADER: (),
    LimitScope.INSTRUMENT: (LimitType.MAX_QUANTITY,),
}
"""Without these nothing is allowed; so it is without the collar of the reference price's source. The others bind where they are set."""

DUPLICATE_WINDOW_SECONDS_MAX = 3600
MESSAGE_RATE_MAX = 1_000_000
_COUNT_MAX = 2**62


@dataclass(frozen=True, slots=True)
class Account:
    """An account that orders trade for. Its tenant and currency never change; `version` counts its events."""

    account_id: str
    tenant: str
    display_name: str
    currency: str
    status: AccountStatus
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Instrument:
    """Something that is traded. Prices are multiples of `tick_size`, quantities of `lot_size`; both and the venue never change."""

    instrument_id: str
    display_name: str
    asset_class: AssetClass
    currency: str
    tick_size: Decimal
    lot_size: Decimal
    venue: str
    calendar: TradingCalendar
    status: InstrumentStatus
    version: int
    update_time: datetime


class LimitValue(NamedTuple):
    """A bound in force, and its canonical text for answers and events."""

    value: Decimal
    text: str


def limit_value(value: Decimal) -> LimitValue:
    """Return a bound with its text."""
    return LimitValue(value, format_decimal(value))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits and kill switches of one subject, defaults already applied; None where no limit is set. Made by `bounds`.

    Attributes:
        subject: whose, as breaches name it: `account/ACC-1`, `trader/ada`, `instrument/AAPL`.
        kill_switches: names of the switches that cover the subject and are not released, such as `firm/*`.
        missing: mandatory types that have no value.
    """

    subject: str
    kill_switches: tuple[str, ...] = ()
    missing: tuple[LimitType, ...] = ()
    max_quantity: LimitValue | None = None
    max_notional: LimitValue | None = None
    price_collar: LimitValue | None = None
    price_collar_prior_close: LimitValue | None = None
    open_exposure: LimitValue | None = None
    gross_exposure: LimitValue | None = None
    message_rate: LimitValue | None = None
    duplicate_window: LimitValue | None = None


def bounds(scope: LimitScope, scope_id: str, limits: Mapping[LimitType, LimitValue], kill_switches: tuple[str, ...] = ()) -> Bounds:
    """Return the bounds of a subject."""
    missing = tuple(limit_type for limit_type in MANDATORY[scope] if limit_type not in limits)
    values = {limit_type.name.lower(): limit for limit_type, limit in limits.items()}
    return Bounds(f"{scope.name.lower()}/{scope_id}", kill_switches, missing, **values)


def limit_text(limit: LimitValue | None) -> str:
    """Return a limit's canonical text, empty where none is set."""
    return "" if limit is None else limit.text


class AccountPolicy(NamedTuple):
    """An account and what binds it."""

    account: Account
    bounds: Bounds


class InstrumentPolicy(NamedTuple):
    """An instrument and what binds orders for it."""

    instrument: Instrument
    bounds: Bounds


class Room(NamedTuple):
    """The least of all limits in force: an order within them, at a price within the collar, breaks no rule. Made by `room`.

    The counts of messages are those at which a rate refuses.
    """

    tenant: str
    venue: str
    tick_size: Decimal
    lot_size: Decimal
    quantity_max: Decimal
    notional_max: Decimal
    open_max: Decimal
    gross_max: Decimal
    account_messages_max: int
    trader_messages_max: int


def room(account: AccountPolicy, trader: Bounds, instrument: InstrumentPolicy) -> Room | None:
    """Return the room for orders, None where some rule stands against every one."""
    owner, traded = account.account, instrument.instrument
    subjects = (account.bounds, trader, instrument.bounds)
    open_exposure, gross_exposure = account.bounds.open_exposure, account.bounds.gross_exposure
    if (
        owner.status is not AccountStatus.ACTIVE
        or traded.status is not InstrumentStatus.ACTIVE
        or owner.currency != traded.currency
        or any(bounds.kill_switches or bounds.missing for bounds in subjects)
        or open_exposure is None
        or gross_exposure is None
    ):
        return None
    return Room(
        owner.tenant,
        traded.venue,
        traded.tick_size,
        traded.lot_size,
        _least(bounds.max_quantity for bounds in subjects),
        _least(bounds.max_notional for bounds in subjects),
        open_exposure.value,
        gross_exposure.value,
        _messages_max(account.bounds.message_rate),
        _messages_max(trader.message_rate),
    )


def _least(limits: Iterable[LimitValue | None]) -> Decimal:
    return min((limit.value for limit in limits if limit is not None), default=AMOUNT_MAX)


def _messages_max(limit: LimitValue | None) -> int:
    return _COUNT_MAX if limit is None else math.ceil(limit.value)


class Binding(NamedTuple):
    """What binds the orders of one trader for one account and instrument. `room` is None where none of them passes."""

    account: AccountPolicy | None
    trader: Bounds
    instrument: InstrumentPolicy | None
    room: Room | None


def binding(account: AccountPolicy | None, trader: Bounds, instrument: InstrumentPolicy | None) -> Binding:
    """Return what binds orders, with its room; None for what does not exist."""
    found = None if account is None or instrument is None else room(account, trader, instrument)
    return Binding(account, trader, instrument, found)


UNBOUND = Bounds("")
"""The bounds of whom nothing binds."""

Bindings = dict[tuple[str, str, str], Binding]
"""By account, trader and instrument."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force for the orders of one decision. Absent accounts and instruments do not exist.

    `bindings` are those made before of the same version of the policy; new ones join them.
    """

    accounts: Mapping[str, AccountPolicy] = field(default_factory=dict)
    traders: Mapping[str, Bounds] = field(default_factory=dict)
    instruments: Mapping[str, InstrumentPolicy] = field(default_factory=dict)
    bindings: Bindings = field(default_factory=dict)

    def binding(self, account_id: str, principal: str, instrument_id: str) -> Binding:
        """Return what binds the orders of a trader for an account and an instrument."""
        key = account_id, principal, instrument_id
        known = self.bindings.get(key)
        if known is None:
            account, trader = self.accounts.get(account_id), self.traders.get(principal, UNBOUND)
            known = self.bindings[key] = binding(account, trader, self.instruments.get(instrument_id))
        return known
