"""Venue reports in the database: once each, whatever comes twice, late or at once; and refolding the log gives the same rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from kernel.errors import LeaseLostError, OutcomeUnknownError, Reason, TrademeshError
from kernel.fix import tags
from kernel.fix.steps import AppMessage, ResendRange, Sequences, StoredMessage
from kernel.lease import PostgresLeases
from kernel.ports import HeldLease, LogPosition
from svc_oms.codec.events import decode
from svc_oms.domain import Action, OrderState, ReportKind, fold
from svc_oms.domain.commands import VenueReport
from svc_oms.fix.ports import InboundBatch, SessionChange
from svc_oms.fix.reports import MessageRefused, NumbersSkipped, OrderReport, UnreadableReport
from svc_oms.router.host import SessionTransactions
from svc_oms.router.sweep import Sweeper
from svc_oms.store.orders import OrderUnit
from svc_oms.store.projection import open_requests, snapshot_of
from svc_oms.store.venue_requests import QueuedRequest, unanswered
from tests.integration.oms import world
from tests.integration.oms.world import Replica
from tests.unit.oms import make
from trademesh.oms.v1 import order_control_service_pb2


class Session:
    """A venue session of one replica, with the lease and without the socket."""

    def __init__(self, replica: Replica, lease: HeldLease, host: SessionTransactions) -> None:
        self.replica = replica
        self.lease = lease
        self.host = host
        self.next_in = 1
        self.next_out = 1
        self.sent: list[AppMessage] = []

    @classmethod
    async def take(cls, replica: Replica, *, venue: str = world.VENUE, ttl_seconds: float = 6.0) -> Session:
        """Take the lease and load the numbers."""
        leases = replica.leases(ttl_seconds=ttl_seconds)
        lease = await leases.acquire(f"venue-session/{venue}")
        assert lease is not None
        return await cls.holding(replica, leases, lease, venue=venue)

    @classmethod
    async def holding(cls, replica: Replica, leases: PostgresLeases, lease: HeldLease, *, venue: str = world.VENUE) -> Session:
        """Load the numbers under a lease."""
        session = cls(replica, lease, SessionTransactions(venue, replica.store, leases, lambda: lease, replica.clock))
        session.next_in, session.next_out = (numbers := await session.host.load()).next_in, numbers.next_out
        return session

    def number(self, messages: Sequence[AppMessage]) -> SessionChange:
        """Give messages their numbers, as the connection does."""
        first, self.next_out = self.next_out, self.next_out + len(messages)
        self.sent += messages
        stored = tuple(
            StoredMessage(first + offset, message.msg_type, b"", "20261102-14:30:00.000", message.reference)
            for offset, message in enumerate(messages)
        )
        return SessionChange(Sequences(self.next_in, self.next_out), stored)

    async def send(self) -> None:
        """Send what waits."""
        await self.host.send_waiting(self.number)

    async def receive(self, *reports: object, confirmed: int = 0) -> None:
        """Take in one batch of reports."""
        self.next_in += len(reports)
        change = SessionChange(Sequences(self.next_in, self.next_out))
        await self.host.on_reports(InboundBatch(reports, change, confirmed))  # type: ignore[arg-type]


def of(order_id: str, report: VenueReport) -> OrderReport:
    return OrderReport(order_id, replace(report, client_order_id=report.client_order_id or order_id))


async def refolds(replica: Replica) -> None:
    """Assert that every row of the read models is what the log folds to."""
    rows = {row["order_id"]: row for row in await replica.database.fetch("SELECT * FROM orders")}
    events = await replica.log.read_streams([f"order-{order_id}" for order_id in rows])
    wanted_requests: dict[str, tuple[int, bool, bool]] = {}
    executed = 0
    for order_id, row in rows.items():
        order = fold(decode(event) for event in events[f"order-{order_id}"])
        assert order is not None
        assert (row["version"], row["state"], row["open"], row["snapshot"]) == (
            order.version,
            order.state,
            not order.terminal,
            snapshot_of(order),
        )
        executed += sum(event.type == "oms.v1.ExecutionRecorded" for event in events[f"order-{order_id}"])
        for request, open_request in open_requests(order).items():
            wanted_requests[request] = (open_request.action, open_request.sent, open_request.overdue)
    queue = await replica.database.fetch("SELECT * FROM venue_request")
    assert {row["venue_client_order_id"]: (row["action"], row["sent_at"] is not None, row["overdue"]) for row in queue} == wanted_requests
    assert await replica.database.fetchval("SELECT count(*) FROM execution") == executed


async def sent_orders(replica: Replica, session: Session, count: int) -> list[str]:
    outcomes = await replica.create_all([world.order() for _ in range(count)])
    await session.send()
    return [outcome.order.order_id for outcome in outcomes]  # type: ignore[union-attr]


async def test_what_waits_is_sent_once_and_in_order(replica: Replica) -> None:
    session = await Session.take(replica)
    order_ids = await sent_orders(replica, session, 20)
    assert [message.reference for message in session.sent] == order_ids
    await session.send()
    assert len(session.sent) == 20
    assert (await session.host.load()).next_out == 21
    await refolds(replica)


async def test_duplicate_and_late_fills(replica: Replica) -> None:
    session = await Session.take(replica)
    (order_id,) = await sent_orders(replica, session, 1)
    fill = make.fill("4")
    await session.receive(of(order_id, make.report(ReportKind.ACKNOWLEDGED)), of(order_id, fill), of(order_id, fill))
    await session.receive(of(order_id, fill), of(order_id, make.report(ReportKind.CANCELED)))
    await session.receive(of(order_id, make.fill("2")))
    order = await replica.store.load(order_id)
    assert order is not None
    assert (order.state, order.filled_quantity) == (OrderState.CANCELED, Decimal(6))
    assert await replica.database.fetchval("SELECT count(*) FROM execution") == 2
    await refolds(replica)


async def test_replicas_record_fills_and_cancels_of_the_same_orders_at_once(replica: Replica, other: Replica) -> None:
    """A drop copy brings the fills to one replica while the session brings them to the other, with cancels, in opposite order."""
    session, copy = await Session.take(replica), await Session.take(other, venue="XSIM-COPY")
    order_ids = await sent_orders(replica, session, 30)
    fills = {order_id: [make.fill("3"), make.fill("4")] for order_id in order_ids}
    one = [of(order_id, fill) for order_id in order_ids for fill in fills[order_id]]
    two = [of(order_id, fill) for order_id in reversed(order_ids) for fill in fills[order_id]]
    results = await asyncio.gather(
        session.receive(*one),
        copy.receive(*two),
        *(replica.cancel(order_id) for order_id in order_ids),
        *(other.cancel(order_id) for order_id in reversed(order_ids)),
        return_exceptions=True,
    )
    assert not [result for result in results if isinstance(result, BaseException) and not isinstance(result, TrademeshError)]
    for order in (await replica.store.load_many(order_ids)).values():
        assert order.filled_quantity == Decimal(7)
        assert order.pending_action is Action.CANCEL
    assert await replica.database.fetchval("SELECT count(*) FROM execution") == 60
    await refolds(replica)


async def test_one_execution_for_two_orders_is_counted_for_the_first(replica: Replica) -> None:
    session = await Session.take(replica)
    one, two, three = await sent_orders(replica, session, 3)
    fill = make.fill("3")
    await session.receive(of(one, fill))
    await session.receive(of(two, fill), of(three, make.fill("1")))
    same = make.fill("2")
    await session.receive(of(two, same), of(three, same))
    orders = await replica.store.load_many([one, two, three])
    assert [orders[order_id].filled_quantity for order_id in (one, two, three)] == [Decimal(3), Decimal(2), Decimal(1)]
    texts = [event for event in await replica.log.read_stream(f"order-{two}") if event.type == "oms.v1.AnomalyRecorded"]
    assert len(texts) == 1
    assert session.next_in == 6
    assert (await session.host.load()).next_in == 6
    await refolds(replica)


async def test_reports_that_fit_no_order_are_kept_and_the_numbers_move(replica: Replica) -> None:
    session = await Session.take(replica)
    (order_id,) = await sent_orders(replica, session, 1)
    refused = MessageRefused(1, tags.NEW_ORDER_SINGLE, 5, "bad field", business=False, time=make.at(0), raw=b"35=3")
    stray = of("9b2f6f1e-0000-5000-8000-000000000000", make.fill("1"))
    await session.receive(UnreadableReport(9, "31 is no number", b"35=8"), stray, OrderReport("", make.fill("2")), NumbersSkipped("5 to 9"))
    assert [event.type for event in await replica.log.read_stream("session-XSIM")] == ["oms.v1.AnomalyRecorded"] * 4
    await session.receive(replace(refused, sequence=99))
    assert (await session.host.load()).next_in == 6
    order = await replica.store.load(order_id)
    assert order is not None
    assert order.state is OrderState.PENDING_NEW


async def test_a_refusal_without_a_number_finds_its_order_by_id(replica: Replica) -> None:
    session = await Session.take(replica)
    (order_id,) = await sent_orders(replica, session, 1)
    refused = MessageRefused(0, tags.NEW_ORDER_SINGLE, 4, "closed", business=True, time=make.at(0), raw=b"35=j", reference=order_id)
    await session.receive(refused, replace(refused, reference="theirs"))
    order = await replica.store.load(order_id)
    assert order is not None
    assert order.state is OrderState.REJECTED
    assert order.reject is not None
    assert order.reject.text == "closed"
    assert [event.type for event in await replica.log.read_stream("session-XSIM")] == ["oms.v1.AnomalyRecorded"]


async def test_unknown_at_the_venue_counts_only_past_our_message(replica: Replica) -> None:
    session = await Session.take(replica)
    (order_id,) = await sent_orders(replica, session, 1)
    unknown = of(order_id, make.report(ReportKind.UNKNOWN_ORDER, exec_id=""))
    await session.receive(unknown, confirmed=0)
    order = await replica.store.load(order_id)
    assert order is not None
    assert order.state is OrderState.PENDING_NEW
    await session.receive(unknown, confirmed=1)
    order = await replica.store.load(order_id)
    assert order is not None
    assert order.state is OrderState.REJECTED
    assert order.reject is not None
    assert order.reject.reason is Reason.NOT_SENT_IN_TIME


async def test_an_old_owner_writes_nothing(replica: Replica, other: Replica) -> None:
    session = await Session.take(replica, ttl_seconds=0.6)
    (order_id,) = await sent_orders(replica, session, 1)
    await replica.create(world.order())
    leases = other.leases()

    async def taken_over() -> HeldLease:
        while (lease := await leases.acquire("venue-session/XSIM")) is None:
            await asyncio.sleep(0.02)
        return lease

    lease = await asyncio.wait_for(taken_over(), 10)
    for work in (session.send(), session.receive(of(order_id, make.fill("1"))), session.host.messages_to_resend(ResendRange(1, 9))):
        with pytest.raises(LeaseLostError):
            await work
    assert len(session.sent) == 1
    assert await replica.database.fetchval("SELECT count(*) FROM execution") == 0
    successor = await Session.holding(other, leases, lease)
    assert successor.next_out == 2
    await successor.send()
    assert len(successor.sent) == 1


async def test_a_takeover_waits_for_a_send_under_way(replica: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease expires while a send transaction holds it: whoever takes over sees all of that send or nothing."""
    session = await Session.take(replica, ttl_seconds=0.6)
    await replica.create(world.order())
    numbered, go_on = asyncio.Event(), asyncio.Event()
    flush = OrderUnit.flush

    async def slow(unit: OrderUnit) -> LogPosition | None:
        numbered.set()
        await go_on.wait()
        return await flush(unit)

    monkeypatch.setattr(OrderUnit, "flush", slow)
    sending = asyncio.create_task(session.send())
    await numbered.wait()
    async with asyncio.timeout(10):
        while not await other.database.fetchval("SELECT expires_at <= clock_timestamp() FROM lease"):
            await asyncio.sleep(0.02)
    taking = asyncio.create_task(other.leases().acquire("venue-session/XSIM"))
    done, _ = await asyncio.wait([taking], timeout=0.2)
    assert not done
    go_on.set()
    await sending
    assert await taking is not None
    assert await other.database.fetchval("SELECT next_out FROM fix_session") == 2
    await refolds(other)


