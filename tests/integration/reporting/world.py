"""svc_oms, svc_risk and svc_custody made of events: what their logs would say of a day's trading."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from kernel.ids import order_id as derived_order_id
from kernel.ports import LogPosition, RecordedEvent
from trademesh.custody.v1 import events_pb2 as custody_pb2
from trademesh.custody.v1 import settlement_pb2
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import events_pb2, execution_pb2, order_pb2
from trademesh.risk.v1 import events_pb2 as risk_pb2
from trademesh.risk.v1 import limit_pb2, reference_data_pb2

TENANT, VENUE, TODAY = "north", "XSIM", "2026-03-02"
START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
BUY, SELL = 1, 2


def stamp(moment: datetime) -> Timestamp:
    """Return a moment on the wire."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


class Log:
    """A producer's log, as long as it is so far; what a projection reads."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._versions: dict[str, int] = {}
        self._positions = itertools.count(1)
        self.events: list[RecordedEvent] = []

    @property
    def end(self) -> LogPosition:
        """Return the position of the last event."""
        return self.events[-1].position if self.events else LogPosition(0, 0)

    @property
    def now(self) -> datetime:
        """Return the time of the next event."""
        return START + timedelta(seconds=len(self.events))

    def record(self, stream_id: str, message: Message, *, kind: str | None = None) -> RecordedEvent:
        """Append an event; two of them share a transaction number."""
        number = next(self._positions)
        version = self._versions[stream_id] = self._versions.get(stream_id, 0) + 1
        name = self._prefix + (kind or message.DESCRIPTOR.name)
        event = RecordedEvent(LogPosition(100 + number // 2, number), stream_id, version, name, message.SerializeToString(), b"", self.now)
        self.events.append(event)
        return event

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """See `LogSource.read_after`."""
        return [event for event in self.events if event.position > cursor][:limit]


class Book:
    """An order at its venue, told by a test step by step."""

    def __init__(self, oms: Log, order_id: str, terms: events_pb2.OrderTerms) -> None:
        self._oms = oms
        self.order_id = order_id
        self.terms = terms
        self.version = 0
        self.filled = Decimal(0)
        self.value = Decimal(0)
        self._fills: dict[str, tuple[Decimal, Decimal]] = {}
        self._roots: dict[str, str] = {}

    def tell(self, message: Message, *, kind: str | None = None) -> RecordedEvent:
        """Record an event of this order."""
        if "event_time" in message.DESCRIPTOR.fields_by_name:
            event_time: Any = message
            event_time.event_time.CopyFrom(stamp(self._oms.now))
        event = self._oms.record(f"order-{self.order_id}", message, kind=kind)
        self.version = event.version
        return event

    def fill(
        self, exec_id: str, quantity: str, price: str, *, state: int = 3, trade_date: str = TODAY, late: bool = False
    ) -> RecordedEvent:
        """Record a fill."""
        return self._execution(exec_id, 1, "", Decimal(quantity), Decimal(price), state, trade_date, late)

    def bust(self, exec_id: str, busted: str, *, state: int = 2, trade_date: str = TODAY) -> RecordedEvent:
        """Record the bust of a fill, named as it is or by its last correction."""
        quantity, price = self._fills[self._roots.get(busted, busted)]
        return self._execution(exec_id, 2, busted, quantity, price, state, trade_date, late=False)

    def correct(self, exec_id: str, corrected: str, quantity: str, price: str, *, state: int = 3, trade_date: str = TODAY) -> RecordedEvent:
        """Record the correction of a fill."""
        return self._execution(exec_id, 3, corrected, Decimal(quantity), Decimal(price), state, trade_date, late=False)

    def _execution(
        self, exec_id: str, kind: int, ref: str, quantity: Decimal, price: Decimal, state: int, trade_date: str, late: bool
    ) -> RecordedEvent:
        root = self._roots[exec_id] = self._roots.get(ref, ref) or exec_id
        before = self._fills.get(root, (Decimal(0), Decimal(0)))
        after = (Decimal(0), before[1]) if kind == 2 else (quantity, price)
        self._fills[root] = after
        self.filled += after[0] - before[0]
        self.value += after[0] * after[1] - before[0] * before[1]
        execution = execution_pb2.Execution(
            exec_id=exec_id,
            order_id=self.order_id,
            client_order_id=self.terms.client_order_id,
            account_id=self.terms.account_id,
            instrument_id=self.terms.instrument_id,
            side=self.terms.side,
            type=kind,  # type: ignore[arg-type]  # a number of the contract
            exec_ref_id=ref,
            last_quantity=str(quantity),
            last_price=str(price),
            filled_quantity=str(self.filled),
            leaves_quantity="0" if late else str(Decimal(self.terms.quantity) - self.filled),
            venue=VENUE,
            trade_date=trade_date,
            transact_time=stamp(self._oms.now - timedelta(milliseconds=3)),
            order_version=self.version + 1,
            late=late,
        )
        if self.filled:
            execution.average_price = str(self.value / self.filled)
        return self.tell(events_pb2.ExecutionRecorded(execution=execution, venue_order_id=f"V-{self.terms.client_order_id}", state=state))  # type: ignore[arg-type]  # a number


class World:
    """Three logs, and the short ways to write them."""

    def __init__(self) -> None:
        self.oms, self.risk, self.custody = Log("oms.v1."), Log("risk.v1."), Log("custody.v1.")
        self._numbers = itertools.count(1)

    def source(self, name: str) -> Log:
        """Return a log by the name of its source."""
        log: Log = getattr(self, name)
        return log

    def account(self, account_id: str, tenant: str = TENANT) -> None:
        """Let risk create an account."""
        account = reference_data_pb2.Account(account_id=account_id, tenant=tenant, currency="USD", display_name="a name")
        self.risk.record(f"account-{account_id}", risk_pb2.AccountCreated(account=account, principal="root"))

    def instrument(self, instrument_id: str, currency: str = "USD") -> None:
        """Let risk create an instrument, or change it."""
        instrument = reference_data_pb2.Instrument(instrument_id=instrument_id, currency=currency, venue=VENUE)
        self.risk.record(f"instrument-{instrument_id}", risk_pb2.InstrumentCreated(instrument=instrument, principal="root"))

    def order(
        self,
        side: int = BUY,
        quantity: str = "10",
        price: str | None = "100",
        *,
        account: str = "ACC-1",
        instrument: str = "AAPL",
        key: str | None = None,
        labels: dict[str, str] | None = None,
        routed: bool = True,
    ) -> Book:
        """Let svc_oms accept an order, and route it."""
        book = self._begin(side, quantity, price, account, instrument, key, labels)
        book.tell(events_pb2.OrderAccepted(terms=book.terms))
        if routed:
            book.tell(events_pb2.OrderRouted(venue=VENUE, venue_client_order_id=f"T{book.terms.client_order_id}", message_sequence=7))
        return book

    def rejected(self, *, account: str = "ACC-1", text: str = "too much") -> Book:
        """Let risk refuse an order."""
        book = self._begin(BUY, "1000000", "100", account, "AAPL", None, None)
        breach = limit_pb2.LimitBreach(
            reason=error_reason_pb2.ERROR_REASON_MAX_NOTIONAL_EXCEEDED, scope=f"account/{account}", limit="5", actual="10", text=text
        )
        reject = order_pb2.OrderReject(reason=error_reason_pb2.ERROR_REASON_MAX_NOTIONAL_EXCEEDED, text=text, breaches=[breach])
        book.tell(events_pb2.OrderRejected(terms=book.terms, reject=reject))
        return book

    def _begin(
        self, side: int, quantity: str, price: str | None, account: str, instrument: str, key: str | None, labels: dict[str, str] | None
    ) -> Book:
        key = key or f"c-{next(self._numbers)}"
        order_id = derived_order_id(account, key)
        terms = events_pb2.OrderTerms(
            order_id=order_id,
            client_order_id=key,
            account_id=account,
            tenant=TENANT,
            principal="ada",
            instrument_id=instrument,
            side=side,  # type: ignore[arg-type]  # a number of the contract
            type=1 if price is None else 2,  # type: ignore[arg-type]  # a number of the contract
            time_in_force=1,  # type: ignore[arg-type]  # a number of the contract
            quantity=quantity,
            labels=labels,
            venue=VENUE,
        )
        if price is not None:
            terms.limit_price = price
        return Book(self.oms, order_id, terms)

    def instructed(self, settlement_id: str, exec_id: str, *, account: str = "ACC-1", trade_date: str = TODAY) -> None:
        """Let custody make an instruction of a trade."""
        made = settlement_pb2.Settlement(
            settlement_id=settlement_id,
            account_id=account,
            venue=VENUE,
            trade_date=trade_date,
            exec_id=exec_id,
            settlement_date="2026-03-03",
            state=settlement_pb2.SETTLEMENT_STATE_INSTRUCTED,
        )
        self.custody.record(f"ledger-{account}", custody_pb2.SettlementInstructed(settlement=made))

    def settled(self, settlement_id: str, *, account: str = "ACC-1") -> None:
        """Let custody settle an instruction."""
        self.custody.record(f"ledger-{account}", custody_pb2.SettlementSettled(settlement_id=settlement_id))


def trading_day(accounts: Sequence[str] = ("ACC-1", "ACC-2")) -> World:
    """Return a world in which everything happens that a report has a row for."""
    world = World()
    for account_id in accounts:
        world.account(account_id)
    world.account("ACC-9", "south")
    world.instrument("AAPL")
    world.instrument("MSFT")
    plain = world.order(BUY, "10", labels={"desk": "=cash", "algo": "vwap"})
    plain.tell(events_pb2.OrderAcknowledged(venue_order_id="V-1", exec_id="A-1", trade_date=TODAY, transact_time=stamp(START)))
    plain.fill("E-1", "4", "99.5")
    plain.fill("E-2", "6", "99.75", state=4)
    sold = world.order(SELL, "7.5", "101.25", account="ACC-2", instrument="MSFT")
    sold.fill("E-3", "7.5", "101.3", state=4)
    sold.correct("E-4", "E-3", "7", "101.31", state=3)
    sold.correct("E-5", "E-4", "7.5", "101.31", state=4)
    sold.bust("E-6", "E-5", state=2, trade_date="2026-03-03")
    changed = world.order(BUY, "10")
    changed.tell(events_pb2.OrderAcknowledged(venue_order_id="V-3", exec_id="A-3", trade_date=TODAY, transact_time=stamp(START)))
    changed.tell(
        events_pb2.ReplaceRequested(principal="bob", request_id="8f14e45f-ceea-467f-9575-6d0b7a2f3b11", quantity="20", limit_price="99")
    )
    changed.tell(events_pb2.OrderReplaced(exec_id="R-1", trade_date=TODAY, quantity="20", limit_price="99", venue_order_id="V-3b"))
    changed.tell(events_pb2.CancelRequested(principal="bob", request_id="8f14e45f-ceea-467f-9575-6d0b7a2f3b12"))
    changed.tell(events_pb2.OrderCanceled(exec_id="C-1", trade_date=TODAY, text='by "request", of course'))
    changed.fill("E-7", "2", "98.5", state=6, late=True)
    world.rejected(text="=HYPERLINK(1)")
    world.oms.record("kill-firm-*", events_pb2.KillSwitchApplied(scope="firm/*", active=True))
    world.order(BUY, "3", None, account="ACC-9", key="foreign").fill("E-8", "3", "100", state=4)
    odd = world.order(SELL, "1", routed=False)
    odd.tell(events_pb2.AnomalyRecorded(text="no rule,\r\nfits", report=b"8=FIX.4.4\x01"))
    odd.tell(events_pb2.OrderMarkedUnknown(venue_client_order_id="T9"))
    odd.tell(events_pb2.OrderStateChanged(state=order_pb2.ORDER_STATE_EXPIRED, text="over"))
    odd.tell(events_pb2.KillSwitchApplied(scope="nobody"), kind="OrderBlessed")
    abandoned = derived_order_id("ACC-1", "never")
    world.oms.record(
        f"order-{abandoned}", events_pb2.OrderAbandoned(order_id=abandoned, account_id="ACC-1", event_time=stamp(world.oms.now))
    )
    world.instructed("S-1", "E-1")
    world.instructed("S-2", "E-2")
    world.settled("S-1")
    return world
