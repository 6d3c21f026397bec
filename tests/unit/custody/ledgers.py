"""A ledger that a test drives command by command."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from svc_custody.domain import commands as c
from svc_custody.domain import events as e
from svc_custody.domain.book import Book, ExecutionKey, Settlement
from svc_custody.domain.business_days import weekday
from svc_custody.domain.decide import decide, fold
from svc_custody.domain.vocabulary import Asset, AssetClass, ExecutionType, LedgerAccount, Side, cash, security

USD, AAPL = cash("USD"), security("AAPL")
TRADE_DATE = date(2026, 11, 20)
START = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
EQUITY = c.Instrument("USD", AssetClass.EQUITY, weekday)
CRYPTO = c.Instrument("USD", AssetClass.CRYPTO, weekday)


class Ledger:
    """One account. `events` are all that happened."""

    def __init__(self) -> None:
        self.book = Book("ACC-1")
        self.events: list[e.AnyEvent] = []
        self.today = TRADE_DATE
        self._numbers = itertools.count(1)

    @property
    def moment(self) -> e.Moment:
        """Return now."""
        return e.Moment(START, self.today)

    def do(self, command: c.Command) -> Sequence[e.AnyEvent]:
        """Decide and fold; a refusal changes nothing and goes on to the test."""
        events = decide(self.book, command)
        self.book = fold(self.book, events)
        self.events += events
        return events

    def deposit(self, asset: Asset, amount: str | Decimal) -> None:
        """Book a deposit."""
        self.do(c.PostDeposit(f"d{next(self._numbers)}", asset, Decimal(amount), "", "olga", self.moment))

    def withdraw(self, asset: Asset, amount: str | Decimal) -> None:
        """Book a withdrawal."""
        self.do(c.PostWithdrawal(f"w{next(self._numbers)}", asset, Decimal(amount), "", "olga", self.moment))

    def hold(self, asset: Asset, amount: str | Decimal) -> str:
        """Hold; return the hold's id."""
        hold_id = f"h{next(self._numbers)}"
        self.do(c.CreateHold(hold_id, asset, Decimal(amount), "", "olga", self.moment))
        return hold_id

    def fill(self, side: Side, quantity: str | Decimal, price: str | Decimal, exec_id: str = "", instrument: c.Instrument = EQUITY) -> str:
        """Apply a fill; return its exec id."""
        return self._execute(ExecutionType.TRADE, "", side, quantity, price, exec_id, instrument)

    def bust(self, exec_ref_id: str, exec_id: str = "") -> str:
        """Apply a bust."""
        return self._execute(ExecutionType.TRADE_CANCEL, exec_ref_id, Side.BUY, "1", "1", exec_id, EQUITY)

    def correct(self, exec_ref_id: str, side: Side, quantity: str | Decimal, price: str | Decimal) -> str:
        """Apply a correction."""
        return self._execute(ExecutionType.TRADE_CORRECT, exec_ref_id, side, quantity, price, "", EQUITY)

    def _execute(
        self,
        kind: ExecutionType,
        exec_ref_id: str,
        side: Side,
        quantity: str | Decimal,
        price: str | Decimal,
        exec_id: str,
        instrument: c.Instrument,
    ) -> str:
        name = exec_id or f"E{next(self._numbers)}"
        key = ExecutionKey("XSIM", TRADE_DATE, name)
        execution = c.Execution(key, kind, exec_ref_id, "ACC-1", "O1", "AAPL", side, Decimal(quantity), Decimal(price))
        self.do(c.ApplyExecution(execution, instrument, timedelta(), self.moment))
        return name

    def affirm_all(self) -> None:
        """Affirm whatever waits for it."""
        for settlement_id in self.book.settlements:
            self.do(c.AffirmSettlement(settlement_id, "", self.moment))

    def attempt(self, settlement_id: str) -> Sequence[e.AnyEvent]:
        """Try to settle one."""
        return self.do(c.AttemptSettlement(settlement_id, self.moment))

    def next_day(self) -> None:
        """Let a day pass."""
        self.today += timedelta(days=1)

    def settle(self) -> None:
        """Let the settlement day come, affirm, and try all in the order in which they were made."""
        self.settle_in(list(self.book.settlements))

    def settle_in(self, order: Sequence[str]) -> None:
        """Let the settlement day come, affirm, and try all in an order."""
        self.today = max(self.today, TRADE_DATE + timedelta(days=3))
        self.affirm_all()
        for settlement_id in order:
            self.attempt(settlement_id)

    def amounts(self, asset: Asset) -> tuple[str, str, str, str]:
        """Return what is available, held, pending in and pending out."""
        available, held, pending_in, pending_out = (f"{self.book.balance(account, asset):f}" for account in list(LedgerAccount)[:4])
        return available, held, pending_in, pending_out

    @property
    def settlements(self) -> list[Settlement]:
        """Return the instructions in the order in which they were made."""
        return list(self.book.settlements.values())

    @property
    def states(self) -> list[str]:
        """Return where they stand."""
        return [settlement.state.name for settlement in self.settlements]
