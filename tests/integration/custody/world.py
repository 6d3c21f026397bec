"""svc_oms's and svc_risk's logs as a test writes them, and the replica that follows them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from kernel.clock import ManualClock, SystemClock
from kernel.ids import Uuid7Source
from kernel.ports import LOG_START, LogPosition, RecordedEvent
from kernel.postgres import Database
from kernel.projection_store import Inboxed
from svc_custody.clients.calendars import HolidayCalendars
from svc_custody.consumer import executions, reference_data
from svc_custody.consumer.reference_data import ReferenceData
from svc_custody.domain import commands as c
from svc_custody.domain.vocabulary import Asset, LedgerAccount, cash, security
from svc_custody.main import Stores, Work, open_stores, open_work
from svc_custody.store.ledgers import Decisions, Need
from trademesh.oms.v1 import events_pb2 as oms_events_pb2
from trademesh.oms.v1 import execution_pb2
from trademesh.risk.v1 import events_pb2 as risk_events_pb2
from trademesh.risk.v1 import reference_data_pb2

TENANT = "north"
FRIDAY = date(2026, 11, 20)
MONDAY = date(2026, 11, 23)
FRIDAY_NOON = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)
USD, AAPL, BTC = cash("USD"), security("AAPL"), security("BTC-USD")


@dataclass
class Log:
    """Another service's log; it settles at once."""

    events: list[RecordedEvent] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def append(self, stream_id: str, message: Message, package: str) -> RecordedEvent:
        """Record an event."""
        version = self.versions[stream_id] = self.versions.get(stream_id, 0) + 1
        position = LogPosition(1_000 + len(self.events), len(self.events) + 1)
        name = f"{package}.v1.{message.DESCRIPTOR.name}"
        event = RecordedEvent(position, stream_id, version, name, message.SerializeToString(), b"", datetime.now(UTC))
        self.events.append(event)
        return event

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """See `LogSource`."""
        return [event for event in self.events if event.position > cursor][:limit]


class Orders(Log):
    """svc_oms's log, of executions alone: orders need no acceptance here."""

    def __init__(self) -> None:
        super().__init__()
        self._executions: dict[str, execution_pb2.Execution] = {}

    def fill(self, side: str, quantity: str, price: str, **more: Any) -> str:
        """Record a fill; return its exec id."""
        exec_id = more.pop("exec_id", None) or f"E{len(self.events) + 1}"
        execution = execution_pb2.Execution(
            exec_id=exec_id,
            order_id=more.pop("order_id", None) or str(uuid.uuid4()),
            account_id=more.pop("account_id", "ACC-1"),
            instrument_id=more.pop("instrument_id", "AAPL"),
            side=1 if side == "buy" else 2,  # type: ignore[arg-type]  # the contract's numbers
            type=execution_pb2.EXECUTION_TYPE_TRADE,
            last_quantity=quantity,
            last_price=price,
            venue="XSIM",
            trade_date=more.pop("trade_date", FRIDAY.isoformat()),
        )
        assert not more, more
        return self._record(execution)

    def bust(self, exec_ref_id: str) -> str:
        """Record a bust."""
        return self._amend(exec_ref_id, execution_pb2.EXECUTION_TYPE_TRADE_CANCEL)

    def correct(self, exec_ref_id: str, quantity: str, price: str, trade_date: str | None = None) -> str:
        """Record a correction."""
        more = {} if trade_date is None else {"trade_date": trade_date}
        return self._amend(exec_ref_id, execution_pb2.EXECUTION_TYPE_TRADE_CORRECT, last_quantity=quantity, last_price=price, **more)

    def _amend(self, exec_ref_id: str, kind: Any, **terms: str) -> str:
        execution = execution_pb2.Execution()
        execution.CopyFrom(self._executions[exec_ref_id])
        execution.type, execution.exec_ref_id, execution.exec_id = kind, exec_ref_id, f"E{len(self.events) + 1}"
        for name, value in terms.items():
            setattr(execution, name, value)
        return self._record(execution)

    def _record(self, execution: execution_pb2.Execution) -> str:
        self._executions[execution.exec_id] = execution
        self.append(f"order-{execution.order_id}", oms_events_pb2.ExecutionRecorded(execution=execution), "oms")
        return execution.exec_id


