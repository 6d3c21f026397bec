"""Whatever is deposited, traded, busted, corrected, held and settled, in whatever order: the ledger balances, nothing pending is negative,
positions are deposits and trades, both legs move or neither, and the events fold to the same."""

from __future__ import annotations

import random
from decimal import Decimal

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kernel.errors import FailedPreconditionError
from kernel.values import ZERO, notional, total, use_exact_decimals
from svc_custody.domain import commands as c
from svc_custody.domain import events as e
from svc_custody.domain.book import Book
from svc_custody.domain.decide import fold
from svc_custody.domain.entries import balanced, sums
from svc_custody.domain.vocabulary import Asset, HoldState, LedgerAccount, SettlementState, Side
from tests.unit.custody.ledgers import AAPL, USD, Ledger

CLIENT = list(LedgerAccount)[:4]
AMOUNTS = st.decimals("0.000000000000000001", "1000", places=18) | st.integers(1, 500).map(Decimal)
PRICES = st.decimals("-10", "100", places=9) | st.integers(1, 100).map(Decimal)
SIDES = st.sampled_from(Side)
ASSETS = st.sampled_from([USD, AAPL])


class LedgerMachine(RuleBasedStateMachine):
    """One account and a model of it: what came in, and the terms of each fill that stand."""

    fills: Bundle[str] = Bundle("fills")
    holds: Bundle[str] = Bundle("holds")

    @initialize()
    def begin(self) -> None:
        """Begin with nothing."""
        use_exact_decimals()
        self.ledger = Ledger()
        self.moved: dict[Asset, Decimal] = {USD: ZERO, AAPL: ZERO}
        self.terms: dict[str, tuple[Decimal, Decimal]] = {}
        self.roots: dict[str, str] = {}

    @rule(asset=ASSETS, amount=AMOUNTS)
    def deposit(self, asset: Asset, amount: Decimal) -> None:
        """Bring something in."""
        self.ledger.deposit(asset, amount)
        self.moved[asset] = total((self.moved[asset], amount))

    @rule(asset=ASSETS, amount=AMOUNTS)
    def withdraw(self, asset: Asset, amount: Decimal) -> None:
        """Take something out, if it is there."""
        enough = self.ledger.book.available(asset) >= amount
        try:
            self.ledger.withdraw(asset, amount)
        except FailedPreconditionError:
            assert not enough
        else:
            assert enough
            self.moved[asset] = total((self.moved[asset], -amount))

    @rule(target=fills, side=SIDES, quantity=AMOUNTS, price=PRICES)
    def fill(self, side: Side, quantity: Decimal, price: Decimal) -> str:
        """Trade."""
        exec_id = self.ledger.fill(side, quantity, price)
        self.roots[exec_id] = exec_id
        self.terms[exec_id] = _terms(side, quantity, price)
        return exec_id

    @rule(exec_id=fills)
    def repeat(self, exec_id: str) -> None:
        """A fill that is told again, with whatever terms, changes nothing."""
        before = self.ledger.book
        self.ledger.fill(Side.BUY, "7", "7", exec_id=exec_id)
        assert self.ledger.book == before

    @rule(exec_id=fills)
    def bust(self, exec_id: str) -> None:
        """Bust, also what was busted, corrected or settled."""
        self.ledger.bust(exec_id)
        self.terms[self.roots[exec_id]] = (ZERO, ZERO)

    @rule(target=fills, exec_id=fills, side=SIDES, quantity=AMOUNTS, price=PRICES)
    def correct(self, exec_id: str, side: Side, quantity: Decimal, price: Decimal) -> str:
        """Correct, also a correction."""
        corrected = self.ledger.correct(exec_id, side, quantity, price)
        self.roots[corrected] = self.roots[exec_id]
        self.terms[self.roots[exec_id]] = _terms(side, quantity, price)
        return corrected

    @rule(target=holds, asset=ASSETS, amount=AMOUNTS)
    def hold(self, asset: Asset, amount: Decimal) -> str:
        """Hold what is there."""
        if self.ledger.book.available(asset) >= amount:
            return self.ledger.hold(asset, amount)
        return ""

    @rule(hold=consumes(holds), captured=st.booleans())
    def end_hold(self, hold: str, *, captured: bool) -> None:
        """Capture or release."""
        if hold:
            kind = c.CaptureHold if captured else c.ReleaseHold
            self.ledger.do(kind(hold, "olga", self.ledger.moment))
            if captured:
                held = self.ledger.book.holds[hold]
                self.moved[held.asset] = total((self.moved[held.asset], -held.amount))

    @rule()
    def affirm(self) -> None:
        """Affirm all."""
        self.ledger.affirm_all()

    @rule()
    def let_a_day_pass(self) -> None:
        """Let what is pending become due."""
        self.ledger.next_day()

    @rule(seed=st.integers(0, 1 << 16))
    def settle(self, seed: int) -> None:
        """Try all, in any order: both legs move or neither."""
        waiting = list(self.ledger.book.settlements)
        random.Random(seed).shuffle(waiting)
        for settlement_id in waiting:
            before = self.ledger.book
            happened = self.ledger.attempt(settlement_id)
            settlement = self.ledger.book.settlements[settlement_id]
            if any(isinstance(event, e.SettlementSettled) for event in happened):
                for flow in settlement.flows:
                    assert self.ledger.book.available(flow.asset) == total((before.available(flow.asset), flow.amount))
            else:
                assert self.ledger.book.balances == before.balances

    @invariant()
    def balances_and_matches_the_model(self) -> None:
        """Check what must always hold."""
        book = self.ledger.book
        assert all(balanced(event.entries) for event in self.ledger.events)
        of_all = sums(entry for event in self.ledger.events for entry in event.entries)
        assert not any(of_all.values())
        for index, asset in enumerate((AAPL, USD)):
            kept = {account: book.balance(account, asset) for account in CLIENT}
            available, held, pending_in, pending_out = kept.values()
            assert min(available, held, pending_in, -pending_out) >= 0
            traded = total(terms[index] for terms in self.terms.values())
            assert total(kept.values()) == total((self.moved[asset], traded))
            assert held == total(hold.amount for hold in book.holds.values() if hold.asset == asset and hold.state is HoldState.ACTIVE)
            waiting = [settlement.flows[index].amount for settlement in book.settlements.values() if settlement.open]
            assert pending_in == total(amount for amount in waiting if amount > 0)
            assert pending_out == total(amount for amount in waiting if amount < 0)

    def teardown(self) -> None:
        """Give the account all it could need: everything settles, whatever happened before, and the events fold to the same."""
        if not hasattr(self, "ledger"):
            return
        ledger = self.ledger
        for asset in (USD, AAPL):
            ledger.deposit(asset, "10000000")
        for _ in range(2):
            ledger.next_day()
            ledger.settle()
        assert all(settlement.state in (SettlementState.SETTLED, SettlementState.CANCELED) for settlement in ledger.settlements)
        assert fold(Book("ACC-1"), ledger.events) == ledger.book
        busted = {root for root, terms in self.terms.items() if terms == (ZERO, ZERO)}
        assert {trade.key.exec_id for trade in ledger.book.trades.values() if trade.busted} == busted


