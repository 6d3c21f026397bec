"""The two ends of a wire test: a scripted venue on 127.0.0.1, and a host that keeps its rows in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from kernel.clock import SystemClock
from kernel.fix import tags
from kernel.fix.codec import MessageReader
from kernel.fix.message import Message
from kernel.fix.session import Session
from kernel.fix.steps import AppMessage, Now, Phase, ResendRange, Role, Sequences, SessionConfig, Step, StoredMessage
from svc_oms.fix.connection import ConnectionConfig, VenueConnection
from svc_oms.fix.memory import MemoryVenueSessionStore
from svc_oms.fix.ports import InboundBatch, Number, SessionChange
from svc_oms.fix.reports import InboundReport

SESSION = "venue"
DEADLINE_SECONDS = 10.0
REQUESTS = frozenset({"D", "F", "G", "H", "AF"})
CLOCK = SystemClock()


def now() -> Now:
    return Now(CLOCK.now(), CLOCK.monotonic())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, at most ten seconds."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


def order(identity: str) -> AppMessage:
    body = [(11, identity), (38, "100"), (40, "1"), (54, "1"), (55, "AAPL"), (60, "20260803-09:30:00.000")]
    return AppMessage(tags.NEW_ORDER_SINGLE, body, identity)


def report(identity: str, exec_id: str, exec_type: str = "0", *, quantity: str = "0") -> AppMessage:
    status = "1" if exec_type == "F" else "0"
    body = [(6, "0"), (11, identity), (14, quantity), (17, exec_id), (37, "V"), (39, status), (54, "1"), (55, "AAPL"), (150, exec_type)]
    body += [(151, "0"), (31, "10"), (32, quantity), (60, "20260803-09:30:00.000")]
    return AppMessage(tags.EXECUTION_REPORT, body)


class Venue:
    """An acceptor with rows in memory; `answer` says what a request leads to. A new connection replaces the old one."""

    def __init__(self, *, heartbeat_seconds_max: int = 300) -> None:
        self.config = SessionConfig(Role.ACCEPTOR, "XSIM", "TM", REQUESTS, heartbeat_seconds_max=heartbeat_seconds_max)
        self.answer: Callable[[Message], Sequence[AppMessage]] = lambda message: ()
        self.sequences = Sequences()
        self.stored: list[StoredMessage] = []
        self.requests: list[Message] = []
        self.resent_requests: list[str] = []
        self.port = 0
        self.connections = 0
        self.refuse_connections = False
        self.bytes_in = 0
        self._session: Session | None = None
        self._writer: asyncio.StreamWriter | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Venue]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.disconnect()
            await server.wait_closed()

    @property
    def active(self) -> bool:
        return self._session is not None and self._session.phase is Phase.ACTIVE

    def disconnect(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    def push(self, *messages: AppMessage) -> None:
        """Reports of the venue's own accord, in one write."""
        assert self._session is not None
        assert self._writer is not None
        self._take(self._session.send(messages, now()), self._writer)

    def push_and_confirm(self, sequence: int, *messages: AppMessage) -> None:
        """Reports, and behind them the answer to a TestRequest that asks for `sequence`, in one write."""
        assert self._session is not None
        assert self._writer is not None
        reports, answer = self._session.send(messages, now()), Step()
        self._session._admin(answer, tags.HEARTBEAT, [(tags.TEST_REQ_ID, f"SYNC-{sequence}")], now())
        answer.writes, answer.stored, answer.sequences = reports.writes + answer.writes, reports.stored, self._session.sequences
        self._take(answer, self._writer)

    def skip(self, count: int) -> None:
        """Leave out numbers for good: a SequenceReset-Reset (FIX 4.4 Volume 2), which a venue's operator sends to end a quarrel."""
        assert self._session is not None
        assert self._writer is not None
        step, new = Step(), self.sequences.next_out + count
        self._session._admin(step, tags.SEQUENCE_RESET, [(tags.NEW_SEQ_NO, str(new)), (tags.GAP_FILL_FLAG, "N")], now())
        self._session._writer.next_out = new
        step.sequences = self._session.sequences
        self._take(step, self._writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.disconnect()
        if self.refuse_connections:
            writer.transport.abort()
            return
        self._writer, self._session = writer, Session(self.config, self.sequences)
        session, messages = self._session, MessageReader()
        session.connect(now())
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.bytes_in += len(data)
                self._receive(session, session.receive(messages.feed(data), now()), writer)
        writer.transport.abort()

    def _receive(self, session: Session, step: Step, writer: asyncio.StreamWriter) -> None:
        self._take(step, writer)
        while step.resend is not None:
            wanted = step.resend
            messages = [message for message in self.stored if wanted.begin <= message.sequence <= wanted.end]
            step = session.resend(messages, now())
            self._take(step, writer)
        for delivery in step.delivered:
            self.requests.append(delivery.message)
            if delivery.poss_dup:
                self.resent_requests.append(delivery.message.require(11))
            answers = self.answer(delivery.message)
            if answers and session.can_send:
                self._take(session.send(answers, now()), writer)
        if step.disconnect is not None:
            writer.close()

    def _take(self, step: Step, writer: asyncio.StreamWriter) -> None:
        self.sequences = step.sequences
        self.stored += step.stored
        writer.write(step.data)

    def received(self, tag: int = 11) -> list[str]:
        return [message.get(tag) or "" for message in self.requests]


@dataclass
class Host:
    """Keeps the session's rows, and what the reports said."""

    store: MemoryVenueSessionStore = field(default_factory=MemoryVenueSessionStore)
    reports: list[InboundReport] = field(default_factory=list)
    batches: list[InboundBatch] = field(default_factory=list)
    keep: Callable[[StoredMessage], bool] = lambda message: True
    before_commit: Callable[[InboundBatch], None] = lambda batch: None
    after_commit: Callable[[InboundBatch], None] = lambda batch: None

    async def load(self) -> Sequences:
        return await self.store.load(None, SESSION)

    async def on_reports(self, batch: InboundBatch) -> None:
        self.before_commit(batch)
        await self.store.save(None, SESSION, batch.change)
        self.batches.append(batch)
        self.reports += batch.reports
        self.after_commit(batch)

    async def messages_to_resend(self, wanted: ResendRange) -> Sequence[StoredMessage]:
        return [message for message in await self.store.messages(None, SESSION, wanted) if self.keep(message)]

    async def send(self, connection: VenueConnection, *messages: AppMessage) -> SessionChange | None:
        """What the router does: one transaction that numbers and stores, then the write."""
        changes: list[SessionChange] = []

        async def persist(number: Number) -> None:
            changes.append(number(messages))
            await self.store.save(None, SESSION, changes[0])

        sent = await connection.transmit(persist)
        return changes[0] if sent else None


def connection_to(venue: Venue, host: Host, **options: Any) -> VenueConnection:
    """A connection that reconnects quickly."""
    session = SessionConfig(Role.INITIATOR, "TM", "XSIM", frozenset({"8", "9"}), logout_timeout_seconds=2.0)
    config = ConnectionConfig("XSIM", "127.0.0.1", venue.port, session, backoff_seconds_min=0.005, backoff_seconds_max=0.05)
    return VenueConnection(config, host, CLOCK, options.pop("still_mine", lambda: True), **options)


@asynccontextmanager
async def running(connection: VenueConnection) -> AsyncIterator[asyncio.Task[None]]:
    """The connection's task, ended with the test."""
    task = asyncio.create_task(connection.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
