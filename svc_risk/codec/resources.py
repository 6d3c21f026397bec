"""Accounts, instruments, limits and kill switches on the wire."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from google.protobuf.message import Message

from kernel.ports import NewEvent
from kernel.values import parse_decimal, parse_price, parse_quantity
from svc_risk.codec.amounts import text
from svc_risk.codec.events import new_event, timestamp
from svc_risk.domain.administration import KillSwitch, Limit, check_instrument, etag
from svc_risk.domain.calendar import TradingCalendar, parse_calendar
from svc_risk.domain.policy import Account, Instrument
from svc_risk.domain.vocabulary import AccountStatus, AssetClass, InstrumentStatus, KillSwitchScope, KillSwitchStatus, LimitScope, LimitType
from trademesh.oms.v1 import order_control_service_pb2
from trademesh.risk.v1 import events_pb2, kill_switch_pb2, limit_pb2, reference_data_pb2, reference_data_service_pb2, risk_service_pb2

STREAM_ID_LENGTH_MAX = 128

_DECIMAL_FIELDS = frozenset({"value", "tick_size", "lot_size"})


def write_account(account: Account) -> reference_data_pb2.Account:
    """Return an account on the wire."""
    return reference_data_pb2.Account(
        account_id=account.account_id,
        tenant=account.tenant,
        display_name=account.display_name,
        currency=account.currency,
        status=account.status.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        version=account.version,
        etag=etag(account.version),
        create_time=timestamp(account.create_time),
        update_time=timestamp(account.update_time),
    )


def read_account_request(request: reference_data_service_pb2.CreateAccountRequest, tenant: str, now: datetime) -> Account:
    """Return the account that a request asks for."""
    return Account(request.account_id, tenant, request.display_name, request.currency, AccountStatus.ACTIVE, 1, now, now)


def read_calendar(message: reference_data_pb2.TradingCalendar) -> TradingCalendar:
    """Return a calendar.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    return parse_calendar(message.time_zone, message.open_time, message.close_time, tuple(message.holidays))


def write_calendar(calendar: TradingCalendar) -> reference_data_pb2.TradingCalendar:
    """Return a calendar on the wire."""
    return reference_data_pb2.TradingCalendar(
        time_zone=calendar.time_zone,
        open_time=f"{calendar.open_time:%H:%M}" if calendar.open_time is not None else "",
        close_time=f"{calendar.close_time:%H:%M}" if calendar.close_time is not None else "",
        holidays=[day.isoformat() for day in sorted(calendar.holidays)],
    )


def read_instrument_request(request: reference_data_service_pb2.CreateInstrumentRequest, now: datetime) -> Instrument:
    """Return the instrument that a request asks for.

    Raises:
        InvalidArgumentError: calendar, tick or lot are malformed.
    """
    return check_instrument(
        Instrument(
            request.instrument_id,
            request.display_name,
            AssetClass(request.asset_class),
            request.currency,
            parse_price(request.tick_size, field="tick_size"),
            parse_quantity(request.lot_size, field="lot_size"),
            request.venue,
            read_calendar(request.calendar),
            InstrumentStatus.ACTIVE,
            1,
            now,
        )
    )


def write_instrument(instrument: Instrument) -> reference_data_pb2.Instrument:
    """Return an instrument on the wire."""
    return reference_data_pb2.Instrument(
        instrument_id=instrument.instrument_id,
        display_name=instrument.display_name,
        asset_class=instrument.asset_class.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        currency=instrument.currency,
        tick_size=text(instrument.tick_size),
        lot_size=text(instrument.lot_size),
        venue=instrument.venue,
        calendar=write_calendar(instrument.calendar),
        status=instrument.status.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        version=instrument.version,
        etag=etag(instrument.version),
        update_time=timestamp(instrument.update_time),
    )


def read_limit_request(request: risk_service_pb2.UpdateLimitRequest, version: int, principal: str, now: datetime) -> Limit:
    """Return the limit that a request asks for, at the version that it will have."""
    value = parse_decimal(request.value, field="value")
    return Limit(LimitScope(request.scope), request.scope_id, LimitType(request.type), value, version, principal, now)


def write_limit(limit: Limit) -> limit_pb2.Limit:
    """Return a limit on the wire."""
    return limit_pb2.Limit(
        scope=limit.scope.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        scope_id=limit.scope_id,
        type=limit.type.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        value=text(limit.value),
        version=limit.version,
        etag=etag(limit.version),
        principal=limit.principal,
        update_time=timestamp(limit.update_time),
    )


