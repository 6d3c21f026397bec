"""What a ledger is asked to do. Times and ids arrive in the command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from svc_custody.domain.book import ExecutionKey
from svc_custody.domain.business_days import DayOpen
from svc_custody.domain.events import Moment
from svc_custody.domain.vocabulary import Asset, AssetClass, ExecutionType, Side


class Execution(NamedTuple):
    """A fill, bust or correction as the order service recorded it."""

    key: ExecutionKey
    type: ExecutionType
    exec_ref_id: str
    account_id: str
    order_id: str
    instrument_id: str
    side: Side
    quantity: Decimal
    price: Decimal


class Instrument(NamedTuple):
    """What settlement needs to know of an instrument. `is_open` says whether both its venue and its currency settle on a day."""

    currency: str
    asset_class: AssetClass
    is_open: DayOpen


@dataclass(frozen=True, slots=True)
class ApplyExecution:
    """Post, reverse or correct a trade; its instruction is affirmed `affirm_after` from now."""

    execution: Execution
    instrument: Instrument
    affirm_after: timedelta
    moment: Moment


@dataclass(frozen=True, slots=True)
class PostDeposit:
    """Book assets that came in."""

    deposit_id: str
    asset: Asset
    amount: Decimal
    comment: str
    principal: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class PostWithdrawal:
    """Book assets that go out."""

    withdrawal_id: str
    asset: Asset
    amount: Decimal
    comment: str
    principal: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class AffirmSettlement:
    """Affirm an instruction. Without a principal it is affirmed only when its time has come, and nothing is refused."""

    settlement_id: str
    principal: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class AttemptSettlement:
    """Settle an instruction if it is affirmed, due, and nothing is lacking."""

    settlement_id: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class CreateHold:
    """Set assets aside."""

    hold_id: str
    asset: Asset
    amount: Decimal
    comment: str
    principal: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class CaptureHold:
    """Take what is held out of the account."""

    hold_id: str
    principal: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class ReleaseHold:
    """Make what is held available again."""

    hold_id: str
    principal: str
    moment: Moment


Command = ApplyExecution | PostDeposit | PostWithdrawal | AffirmSettlement | AttemptSettlement | CreateHold | CaptureHold | ReleaseHold
