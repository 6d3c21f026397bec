"""The state of one account's ledger, or the part of it that a command needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

from kernel.values import ZERO
from svc_custody.domain.entries import Flow
from svc_custody.domain.vocabulary import Asset, FailureReason, HoldState, LedgerAccount, SettlementState, Side, cash, security


class ExecutionKey(NamedTuple):
    """What identifies an execution: a fill counts once by it."""

    venue: str
    trade_date: date
    exec_id: str


class BalanceKey(NamedTuple):
    """One balance of an account's ledger. `venue` as in `Entry`."""

    asset: Asset
    ledger_account: LedgerAccount
    venue: str = ""


class Trade(NamedTuple):
    """A fill as it stands after its corrections. `generation` counts the instructions made for it; `busted` when nothing of it holds."""

    key: ExecutionKey
    order_id: str
    instrument_id: str
    side: Side
    quantity: Decimal
    price: Decimal
    currency: str
    notional: Decimal
    generation: int = 0
    settlement_id: str = ""
    busted: bool = False

    @property
    def flows(self) -> tuple[Flow, Flow]:
        """Return what it moves: securities, then cash."""
        sign = 1 if self.side is Side.BUY else -1
        return Flow(security(self.instrument_id), sign * self.quantity), Flow(cash(self.currency), -sign * self.notional)


@dataclass(frozen=True, slots=True)
class Settlement:
    """An instruction, delivery versus payment. Amounts are the account's: positive is received. `cycle_days` 0 is due at once."""

    settlement_id: str
    trade_key: ExecutionKey
    order_id: str
    instrument_id: str
    securities_amount: Decimal
    currency: str
    cash_amount: Decimal
    settlement_date: date
    cycle_days: int
    affirm_time: datetime
    create_time: datetime
    update_time: datetime
    state: SettlementState = SettlementState.INSTRUCTED
    failure_reason: FailureReason | None = None
    lacking_amount: Decimal = ZERO
    attempt_date: date | None = None
    failed_days: int = 0
    settled_date: date | None = None
    reverses_settlement_id: str = ""

    @property
    def flows(self) -> tuple[Flow, Flow]:
        """Return the legs: securities, then cash."""
        return Flow(security(self.instrument_id), self.securities_amount), Flow(cash(self.currency), self.cash_amount)

    @property
    def open(self) -> bool:
        """Say whether it may still settle."""
        return self.state not in (SettlementState.SETTLED, SettlementState.CANCELED)

    def due(self, business_date: date) -> bool:
        """Say whether it is to settle by a business date."""
        return self.cycle_days == 0 or self.settlement_date <= business_date


@dataclass(frozen=True, slots=True)
class Hold:
    """What is set aside of an asset."""

    hold_id: str
    asset: Asset
    amount: Decimal
    comment: str
    principal: str
    create_time: datetime
    update_time: datetime
    state: HoldState = HoldState.ACTIVE


@dataclass(frozen=True, slots=True)
class Book:
    """An account's ledger. `executions` leads from each execution that counted to the fill that it is about."""

    account_id: str
    balances: Mapping[BalanceKey, Decimal] = field(default_factory=dict)
    executions: Mapping[ExecutionKey, ExecutionKey] = field(default_factory=dict)
    trades: Mapping[ExecutionKey, Trade] = field(default_factory=dict)
    settlements: Mapping[str, Settlement] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)

    def balance(self, ledger_account: LedgerAccount, asset: Asset, venue: str = "") -> Decimal:
        """Return a balance, zero where nothing was ever entered."""
        return self.balances.get(BalanceKey(asset, ledger_account, venue), ZERO)

    def available(self, asset: Asset) -> Decimal:
        """Return what is settled and free."""
        return self.balance(LedgerAccount.CLIENT_AVAILABLE, asset)

    def root_of(self, key: ExecutionKey, order_id: str) -> ExecutionKey | None:
        """Return the fill that a bust or correction names, through earlier corrections; None where it never counted here.

        FIX gives the reference (19) no trade date: the same day is tried first, then the only fill of that id and order on another day.
        """
        if key in self.executions:
            return self.executions[key]
        found = {
            root
            for other, root in self.executions.items()
            if (other.venue, other.exec_id) == (key.venue, key.exec_id) and root in self.trades and self.trades[root].order_id == order_id
        }
        return found.pop() if len(found) == 1 else None
