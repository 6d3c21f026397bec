"""What happened in an account's ledger. Each event's entries sum to zero for each asset."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

from svc_custody.domain.book import ExecutionKey, Hold, Settlement, Trade
from svc_custody.domain.entries import Entries
from svc_custody.domain.vocabulary import FailureReason


class Moment(NamedTuple):
    """When: wall time, UTC, and the business date of the booking."""

    time: datetime
    business_date: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all have."""

    account_id: str
    moment: Moment
    entries: Entries = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositPosted(Event):
    """Assets came in."""

    deposit_id: str
    principal: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalPosted(Event):
    """Assets went out."""

    withdrawal_id: str
    principal: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TradePosted(Event):
    """A trade's terms are pending. `cause` is the execution that says so."""

    trade: Trade
    cause: ExecutionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeReversed(Event):
    """A trade's terms hold no longer. After its settlement the opposite is pending."""

    trade: Trade
    cause: ExecutionKey
    after_settlement: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeVoided(Event):
    """A bust of a fill that never came; the fill will not count."""

    key: ExecutionKey
    order_id: str
    cause: ExecutionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementInstructed(Event):
    """An instruction was made for a trade, or to take a settled one back."""

    settlement: Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementAffirmed(Event):
    """An instruction was affirmed; `principal` is empty where its time had come."""

    settlement_id: str
    principal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementSettled(Event):
    """Both legs moved."""

    settlement_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementFailed(Event):
    """An instruction was due and something was lacking; nothing moved."""

    settlement_id: str
    reason: FailureReason
    lacking_amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementCanceled(Event):
    """An instruction will not settle."""

    settlement_id: str
    cause: ExecutionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldCreated(Event):
    """Assets were set aside."""

    hold: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldCaptured(Event):
    """What was held left the account."""

    hold_id: str
    principal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldReleased(Event):
    """What was held is available again."""

    hold_id: str
    principal: str


AnyEvent = (
    DepositPosted
    | WithdrawalPosted
    | TradePosted
    | TradeReversed
    | TradeVoided
    | SettlementInstructed
    | SettlementAffirmed
    | SettlementSettled
    | SettlementFailed
    | SettlementCanceled
    | HoldCreated
    | HoldCaptured
    | HoldReleased
)


def reference_of(event: AnyEvent) -> str:
    """Return what caused an event's entries: the id of the deposit, withdrawal, trade, settlement or hold."""
    match event:
        case DepositPosted():
            return event.deposit_id
        case WithdrawalPosted():
            return event.withdrawal_id
        case TradePosted() | TradeReversed():
            return trade_reference(event.trade.key)
        case TradeVoided():
            return trade_reference(event.key)
        case SettlementInstructed():
            return event.settlement.settlement_id
        case HoldCreated():
            return event.hold.hold_id
        case HoldCaptured() | HoldReleased():
            return event.hold_id
        case _:
            return event.settlement_id


def trade_reference(key: ExecutionKey) -> str:
    """Return a trade's key as one text: `venue/trade date/exec id`."""
    return f"{key.venue}/{key.trade_date.isoformat()}/{key.exec_id}"