class Reference(Log):
    """svc_risk's log, of accounts and instruments."""

    def account(self, account_id: str, tenant: str = TENANT) -> None:
        """Record an account."""
        account = reference_data_pb2.Account(account_id=account_id, tenant=tenant, currency="USD", version=1)
        self.append(f"account-{account_id}", risk_events_pb2.AccountCreated(account=account), "risk")

    def instrument(self, instrument_id: str, *, crypto: bool = False, holidays: Sequence[str] = ()) -> None:
        """Record an instrument priced in USD."""
        instrument = reference_data_pb2.Instrument(
            instrument_id=instrument_id,
            asset_class=2 if crypto else 1,  # type: ignore[arg-type]  # the contract's numbers
            currency="USD",
            venue="XSIM",
            calendar=reference_data_pb2.TradingCalendar(time_zone="UTC", holidays=list(holidays)),
            version=1,
        )
        self.append(f"instrument-{instrument_id}", risk_events_pb2.InstrumentCreated(instrument=instrument), "risk")


class Custodian:
    """One replica: its stores and what moves ledgers, driven step by step."""

    def __init__(self, database: Database, orders: Orders, reference: Reference, *, affirm_seconds: float = 0) -> None:
        clock = SystemClock()
        self.day = ManualClock(FRIDAY_NOON)
        self.ids = Uuid7Source(clock)
        self.stores: Stores = open_stores(database, clock, self.ids.new_id())
        self.work: Work = open_work(self.stores, self.day, HolidayCalendars(), affirm_seconds=affirm_seconds)
        self.orders = orders
        self.reference = reference
        self.folded = LOG_START
        self.known = LOG_START

    async def learn(self) -> None:
        """Fold svc_risk's log."""
        model = Inboxed(ReferenceData(self.stores.facts).apply)
        events = await self.reference.read_after(self.known, 1_000)
        self.known = await self._apply(reference_data.NAME, reference_data.SOURCE, events, model, self.known)

    async def follow(self, events: Sequence[RecordedEvent] | None = None) -> None:
        """Fold svc_oms's log, or the events given."""
        told = await self.orders.read_after(self.folded, 1_000) if events is None else events
        model = Inboxed(self.work.executions.apply)
        self.folded = await self._apply(executions.NAME, executions.SOURCE, told, model, self.folded)

    async def _apply(self, name: str, source: str, events: Sequence[RecordedEvent], model: Inboxed, before: LogPosition) -> LogPosition:
        if not events:
            return before
        lease = await self.stores.leases.acquire(f"projection:{name}:{source}")
        assert lease is not None
        try:
            await self.stores.projections.apply(lease, name, source, events[-1].position, events, model)
        finally:
            await self.stores.leases.release(lease)
        return events[-1].position

    async def deposit(self, asset: Asset, amount: str, account_id: str = "ACC-1") -> None:
        """Book a deposit."""
        deposit_id = self.ids.new_id()
        async with self.stores.database.transaction() as transaction:
            locked = await self.stores.ledgers.lock(transaction, [account_id])
            decisions = Decisions(await self.stores.ledgers.load(transaction, [account_id], Need(assets={asset})))
            decisions.decide(account_id, c.PostDeposit(deposit_id, asset, Decimal(amount), "", "olga", locked.moment))
            await self.stores.ledgers.record(transaction, locked, decisions)

    async def advance(self) -> int:
        """Let the wall clock reach the next business day, and settle; return how many instructions settled."""
        today = await self.stores.dates.current()
        assert today is not None
        await self.stores.dates.follow(self.work.clock.after(today))
        return await self.work.settling.settle()

    async def begin(self) -> None:
        """Write the business date, a Friday."""
        await self.stores.dates.follow(self.work.clock.today())

    async def balance(self, asset: Asset, account_id: str = "ACC-1") -> tuple[str, str, str, str]:
        """Return what is available, held, pending in and pending out."""
        found = {
            total.ledger_account: total.balance
            for total in await self.stores.reads.balances(account_id, asset.type)
            if total.asset == asset
        }
        amounts = [found.get(account, Decimal(0)) for account in list(LedgerAccount)[:4]]
        available, held, pending_in, pending_out = (f"{amount.normalize():f}" for amount in amounts)
        return available, held, pending_in, pending_out

    async def settlements(self, account_id: str = "ACC-1") -> list[Any]:
        """Return the instructions, oldest first."""
        listed = await self.stores.reads.settlements(account_id, state=0, settlement_date=None, order_id="", before=2**31 - 1, limit=500)
        return [one.settlement for one in reversed(listed)]

    async def states(self, account_id: str = "ACC-1") -> list[str]:
        """Return where the instructions stand, oldest first."""
        return [settlement.state.name for settlement in await self.settlements(account_id)]
