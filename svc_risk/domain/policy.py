"""What is in force for an account, a trader and an instrument: reference data, limits with their defaults, kill switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from kernel.values import format_decimal
from svc_risk.domain.calendar import TradingCalendar
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


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force for the orders of one decision. Absent accounts and instruments do not exist."""

    accounts: Mapping[str, AccountPolicy] = field(default_factory=dict)
    traders: Mapping[str, Bounds] = field(default_factory=dict)
    instruments: Mapping[str, InstrumentPolicy] = field(default_factory=dict)