def _terms(side: Side, quantity: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
    sign = 1 if side is Side.BUY else -1
    return sign * quantity, -sign * notional(price, quantity)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=50, deadline=None)
@given(
    trades=st.lists(st.tuples(SIDES, st.integers(1, 50).map(Decimal), st.integers(1, 50).map(Decimal)), min_size=1, max_size=8),
    data=st.data(),
)
def test_with_enough_of_everything_the_order_of_settlement_does_not_matter(
    trades: list[tuple[Side, Decimal, Decimal]], data: st.DataObject
) -> None:
    """Settle the same trades in two orders."""
    results = []
    for _ in range(2):
        ledger = Ledger()
        for asset in (USD, AAPL):
            ledger.deposit(asset, "100000")
        for side, quantity, price in trades:
            ledger.fill(side, quantity, price)
        ledger.settle_in(data.draw(st.permutations(list(ledger.book.settlements))))
        assert set(ledger.states) == {"SETTLED"}
        results.append(ledger.book.balances)
    assert results[0] == results[1]


@settings(max_examples=50, deadline=None)
@given(side=SIDES, quantity=AMOUNTS, price=PRICES, cash=st.integers(0, 100_000).map(Decimal), shares=st.integers(0, 1000).map(Decimal))
def test_a_bust_after_settlement_restores(side: Side, quantity: Decimal, price: Decimal, cash: Decimal, shares: Decimal) -> None:
    """What was there before the trade is there after its bust, settled or not."""
    ledger = Ledger()
    for asset, amount in ((USD, cash), (AAPL, shares)):
        if amount:
            ledger.deposit(asset, amount)
    before = {asset: ledger.amounts(asset) for asset in (USD, AAPL)}
    fill = ledger.fill(side, quantity, price)
    ledger.settle()
    ledger.bust(fill)
    for asset, amounts in before.items():
        assert [Decimal(amount) for amount in ledger.amounts(asset)] == [Decimal(amount) for amount in amounts]
