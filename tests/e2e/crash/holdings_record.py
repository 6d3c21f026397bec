"""What custody, portfolio and reporting have on disk of the same trades: their tables, and their events where those say it better."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from trademesh.custody.v1 import events_pb2 as custody_pb2
from trademesh.portfolio.v1 import events_pb2 as portfolio_pb2

AVAILABLE, HELD, PENDING_IN, PENDING_OUT, VENUE, OMNIBUS, SUSPENSE = range(1, 8)
CLIENT = frozenset({AVAILABLE, HELD, PENDING_IN, PENDING_OUT})
CASH, SECURITY = 1, 2
INSTRUCTED, AFFIRMED, SETTLED, FAILED, CANCELED = range(1, 6)

Holding = tuple[str, str]
"""An account and an instrument."""
Root = tuple[str, str, str]
"""A fill: account, trade date, exec id."""


class Asset(NamedTuple):
    """A currency or an instrument, as custody has it."""

    type: int
    asset_id: str


class Lot(NamedTuple):
    """What is still open of a fill."""

    trade_date: str
    exec_id: str
    is_buy: bool
    price: Decimal
    remaining: Decimal


class PortfolioExecution(NamedTuple):
    """An execution as portfolio keeps it. `root` is the trade date and id of the fill that it is about."""

    key: tuple[str, str]
    root: tuple[str, str]
    account_id: str
    instrument_id: str
    order_id: str
    type: int
    is_buy: bool
    quantity: Decimal
    price: Decimal
    place: tuple[int, int]


class Standing(NamedTuple):
    """A position after some executions."""

    version: int
    quantity: Decimal
    cost: Decimal
    realised: Decimal


@dataclass(slots=True)
class PortfolioRecord:
    """`changes` and `events` are the histories of a position, by its table and by portfolio's own log, in order of their versions."""

    executions: list[PortfolioExecution]
    positions: dict[Holding, Standing]
    lots: dict[Holding, list[Lot]]
    matched: dict[Holding, Decimal]
    changes: dict[Holding, list[Standing]]
    events: dict[Holding, list[Standing]]


class LedgerEntry(NamedTuple):
    """One line of a posting. `version` is that of the account's stream, `reference` the deposit, trade or instruction."""

    account_id: str
    version: int
    ledger_account: int
    asset: Asset
    venue: str
    amount: Decimal
    event_type: str
    reference: str


class Instruction(NamedTuple):
    """A settlement instruction; amounts are the account's, positive is received."""

    settlement_id: str
    account_id: str
    trade_date: str
    exec_id: str
    instrument_id: str
    securities: Decimal
    currency: str
    cash: Decimal
    state: int
    due: bool
    reverses: str

    @property
    def root(self) -> Root:
        """The fill that it is for."""
        return self.account_id, self.trade_date, self.exec_id

    @property
    def legs(self) -> dict[Asset, Decimal]:
        """What it moves."""
        return {Asset(SECURITY, self.instrument_id): self.securities, Asset(CASH, self.currency): self.cash}


class Deposit(NamedTuple):
    """What came in."""

    account_id: str
    asset: Asset
    amount: Decimal


class Posting(NamedTuple):
    """An event of a ledger: its name, what it is about (a deposit, an instruction; empty for trades), and how many lines it booked."""

    account_id: str
    version: int
    name: str
    subject: str
    lines: int


@dataclass(slots=True)
class CustodyRecord:
    """`balances` by account, asset, ledger account and venue; `postings` are custody's events; `days_advanced` those that people moved."""

    entries: list[LedgerEntry]
    balances: dict[tuple[str, Asset, int, str], Decimal]
    instructions: list[Instruction]
    postings: list[Posting]
    deposits: dict[str, Deposit]
    executions: list[tuple[str, str, str]]
    parked: int
    business_date: date
    days_advanced: list[tuple[str, str]]


class CopiedEvent(NamedTuple):
    """An order's event as reporting has copied it, or as svc_oms has it."""

    place: tuple[int, int]
    order_id: str
    version: int
    type: str
    payload: bytes


@dataclass(slots=True)
class ReportingRecord:
    """`orders` is the copy and `log` the original; `executions` the rows that reports take for executions; the rest are counts by name."""

    orders: list[CopiedEvent]
    log: list[CopiedEvent]
    executions: list[tuple[str, int]]
    settlement_events: int


@dataclass(slots=True)
class HoldingsRecord:
    """All of it, at one moment."""

    portfolio: PortfolioRecord
    custody: CustodyRecord
    reporting: ReportingRecord


