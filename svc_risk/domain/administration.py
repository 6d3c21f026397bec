"""Accounts, instruments, limits and kill switches: what a change makes of them. Each value counts its changes in `version`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from kernel.errors import AbortedError, FailedPreconditionError, FieldViolation, InvalidArgumentError, Reason
from kernel.values import SCALE_MAX, check_account_id, check_instrument_id
from svc_risk.domain.calendar import TradingCalendar
from svc_risk.domain.policy import DUPLICATE_WINDOW_SECONDS_MAX, MESSAGE_RATE_MAX, SCOPES, Account, Instrument
from svc_risk.domain.vocabulary import (
    ANY,
    AccountStatus,
    InstrumentStatus,
    KillSwitchScope,
    KillSwitchStatus,
    LimitScope,
    LimitType,
)

SCOPE_ID_BYTES_MAX = 200
"""So that a page token can carry it."""
COLLAR_MAX = Decimal(10)
"""The widest collar: 1000 % of the reference price."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in force. `principal` set it."""

    scope: LimitScope
    scope_id: str
    type: LimitType
    value: Decimal
    version: int
    principal: str
    update_time: datetime


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """A latched stop of new orders. `principal` changed it last."""

    scope: KillSwitchScope
    scope_id: str
    status: KillSwitchStatus
    version: int
    principal: str
    comment: str
    cancel_open_orders: bool
    update_time: datetime

    @property
    def engaged(self) -> bool:
        """Say whether a person wants it to stop orders."""
        return self.status in (KillSwitchStatus.PENDING, KillSwitchStatus.ACTIVE)

    @property
    def pending(self) -> bool:
        """Say whether svc_oms has yet to be told."""
        return self.status in (KillSwitchStatus.PENDING, KillSwitchStatus.RELEASE_PENDING)


def etag(version: int) -> str:
    """Return a version as an entity tag."""
    return f"v{version}"


def require_etag(version: int, wanted: str, resource: str) -> None:
    """Check a caller's entity tag; empty means any version.

    Raises:
        AbortedError: the resource changed since.
    """
    if wanted and wanted != etag(version):
        raise AbortedError(
            Reason.VERSION_STALE, f"{resource} changed since; its entity tag is {etag(version)}", metadata={"etag": etag(version)}
        )


def invalid_field(field: str, rule: str, text: str) -> InvalidArgumentError:
    """Return the error of one bad field."""
    return InvalidArgumentError(Reason.FIELD_INVALID, f"{field}: {text}", field_violations=(FieldViolation(field, rule, text),))


def updated_account(account: Account, *, display_name: str | None, status: AccountStatus | None, now: datetime) -> Account:
    """Return the account with new values; None keeps the old.

    Raises:
        InvalidArgumentError: the name is empty.
        FailedPreconditionError: the account is closed, and would be opened again.
    """
    if display_name == "":
        raise invalid_field("display_name", "string.min_len", "must not be empty")
    if account.status is AccountStatus.CLOSED and status not in (None, AccountStatus.CLOSED):
        raise FailedPreconditionError(
            Reason.ACCOUNT_NOT_ACTIVE,
            "a closed account stays closed",
            metadata={"resource_type": "account", "resource_name": account.account_id},
        )
    return replace(
        account,
        display_name=account.display_name if display_name is None else display_name,
        status=account.status if status is None else status,
        version=account.version + 1,
        update_time=now,
    )


def check_instrument(instrument: Instrument) -> Instrument:
    """Check what the form of single fields cannot say, and return the instrument.

    Raises:
        InvalidArgumentError: tick and lot together need more places than money has.
    """
    if _places(instrument.tick_size) + _places(instrument.lot_size) > SCALE_MAX:
        raise invalid_field("lot_size", "instrument.scale", f"tick_size and lot_size together must have at most {SCALE_MAX} places")
    return instrument


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def updated_instrument(
    instrument: Instrument,
    *,
    display_name: str | None,
    status: InstrumentStatus | None,
    calendar: TradingCalendar | None,
    now: datetime,
) -> Instrument:
    """Return the instrument with new values; None keeps the old.

    Raises:
        InvalidArgumentError: the name is empty.
    """
    if display_name == "":
        raise invalid_field("display_name", "string.min_len", "must not be empty")
    return replace(
        instrument,
        display_name=instrument.display_name if display_name is None else display_name,
        status=instrument.status if status is None else status,
        calendar=instrument.calendar if calendar is None else calendar,
        version=instrument.version + 1,
        update_time=now,
    )


def check_limit(scope: LimitScope, scope_id: str, limit_type: LimitType, value: Decimal) -> None:
    """Check that a limit makes sense: the type fits the scope, the id has the scope's form, the value the type's bounds.

    Raises:
        InvalidArgumentError: names the field.
    """
    if scope not in SCOPES[limit_type]:
        names = ", ".join(sorted(allowed.name for allowed in SCOPES[limit_type]))
        raise invalid_field("scope", "limit.scope", f"{limit_type.name} binds {names}")
    _check_scope_id(scope_id)
    if scope_id != ANY:
        if scope is LimitScope.ACCOUNT:
            check_account_id(scope_id, field="scope_id")
        elif scope is LimitScope.INSTRUMENT:
            check_instrument_id(scope_id, field="scope_id")
    if limit_type is LimitType.MESSAGE_RATE and (value % 1 or value > MESSAGE_RATE_MAX):
        raise invalid_field("value", "limit.message_rate", f"must be a whole number of at most {MESSAGE_RATE_MAX}")
    if limit_type is LimitType.DUPLICATE_WINDOW and value > DUPLICATE_WINDOW_SECONDS_MAX:
        raise invalid_field("value", "limit.duplicate_window", f"must be at most {DUPLICATE_WINDOW_SECONDS_MAX} seconds")
    if limit_type in (LimitType.PRICE_COLLAR, LimitType.PRICE_COLLAR_PRIOR_CLOSE) and value > COLLAR_MAX:
        raise invalid_field("value", "limit.collar", f"must be at most {COLLAR_MAX}, a fraction of the reference price")


def _check_scope_id(scope_id: str) -> None:
    if not scope_id.isprintable() or len(scope_id.encode()) > SCOPE_ID_BYTES_MAX:
        raise invalid_field("scope_id", "scope_id", f"must be printable and at most {SCOPE_ID_BYTES_MAX} bytes of UTF-8")


def check_kill_switch(scope: KillSwitchScope, scope_id: str) -> None:
    """Check that a kill switch's id has the form of its scope: `*` for the firm and for nothing else.

    Raises:
        InvalidArgumentError: it has not.
    """
    _check_scope_id(scope_id)
    if (scope is KillSwitchScope.FIRM) != (scope_id == ANY):
        raise invalid_field("scope_id", "kill_switch.scope_id", "must be * for the firm, and an id for every other scope")
    if scope is KillSwitchScope.ACCOUNT:
        check_account_id(scope_id, field="scope_id")
    elif scope is KillSwitchScope.INSTRUMENT:
        check_instrument_id(scope_id, field="scope_id")


def told(switch: KillSwitch, now: datetime) -> KillSwitch:
    """Return the switch once svc_oms has it: active or released for good. `told` of one that is not pending is a bug of the caller."""
    status = {
        KillSwitchStatus.PENDING: KillSwitchStatus.ACTIVE,
        KillSwitchStatus.RELEASE_PENDING: KillSwitchStatus.RELEASED,
    }[switch.status]
    return replace(switch, status=status, version=switch.version + 1, update_time=now)
