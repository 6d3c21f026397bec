"""What other services' logs say, as custody uses it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import NamedTuple

from svc_custody.domain.book import ExecutionKey
from svc_custody.domain.commands import Execution
from svc_custody.domain.vocabulary import AssetClass, ExecutionType, Side
from trademesh.oms.v1 import events_pb2 as oms_events_pb2
from trademesh.oms.v1 import execution_pb2
from trademesh.risk.v1 import events_pb2 as risk_events_pb2

EXECUTION_RECORDED = "oms.v1.ExecutionRecorded"
_ACCOUNT_TYPES = frozenset({"risk.v1.AccountCreated", "risk.v1.AccountUpdated"})
_INSTRUMENT_TYPES = frozenset({"risk.v1.InstrumentCreated", "risk.v1.InstrumentUpdated"})


class AccountFact(NamedTuple):
    """An account of the firm."""

    account_id: str
    tenant: str
    version: int


class InstrumentFact(NamedTuple):
    """An instrument. `holidays` are the days on which its venue is closed, beside Saturdays and Sundays."""

    instrument_id: str
    asset_class: AssetClass
    currency: str
    venue: str
    holidays: tuple[date, ...]
    version: int


def read_execution(payload: bytes) -> execution_pb2.Execution:
    """Return the execution of an `oms.v1.ExecutionRecorded`.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    return oms_events_pb2.ExecutionRecorded.FromString(payload).execution


def execution_of(message: execution_pb2.Execution) -> Execution:
    """Return an execution.

    Raises:
        ValueError: a field has no value that the contract allows.
    """
    return Execution(
        ExecutionKey(message.venue, date.fromisoformat(message.trade_date), message.exec_id),
        ExecutionType(message.type),
        message.exec_ref_id,
        message.account_id,
        message.order_id,
        message.instrument_id,
        Side(message.side),
        Decimal(message.last_quantity),
        Decimal(message.last_price),
    )


def read_account(event_type: str, payload: bytes) -> AccountFact | None:
    """Return the account of an event of svc_risk, None for events of other things."""
    if event_type not in _ACCOUNT_TYPES:
        return None
    # Both events have the account in the same field.
    account = risk_events_pb2.AccountUpdated.FromString(payload).account
    return AccountFact(account.account_id, account.tenant, account.version)


def read_instrument(event_type: str, payload: bytes) -> InstrumentFact | None:
    """Return the instrument of an event of svc_risk, None for events of other things."""
    if event_type not in _INSTRUMENT_TYPES:
        return None
    instrument = risk_events_pb2.InstrumentUpdated.FromString(payload).instrument
    return InstrumentFact(
        instrument.instrument_id,
        AssetClass(instrument.asset_class),
        instrument.currency,
        instrument.venue,
        tuple(date.fromisoformat(day) for day in instrument.calendar.holidays),
        instrument.version,
    )