def write_kill_switch(switch: KillSwitch) -> kill_switch_pb2.KillSwitch:
    """Return a kill switch on the wire."""
    return kill_switch_pb2.KillSwitch(
        scope=switch.scope.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        scope_id=switch.scope_id,
        status=switch.status.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        version=switch.version,
        principal=switch.principal,
        comment=switch.comment,
        cancel_open_orders=switch.cancel_open_orders,
        update_time=timestamp(switch.update_time),
    )


def read_kill_switch(message: kill_switch_pb2.KillSwitch) -> KillSwitch:
    """Return the kill switch in a message of ours."""
    return KillSwitch(
        KillSwitchScope(message.scope),
        message.scope_id,
        KillSwitchStatus(message.status),
        message.version,
        message.principal,
        message.comment,
        message.cancel_open_orders,
        message.update_time.ToDatetime(UTC),
    )


def write_switch_state(switch: KillSwitch) -> order_control_service_pb2.KillSwitchState:
    """Return a kill switch as svc_oms is to apply it. One that is being released no longer stops what svc_oms sends."""
    return order_control_service_pb2.KillSwitchState(
        scope=switch.scope.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        scope_id=switch.scope_id,
        active=switch.engaged,
        version=switch.version,
        cancel_open_orders=switch.cancel_open_orders and switch.engaged,
    )


def account_created(account: Account, principal: str) -> NewEvent:
    """Return the event of a new account."""
    return new_event(events_pb2.AccountCreated(account=write_account(account), principal=principal))


def account_updated(account: Account, principal: str) -> NewEvent:
    """Return the event of a changed account."""
    return new_event(events_pb2.AccountUpdated(account=write_account(account), principal=principal))


def instrument_created(instrument: Instrument, principal: str) -> NewEvent:
    """Return the event of a new instrument."""
    return new_event(events_pb2.InstrumentCreated(instrument=write_instrument(instrument), principal=principal))


def instrument_updated(instrument: Instrument, principal: str) -> NewEvent:
    """Return the event of a changed instrument."""
    return new_event(events_pb2.InstrumentUpdated(instrument=write_instrument(instrument), principal=principal))


def limit_updated(limit: Limit, previous: Limit | None, comment: str) -> NewEvent:
    """Return the event of a limit that was set."""
    before = "" if previous is None else text(previous.value)
    return new_event(events_pb2.LimitUpdated(limit=write_limit(limit), previous_value=before, comment=comment))


def kill_switch_event(switch: KillSwitch) -> NewEvent:
    """Return the event of a kill switch that changed."""
    return new_event(events_pb2.KillSwitchChanged(kill_switch=write_kill_switch(switch)))


def command_hash(tenant: str, principal: str, request: Message) -> bytes:
    """Return what a request id stands for: the caller and the whole command. Another caller's replay is another command, and another
    spelling of the same numbers is not.
    """
    name = f"{tenant}\0{principal}\0{request.DESCRIPTOR.full_name}\0".encode()
    command = type(request)()
    command.CopyFrom(request)
    for field in command.DESCRIPTOR.fields:
        if field.name in _DECIMAL_FIELDS:
            setattr(command, field.name, text(parse_decimal(getattr(command, field.name), field=field.name)))
        elif field.name == "update_mask":
            paths = sorted(set(getattr(command, field.name).paths))
            getattr(command, field.name).paths[:] = paths
        elif field.name == "request_id":
            setattr(command, field.name, getattr(command, field.name).lower())
    return hashlib.sha256(name + command.SerializeToString(deterministic=True)).digest()


def account_stream(account_id: str) -> str:
    """Return the stream of an account's own events."""
    return f"account-{account_id}"


def instrument_stream(instrument_id: str) -> str:
    """Return the stream of an instrument."""
    return f"instrument-{instrument_id}"


def limit_stream(scope: LimitScope, scope_id: str, limit_type: LimitType) -> str:
    """Return the stream of a limit."""
    return _stream(f"limit-{scope.name.lower()}-", scope_id, f"-{limit_type.name.lower()}")


def kill_switch_stream(scope: KillSwitchScope, scope_id: str) -> str:
    """Return the stream of a kill switch."""
    return _stream(f"kill-{scope.name.lower()}-", scope_id, "")


def _stream(prefix: str, scope_id: str, suffix: str) -> str:
    stream = f"{prefix}{scope_id}{suffix}"
    if stream.isascii() and len(stream) <= STREAM_ID_LENGTH_MAX:
        return stream
    # A principal may be long or not ASCII; the event itself names it in full.
    return f"{prefix}{hashlib.blake2b(scope_id.encode(), digest_size=16).hexdigest()}{suffix}"