async def read_holdings_record(connection: asyncpg.Connection) -> HoldingsRecord:
    """Read all of it at one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return HoldingsRecord(await _portfolio(connection), await _custody(connection), await _reporting(connection))


async def _portfolio(connection: asyncpg.Connection) -> PortfolioRecord:
    executions = [
        PortfolioExecution(
            (row["trade_date"], row["exec_id"]), (row["root_trade_date"], row["root_exec_id"]), row["account_id"], row["instrument_id"],
            row["order_id"], row["type"], row["side"] == 1, row["quantity"], row["price"], (row["log_tx"], row["log_position"]),
        )
        for row in await connection.fetch("SELECT * FROM svc_portfolio.execution")
    ]  # fmt: skip
    positions = {_holding(row): _standing(row) for row in await connection.fetch("SELECT * FROM svc_portfolio.current_position")}
    record = PortfolioRecord(executions, positions, {}, {}, {}, {})
    for row in await connection.fetch("SELECT * FROM svc_portfolio.lot WHERE remaining > 0 ORDER BY log_tx, log_position"):
        lot = Lot(row["trade_date"], row["exec_id"], row["side"] == 1, row["price"], row["remaining"])
        record.lots.setdefault(_holding(row), []).append(lot)
    matched = "SELECT account_id, instrument_id, sum(realised) AS realised FROM svc_portfolio.lot_match GROUP BY 1, 2"
    record.matched = {_holding(row): row["realised"] for row in await connection.fetch(matched)}
    for row in await connection.fetch("SELECT * FROM svc_portfolio.position_change ORDER BY version"):
        record.changes.setdefault(_holding(row), []).append(_standing(row))
    told = "SELECT stream_id, version, payload FROM svc_portfolio.event WHERE type = 'portfolio.v1.PositionChanged' ORDER BY version"
    for row in await connection.fetch(told):
        change = portfolio_pb2.PositionChanged.FromString(row["payload"]).change
        assert row["stream_id"] == f"position-{change.account_id}/{change.instrument_id}"
        standing = Standing(row["version"], Decimal(change.quantity), Decimal(change.cost), Decimal(change.realised_pnl))
        record.events.setdefault((change.account_id, change.instrument_id), []).append(standing)
    return record


async def _custody(connection: asyncpg.Connection) -> CustodyRecord:
    entries = [
        LedgerEntry(
            row["account_id"], row["version"], row["ledger_account"], _asset(row), row["venue"], row["amount"],
            row["event_type"].removeprefix("custody.v1."), row["reference_id"],
        )
        for row in await connection.fetch("SELECT * FROM svc_custody.ledger_entry ORDER BY account_id, version, line")
    ]  # fmt: skip
    balances = {
        (row["account_id"], _asset(row), row["ledger_account"], row["venue"]): row["balance"]
        for row in await connection.fetch("SELECT * FROM svc_custody.ledger_balance")
    }
    today = await connection.fetchval("SELECT business_date FROM svc_custody.business_date")
    executions = await connection.fetch("SELECT account_id, trade_date::text, exec_id FROM svc_custody.execution")
    record = CustodyRecord(
        entries=entries,
        balances=balances,
        instructions=[_instruction(row, today) for row in await connection.fetch("SELECT * FROM svc_custody.settlement")],
        postings=[],
        deposits={},
        executions=[tuple(row) for row in executions],
        parked=await connection.fetchval("SELECT count(*) FROM svc_custody.parked_execution"),
        business_date=today,
        days_advanced=[],
    )
    for row in await connection.fetch("SELECT stream_id, version, type, payload FROM svc_custody.event ORDER BY stream_id, version"):
        _event(record, row)
    return record


def _event(record: CustodyRecord, row: asyncpg.Record) -> None:
    name = row["type"].removeprefix("custody.v1.")
    event: Any = getattr(custody_pb2, name).FromString(row["payload"])
    if name == "BusinessDateAdvanced":
        if event.principal:
            record.days_advanced.append((event.previous_date, event.business_date))
        return
    account_id = row["stream_id"].removeprefix("ledger-")
    subject = event.settlement.settlement_id if name == "SettlementInstructed" else getattr(event, "settlement_id", "")
    if name == "DepositPosted":
        subject = event.deposit_id
        (amount,) = [entry for entry in event.posting.entries if entry.ledger_account == AVAILABLE]
        record.deposits[subject] = Deposit(account_id, Asset(amount.asset_type, amount.asset_id), Decimal(amount.amount))
    record.postings.append(Posting(account_id, row["version"], name, subject, len(event.posting.entries)))


async def _reporting(connection: asyncpg.Connection) -> ReportingRecord:
    copied = await connection.fetch("SELECT tx, position, order_id::text, version, type, payload, execution FROM svc_reporting.order_event")
    log = await connection.fetch(
        "SELECT tx::text::bigint AS tx, position, substr(stream_id, 7) AS order_id, version, type, payload"
        " FROM svc_oms.event WHERE stream_id LIKE 'order-%'"
    )
    return ReportingRecord(
        orders=[_copied(row) for row in copied],
        log=[_copied(row) for row in log],
        executions=[(row["order_id"], row["version"]) for row in copied if row["execution"]],
        settlement_events=await connection.fetchval("SELECT count(*) FROM svc_reporting.settlement_event"),
    )


def _copied(row: asyncpg.Record) -> CopiedEvent:
    return CopiedEvent((row["tx"], row["position"]), row["order_id"], row["version"], row["type"], row["payload"])


def _instruction(row: asyncpg.Record, today: date) -> Instruction:
    return Instruction(
        str(row["settlement_id"]), row["account_id"], row["trade_date"].isoformat(), row["exec_id"], row["instrument_id"],
        row["securities_amount"], row["currency"], row["cash_amount"], row["state"],
        row["cycle_days"] == 0 or row["settlement_date"] <= today, str(row["reverses_settlement_id"] or ""),
    )  # fmt: skip


def _holding(row: asyncpg.Record) -> Holding:
    return row["account_id"], row["instrument_id"]


def _standing(row: asyncpg.Record) -> Standing:
    return Standing(row["version"], row["quantity"], row["cost"], row["realised"])


def _asset(row: asyncpg.Record) -> Asset:
    return Asset(row["asset_type"], row["asset_id"])