async def test_a_report_batch_whose_answer_was_lost_is_recorded_once(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await Session.take(replica)
    (order_id,) = await sent_orders(replica, session, 1)
    fill = of(order_id, make.fill("4"))
    flush = OrderUnit.flush

    async def lose(unit: OrderUnit) -> LogPosition | None:
        position = await flush(unit)
        raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, f"lost after {position}")

    with monkeypatch.context() as patch, pytest.raises(OutcomeUnknownError):
        patch.setattr(OrderUnit, "flush", lose)
        await session.receive(fill)
    # The connection starts again from the store, the venue resends what the numbers do not show.
    session.next_in = (await session.host.load()).next_in
    assert session.next_in == 1
    await session.receive(fill)
    await session.receive(fill)
    order = await replica.store.load(order_id)
    assert order is not None
    assert order.filled_quantity == Decimal(4)
    await refolds(replica)


async def test_killed_and_cancelled_orders_are_not_sent_and_not_resent(replica: Replica) -> None:
    session = await Session.take(replica)
    (sent,) = await sent_orders(replica, session, 1)
    waiting = await replica.create(world.order())
    canceled = await replica.create(world.order())
    await replica.cancel(canceled.order.order_id)
    switch = order_control_service_pb2.KillSwitchState(scope=2, scope_id="ACC-1", active=True, version=1)  # type: ignore[arg-type]
    await replica.control.ApplyKillSwitch(order_control_service_pb2.ApplyKillSwitchRequest(switches=[switch]), world.context(None))
    await session.send()
    assert [message.reference for message in session.sent] == [sent]
    killed = await replica.store.load(waiting.order.order_id)
    assert killed is not None
    assert killed.reject is not None
    assert killed.reject.reason is Reason.KILLED_BEFORE_SEND
    assert await session.host.messages_to_resend(ResendRange(1, 9)) == []
    await refolds(replica)


