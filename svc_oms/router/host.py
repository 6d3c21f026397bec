"""The session's transactions: each under its lease, and each whole. Implements `svc_oms.fix.ports.SessionHost`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from kernel.errors import AlreadyExistsError
from kernel.fix.steps import AppMessage, ResendRange, Sequences, StoredMessage
from kernel.lease import PostgresLeases
from kernel.ports import Clock, HeldLease
from kernel.postgres import Transaction
from svc_oms.codec.events import encode
from svc_oms.domain import Action, ExecutionKey, Order, ReportKind, decide
from svc_oms.domain.commands import RefuseUnsent, RouteRequest, VenueReport
from svc_oms.domain.events import AnomalyRecorded
from svc_oms.domain.reports import draft_report
from svc_oms.fix.ports import InboundBatch, Number, SessionChange
from svc_oms.fix.reports import (
    InboundReport,
    MassStatusEnd,
    MessageRefused,
    NumbersSkipped,
    OrderReport,
    UnreadableReport,
    refusal_by_reference,
    refusal_of,
)
from svc_oms.fix.requests import new_order, request_message
from svc_oms.fix.routing import Choice, Waiting, is_evidence, judge_waiting, resend
from svc_oms.store.fix_sessions import FixSessions
from svc_oms.store.kill_switches import lock_active
from svc_oms.store.orders import OrderStore, OrderUnit
from svc_oms.store.projection import open_requests
from svc_oms.store.venue_requests import QueuedRequest, counted, forget, unsent

_logger = logging.getLogger(__name__)

_EXECUTIONS = frozenset({ReportKind.TRADE, ReportKind.TRADE_CANCEL, ReportKind.TRADE_CORRECT})
_TEXT_MAX = 512


class SessionTransactions:
    """What one replica may do to a venue session's rows while it holds the lease.

    Lock order: the lease (shared), heads in id order, the kill switches' gate (shared), then rows of the session. Takeovers lock the
    lease alone, kill switches their own heads and the gate, so no circle can close.

    Args:
        venue: the venue, which is also the session's name.
        store: the orders.
        leases: where the lease lives.
        lease: the lease as it was last renewed.
        clock: for the time of events.
    """

    def __init__(self, venue: str, store: OrderStore, leases: PostgresLeases, lease: Callable[[], HeldLease], clock: Clock) -> None:
        self._venue = venue
        self._store = store
        self._leases = leases
        self._lease = lease
        self._clock = clock
        self._sessions = FixSessions()
        self._stream = f"session-{venue}"

    async def load(self) -> Sequences:
        """See `SessionHost.load`. Also forgets messages that are too old to be resent."""
        async with self._store.unit() as unit:
            await self._assert_held(unit)
            await self._sessions.purge(unit.transaction, self._venue)
            return await self._sessions.load(unit.transaction, self._venue)

    async def on_reports(self, batch: InboundBatch) -> None:
        """See `SessionHost.on_reports`."""
        if not batch.reports:
            async with self._store.unit() as unit:
                await self._assert_held(unit)
                await self._sessions.save(unit.transaction, self._venue, batch.change)
            return
        try:
            await self._record(batch, look_for_doubles=False)
        except AlreadyExistsError:
            # An execution of another order has the same key: look which, and record the anomaly. Rare, hence not asked before.
            await self._record(batch, look_for_doubles=True)

    async def messages_to_resend(self, wanted: ResendRange) -> Sequence[StoredMessage]:
        """See `SessionHost.messages_to_resend`: decided under the locks of the orders and of the kill switches."""
        async with self._store.unit() as unit:
            await self._assert_held(unit)
            stored = await self._sessions.messages(unit.transaction, self._venue, wanted)
            orders = await unit.lock(message.reference for message in stored if message.reference)
            switches = await lock_active(unit.transaction)
            now = self._clock.now()
            kept = []
            for message in stored:
                order = orders.get(message.reference)
                if resend(message, order, killed=order is not None and switches.cover(order), now=now):
                    kept.append(message)
        _logger.info("fix resend", extra={"fields": {"venue": self._venue, "asked": len(stored), "resent": len(kept)}})
        return kept

    async def send_waiting(self, number: Number) -> None:
        """Number and store what waits to be sent, or give it up, all in one transaction. A `Persist` of the connection."""
        async with self._store.unit() as unit:
            await self._assert_held(unit)
            queue = await unsent(unit.transaction, self._venue)
            orders = await unit.lock(request.order_id for request in queue)
            switches = await lock_active(unit.transaction)
            now = self._clock.now()
            sending: list[tuple[QueuedRequest, AppMessage]] = []
            dropped: list[str] = []
            for request in queue:
                order = orders[request.order_id]
                if order is None or request.venue_client_order_id not in open_requests(order):
                    dropped.append(request.venue_client_order_id)
                    continue
                waiting = Waiting(request.action, request.venue_client_order_id, request.requested_at)
                verdict = judge_waiting(order, waiting, can_send=True, killed=switches.cover(order), now=request.now)
                if verdict.choice is Choice.SEND:
                    sending.append((request, _message(order, request, now)))
                elif verdict.choice is Choice.REFUSE:
                    assert verdict.reason is not None
                    refusal = RefuseUnsent(request.action, request.venue_client_order_id, verdict.reason, verdict.text, now)
                    unit.record(request.order_id, decide(unit.order(request.order_id), refusal))
            change = self._number(unit, number, sending, now) if sending else None
            await unit.flush()
            if change is not None:
                await self._sessions.save(unit.transaction, self._venue, change)
            if dropped:
                await forget(unit.transaction, dropped)

    async def send_questions(self, number: Number, messages: Sequence[AppMessage]) -> None:
        """Number and store status requests."""
        async with self._store.unit() as unit:
            await self._assert_held(unit)
            await self._sessions.save(unit.transaction, self._venue, number(messages))

    def _number(self, unit: OrderUnit, number: Number, sending: Sequence[tuple[QueuedRequest, AppMessage]], now: datetime) -> SessionChange:
        change = number([message for _, message in sending])
        assert len(change.stored) == len(sending), "every message got a number"
        for (request, _), stored in zip(sending, change.stored, strict=True):
            routed = RouteRequest(request.action, request.venue_client_order_id, stored.sequence, now)
            events = decide(unit.order(request.order_id), routed)
            assert events, "what is sent was judged unsent under the same lock"
            unit.record(request.order_id, events)
        return change

    async def _record(self, batch: InboundBatch, *, look_for_doubles: bool) -> None:
        async with self._store.unit() as unit:
            await self._assert_held(unit)
            reports = [await self._resolved(unit.transaction, report) for report in batch.reports]
            order_ids = {report.order_id for report in reports if isinstance(report, OrderReport) and report.order_id}
            await unit.lock(order_ids, other_streams=(self._stream,))
            doubles = await self._doubles(unit.transaction, reports) if look_for_doubles else {}
            now = self._clock.now()
            strays: list[AnomalyRecorded] = []
            for report in reports:
                stray = self._apply(unit, report, batch.confirmed_sequence, doubles, now)
                if stray is not None:
                    strays.append(stray)
            if strays:
                unit.record_other(self._stream, [encode(stray, None) for stray in strays])
            await unit.flush()
            await self._sessions.save(unit.transaction, self._venue, batch.change)
        for stray in strays:
            _logger.warning("fix report that fits no order", extra={"fields": {"venue": self._venue, "detail": stray.text}})

    async def _resolved(self, transaction: Transaction, report: InboundReport) -> InboundReport:
        """A refused message becomes the report of its order, found by the number that we had given it, else by its id."""
        if not isinstance(report, MessageRefused):
            return report
        if not report.sequence:
            return refusal_by_reference(report, self._venue) or report
        stored = await self._sessions.messages(transaction, self._venue, ResendRange(report.sequence, report.sequence))
        return (refusal_of(report, stored[0], self._venue) if stored else None) or report

    async def _doubles(self, transaction: Transaction, reports: Sequence[InboundReport]) -> dict[ExecutionKey, str]:
        """Executions and the order that each belongs to: the one that it is counted for, else the first of this batch."""
        pairs = [
            (report.report.key, report.order_id)
            for report in reports
            if isinstance(report, OrderReport) and report.order_id and report.report.kind in _EXECUTIONS
        ]
        owners = await counted(transaction, [key for key, _ in pairs])
        for key, order_id in pairs:
            owners.setdefault(key, order_id)
        return owners

    def _apply(
        self, unit: OrderUnit, report: InboundReport, confirmed_sequence: int, doubles: dict[ExecutionKey, str], now: datetime
    ) -> AnomalyRecorded | None:
        """Record a report in its order; return what belongs to no order."""
        if isinstance(report, MassStatusEnd):
            return None
        if isinstance(report, UnreadableReport):
            return AnomalyRecorded(f"unreadable report: {report.problem}"[:_TEXT_MAX], report.raw, now)
        if isinstance(report, NumbersSkipped):
            return AnomalyRecorded(f"messages are lost: {report.text}"[:_TEXT_MAX], b"", now)
        if isinstance(report, MessageRefused):
            return AnomalyRecorded(f"the venue refused message {report.sequence}: {report.text}"[:_TEXT_MAX], report.raw, now)
        order = unit.order(report.order_id) if report.order_id else None
        venue_report: VenueReport = report.report
        if order is None:
            text = f"{venue_report.kind} of an order that is not ours: {venue_report.client_order_id}"
            return AnomalyRecorded(text[:_TEXT_MAX], venue_report.raw, now)
        owner = doubles.get(venue_report.key, report.order_id)
        if owner != report.order_id:
            text = f"{venue_report.kind}: execution {venue_report.exec_id} is counted for order {owner}"
            unit.record(report.order_id, (AnomalyRecorded(text[:_TEXT_MAX], venue_report.raw, now),))
            return None
        synchronised = is_evidence(order, confirmed_sequence)
        if synchronised or venue_report.kind is not ReportKind.UNKNOWN_ORDER:
            draft = draft_report(order, venue_report, now, synchronised=synchronised)
            unit.record(report.order_id, draft.events, draft.order)
        return None

    async def _assert_held(self, unit: OrderUnit) -> None:
        await self._leases.assert_held(unit.transaction, self._lease())


def _message(order: Order, request: QueuedRequest, now: datetime) -> AppMessage:
    if request.action is Action.NEW:
        return new_order(order, now)
    pending = order.request(request.venue_client_order_id)
    assert pending is not None, "judged unsent under the same lock"
    return request_message(order, pending, now)
