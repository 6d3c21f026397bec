"""Events of svc_risk and svc_custody as the read model keeps them."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from kernel.ports import RecordedEvent
from svc_reporting.domain.fills import TradeKey
from trademesh.custody.v1 import events_pb2 as custody_pb2
from trademesh.custody.v1 import settlement_pb2
from trademesh.risk.v1 import events_pb2 as risk_pb2

_STATE_PREFIX = "SETTLEMENT_STATE_"


class AccountFact(NamedTuple):
    """An account and the tenant that owns it."""

    account_id: str
    tenant: str


class InstrumentFact(NamedTuple):
    """An instrument and the currency of its prices."""

    instrument_id: str
    currency: str


class SettlementFact(NamedTuple):
    """Where an instruction stands. Trade and date are stated when it is made, and unset afterwards."""

    settlement_id: str
    state: str
    trade: TradeKey | None = None
    settlement_date: date | None = None


def read_account(event: RecordedEvent) -> AccountFact | None:
    """Return the account of an event of its stream; None for other events."""
    if event.type not in ("risk.v1.AccountCreated", "risk.v1.AccountUpdated"):
        return None
    # Both have the account in the same field.
    account = risk_pb2.AccountCreated.FromString(event.payload).account
    return AccountFact(account.account_id, account.tenant)


def read_instrument(event: RecordedEvent) -> InstrumentFact | None:
    """Return the instrument of an event of its stream; None for other events."""
    if event.type not in ("risk.v1.InstrumentCreated", "risk.v1.InstrumentUpdated"):
        return None
    instrument = risk_pb2.InstrumentCreated.FromString(event.payload).instrument
    return InstrumentFact(instrument.instrument_id, instrument.currency)


def read_settlement(event: RecordedEvent) -> SettlementFact | None:
    """Return what an event says of an instruction; None for events that say nothing of one."""
    if event.type == "custody.v1.SettlementInstructed":
        made = custody_pb2.SettlementInstructed.FromString(event.payload).settlement
        trade = TradeKey(made.venue, date.fromisoformat(made.trade_date), made.exec_id)
        state = settlement_pb2.SettlementState.Name(made.state or settlement_pb2.SETTLEMENT_STATE_INSTRUCTED)
        return SettlementFact(made.settlement_id, state.removeprefix(_STATE_PREFIX), trade, date.fromisoformat(made.settlement_date))
    match event.type:
        case "custody.v1.SettlementAffirmed":
            return SettlementFact(custody_pb2.SettlementAffirmed.FromString(event.payload).settlement_id, "AFFIRMED")
        case "custody.v1.SettlementSettled":
            return SettlementFact(custody_pb2.SettlementSettled.FromString(event.payload).settlement_id, "SETTLED")
        case "custody.v1.SettlementFailed":
            return SettlementFact(custody_pb2.SettlementFailed.FromString(event.payload).settlement_id, "FAILED")
        case "custody.v1.SettlementCanceled":
            return SettlementFact(custody_pb2.SettlementCanceled.FromString(event.payload).settlement_id, "CANCELED")
    return None
