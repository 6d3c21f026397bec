"""Records of holdings that agree: what the auditor of holdings is tested with, before a violation is planted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from tests.e2e.crash.holdings_audit import Deposits, audit_holdings
from tests.e2e.crash.holdings_record import (
    AFFIRMED,
    AVAILABLE,
    CANCELED,
    CASH,
    OMNIBUS,
    PENDING_IN,
    PENDING_OUT,
    SECURITY,
    SETTLED,
    VENUE,
    Asset,
    CopiedEvent,
    CustodyRecord,
    Deposit,
    HoldingsRecord,
    Instruction,
    LedgerEntry,
    Lot,
    PortfolioExecution,
    PortfolioRecord,
    Posting,
    ReportingRecord,
    Standing,
)
from tests.e2e.crash.order_record import OrderHistory, OrderRecord, Told
from trademesh.oms.v1 import events_pb2, execution_pb2
from trademesh.type.v1 import order_terms_pb2

ACCOUNT, TODAY, XSIM = "CRASH-0", "2026-11-20", "XSIM"
AAPL, USD = Asset(SECURITY, "AAPL"), Asset(CASH, "USD")
HOLDING = (ACCOUNT, "AAPL")
BUYS, SELLS = "o-buys", "o-sells"
TRADE, BUST, CORRECTION = (
    execution_pb2.EXECUTION_TYPE_TRADE,
    execution_pb2.EXECUTION_TYPE_TRADE_CANCEL,
    execution_pb2.EXECUTION_TYPE_TRADE_CORRECT,
)


@dataclass
class Records:
    """What the auditor is given."""

    orders: OrderRecord
    holdings: HoldingsRecord
    deposits: Deposits

    @property
    def custody(self) -> CustodyRecord:
        return self.holdings.custody

    @property
    def portfolio(self) -> PortfolioRecord:
        return self.holdings.portfolio

    @property
    def reporting(self) -> ReportingRecord:
        return self.holdings.reporting

    def audit(self) -> list[str]:
        return audit_holdings(self.orders, self.holdings, self.deposits)


def told(number: int, kind: execution_pb2.ExecutionType.ValueType, quantity: int, price: int, reference: str = "") -> Told:
    return Told((number, number), number, kind, XSIM, TODAY, f"X-{number}", reference, Decimal(quantity), Decimal(price))


def order(order_id: str, side: order_terms_pb2.Side.ValueType, executions: list[Told], fills: dict[str, tuple[int, int]]) -> OrderHistory:
    terms = events_pb2.OrderTerms(order_id=order_id, account_id=ACCOUNT, instrument_id="AAPL", side=side)
    counted = {(TODAY, exec_id): (Decimal(quantity), Decimal(price)) for exec_id, (quantity, price) in fills.items()}
    return OrderHistory(order_id, terms=terms, told=executions, fills=counted)


def agreeing() -> Records:
    """Four were bought; one was sold, settled, and corrected afterwards; two more were bought, and that was busted before it settled."""
    bought = [told(1, TRADE, 4, 49), told(4, TRADE, 2, 50), told(5, BUST, 2, 50, "X-4")]
    sold = [told(2, TRADE, 1, 51), told(3, CORRECTION, 1, 52, "X-2")]
    histories = {
        BUYS: order(BUYS, order_terms_pb2.SIDE_BUY, bought, {"X-1": (4, 49)}),
        SELLS: order(SELLS, order_terms_pb2.SIDE_SELL, sold, {"X-2": (1, 52)}),
    }
    deposit = Deposit(ACCOUNT, USD, Decimal(1_000))
    holdings = HoldingsRecord(_portfolio(), _Ledger().record(), _reporting(histories))
    return Records(OrderRecord(histories, {}, [], [], {}), holdings, Deposits({"key": deposit}, {"key": "d-1"}))


def _portfolio() -> PortfolioRecord:
    standings = [(4, 196, 0), (3, 147, 2), (3, 147, 3), (5, 247, 3), (3, 147, 3)]
    changes = [Standing(version, *map(Decimal, values)) for version, values in enumerate(standings, start=1)]
    executions = [
        PortfolioExecution(
            (TODAY, f"X-{number}"), (TODAY, root), ACCOUNT, "AAPL", BUYS if is_buy else SELLS, kind, is_buy, Decimal(quantity),
            Decimal(price), (number, number),
        )
        for number, root, kind, is_buy, quantity, price in (
            (1, "X-1", TRADE, True, 4, 49), (2, "X-2", TRADE, False, 1, 51), (3, "X-2", CORRECTION, False, 1, 52),
            (4, "X-4", TRADE, True, 2, 50), (5, "X-4", BUST, True, 2, 50),
        )
    ]  # fmt: skip
    lots = {HOLDING: [Lot(TODAY, "X-1", True, Decimal(49), Decimal(3))]}
    return PortfolioRecord(executions, {HOLDING: changes[-1]}, lots, {HOLDING: Decimal(3)}, {HOLDING: changes}, {HOLDING: [*changes]})


class _Ledger:
    """Books one account's events as custody would."""

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []
        self._postings: list[Posting] = []
        self._instructions: list[Instruction] = []

    def record(self) -> CustodyRecord:
        self._book("DepositPosted", "d-1", [(AVAILABLE, USD, 1_000), (OMNIBUS, USD, -1_000)])
        self._trade("X-1", 4, -196)
        self._instruct("S-1", "X-1", 4, -196, SETTLED)
        self._trade("X-2", -1, 51)
        self._instruct("S-2", "X-2", -1, 51, SETTLED)
        self._trade("X-2", 1, -51, "TradeReversed")
        self._instruct("S-3", "X-2", 1, -51, SETTLED, reverses="S-2")
        self._trade("X-2", -1, 52)
        self._instruct("S-4", "X-2", -1, 52, AFFIRMED)
        self._trade("X-4", 2, -100)
        self._instruct("S-5", "X-4", 2, -100, CANCELED)
        self._book("TradeReversed", "X-4", [(account, asset, -amount) for account, asset, amount in _pending(2, -100)])
        self._book("SettlementCanceled", "S-5", [])
        balances: dict[tuple[str, Asset, int, str], Decimal] = defaultdict(Decimal)
        for entry in self._entries:
            balances[entry.account_id, entry.asset, entry.ledger_account, entry.venue] += entry.amount
        return CustodyRecord(
            self._entries, dict(balances), self._instructions, self._postings, {"d-1": Deposit(ACCOUNT, USD, Decimal(1_000))},
            [(ACCOUNT, TODAY, f"X-{number}") for number in range(1, 6)], 0, date(2026, 11, 20), [],
        )  # fmt: skip

    def _trade(self, exec_id: str, securities: int, cash: int, name: str = "TradePosted") -> None:
        self._book(name, exec_id, _pending(securities, cash))

    def _instruct(self, settlement_id: str, exec_id: str, securities: int, cash: int, state: int, reverses: str = "") -> None:
        self._instructions.append(
            Instruction(
                settlement_id, ACCOUNT, TODAY, exec_id, "AAPL", Decimal(securities), "USD", Decimal(cash), state, False, reverses
            )
        )  # fmt: skip
        self._book("SettlementInstructed", settlement_id, [])
        if state == SETTLED:
            lines = [(account, asset, -amount) for account, asset, amount in _pending(securities, cash)]
            for asset, amount in ((AAPL, securities), (USD, cash)):
                lines += [(AVAILABLE, asset, amount), (OMNIBUS, asset, -amount)]
            self._book("SettlementSettled", settlement_id, lines)

    def _book(self, name: str, subject: str, lines: list[tuple[int, Asset, int]]) -> None:
        version = len(self._postings) + 1
        self._postings.append(Posting(ACCOUNT, version, name, subject, len(lines)))
        for account, asset, amount in lines:
            venue = XSIM if account == VENUE else ""
            self._entries.append(LedgerEntry(ACCOUNT, version, account, asset, venue, Decimal(amount), name, subject))


def _pending(securities: int, cash: int) -> list[tuple[int, Asset, int]]:
    lines = []
    for asset, amount in ((AAPL, securities), (USD, cash)):
        lines += [(PENDING_IN if amount > 0 else PENDING_OUT, asset, amount), (VENUE, asset, -amount)]
    return lines


def _reporting(histories: dict[str, OrderHistory]) -> ReportingRecord:
    executions = [(item.order_id, execution) for item in histories.values() for execution in item.told]
    log = [CopiedEvent(item.place, order_id, item.version, "oms.v1.ExecutionRecorded", b"") for order_id, item in executions]
    return ReportingRecord([*log], log, [(order_id, item.version) for order_id, item in executions], 9)