async def test_the_sweeper_refuses_late_and_marks_unanswered(replica: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await Session.take(replica)
    (sent,) = await sent_orders(replica, session, 1)
    waiting = await replica.create(world.order())
    for module in ("svc_oms.fix.routing", "svc_oms.router.sweep"):
        monkeypatch.setattr(f"{module}.UNSENT_SECONDS_MAX", 0.0)
    monkeypatch.setattr("svc_oms.router.sweep.UNANSWERED_SECONDS_MAX", 0.0)
    await asyncio.gather(*(Sweeper(side.store, side.clock).sweep() for side in (replica, other)))
    orders = await replica.store.load_many([sent, waiting.order.order_id])
    assert orders[sent].state is OrderState.UNKNOWN
    assert orders[waiting.order.order_id].state is OrderState.REJECTED
    await refolds(replica)
    await session.receive(of(sent, make.report(ReportKind.ACKNOWLEDGED)))
    await refolds(replica)


async def test_a_sweeper_that_comes_second_leaves_an_unknown_order_in_the_queue(
    replica: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both replicas saw the request unanswered; the second decides after the first has marked it. Found by a flicker of the test above."""
    session = await Session.take(replica)
    await sent_orders(replica, session, 1)
    monkeypatch.setattr("svc_oms.router.sweep.UNANSWERED_SECONDS_MAX", 0.0)
    seen = await unanswered(other.database, 0.0)
    await Sweeper(replica.store, replica.clock).sweep()

    async def stale(*_: object) -> list[QueuedRequest]:
        return seen

    monkeypatch.setattr("svc_oms.router.sweep.unanswered", stale)
    await Sweeper(other.store, other.clock).sweep()
    await refolds(replica)


async def test_stores_refuse_numbers_that_go_back(replica: Replica) -> None:
    session = await Session.take(replica)
    await sent_orders(replica, session, 3)
    session.next_out = 2
    with pytest.raises(AssertionError):
        await session.receive()
