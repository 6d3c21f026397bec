"""The TCP connection to a venue: drives the FIX session, persists before it writes, reconnects.

One lock orders everything that changes the session: what a read brought is committed as one batch, what the router sends is numbered,
stored and written as one batch. Whenever memory may be ahead of the store (a commit failed, or its outcome is unknown) the connection is
dropped and the next one starts from the store; the peers then close the gap between them.

Every write to the socket is preceded by the check of the lease, with an empty send buffer: a process that slept through its lease has
nothing left that the kernel has not already taken.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from kernel.breaker import Breaker
from kernel.errors import LeaseLostError, TrademeshError
from kernel.fix.codec import MessageReader
from kernel.fix.session import Session
from kernel.fix.steps import AppMessage, NoticeKind, Now, Phase, ResendRange, Sequences, SessionConfig, Step
from kernel.ports import Clock
from svc_oms.fix.ports import InboundBatch, Persist, SessionChange, SessionHost
from svc_oms.fix.recount import Recount
from svc_oms.fix.reports import InboundReport, NumbersSkipped, read_delivery, read_refused
from svc_oms.fix.routing import LinkView

_log = logging.getLogger(__name__)

_WARNINGS: Final = frozenset({NoticeKind.GARBLED, NoticeKind.GAP, NoticeKind.REJECTED, NoticeKind.PEER_LOGOUT, NoticeKind.RESET})
_IDLE_SECONDS_MAX: Final = 1.0
"""How long a read waits at most before the timers and the lease are looked at again."""


class LinkBrokenError(ConnectionError):
    """The connection to the venue is of no use any more; the next one starts from the store."""


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """Where a venue is and how patient we are. Seconds and bytes."""

    venue: str
    host: str
    port: int
    session: SessionConfig
    connect_timeout_seconds: float = 5.0
    write_timeout_seconds: float = 5.0
    backoff_seconds_min: float = 0.1
    backoff_seconds_max: float = 5.0
    read_bytes_max: int = 256 * 1024
    """One read, hence one batch of reports, at most."""
    write_bytes_max: int = 64 * 1024
    """One write to the socket, each after a check of the lease."""
    resend_messages_max: int = 1_000
    """Numbers that one transaction reads to answer a ResendRequest."""


@dataclass(slots=True)
class _Link:
    session: Session
    messages: MessageReader
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    committed: Sequences
    confirmed: int = 0
    """What the venue had confirmed before the step that is being carried out: a report is judged by that."""


class _Numbering:
    """The one use of the session that a `Persist` may make."""

    def __init__(self, session: Session, now: Now) -> None:
        self._session = session
        self._now = now
        self.step: Step | None = None

    def __call__(self, messages: Sequence[AppMessage]) -> SessionChange:
        assert self.step is None, "one numbering per transaction"
        self.step = self._session.send(messages, self._now)
        return SessionChange.of(self.step)


class VenueConnection:
    """One FIX session as initiator.

    Args:
        config: where and how.
        host: the owner of the store.
        clock: both of its clocks are used.
        still_mine: whether the session's lease is held, by the owner's own clock: asked before each write.
        breaker: opens after repeated failures to connect or log on.
        jitter: a number in [0, 1), to spread reconnects.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        host: SessionHost,
        clock: Clock,
        still_mine: Callable[[], bool],
        *,
        breaker: Breaker | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._host = host
        self._clock = clock
        self._still_mine = still_mine
        self._breaker = breaker or Breaker(f"venue {config.venue}")
        self._jitter = jitter
        self.recount = Recount()
        self._lock = asyncio.Lock()
        self._link: _Link | None = None
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._generation = 0
        self._lost = False

    def view(self) -> LinkView:
        """The session as `routing` sees it."""
        if self._link is None:
            return LinkView(self._generation, False, False, 0, 0)
        session = self._link.session
        return LinkView(self._generation, session.can_send, session.synchronised, session.sequences.next_out, session.confirmed_out)

    async def ready(self) -> None:
        """Wait until the session is logged on."""
        await self._ready.wait()

    async def run(self) -> None:
        """Connect and serve until `stop`, or until the lease is lost; then return.

        Errors of the host that are not of the TrademeshError family are bugs: they end this with the connection closed.
        """
        failures = 0
        while not self._stopping.is_set() and not self._lost and self._still_mine():
            started = self._clock.monotonic()
            try:
                async with self._lock:
                    # A transaction of the router that was under way when the last connection broke moves numbers, and has ended now.
                    # Without a link no other begins; and whoever stops us need not wait for the load.
                    assert self._link is None
                session = Session(self._config.session, await self._host.load())
                with self._breaker.guard():
                    link = await self._log_on(session)
                while True:
                    await self._turn(link)
            except LeaseLostError as error:
                _log.warning("fix session lost", extra={"venue": self._config.venue, "reason": str(error)})
                return
            except (OSError, TimeoutError, TrademeshError) as error:
                lasted = self._clock.monotonic() - started
                failures = failures + 1 if lasted < self._config.backoff_seconds_max else 0
                _log.info("fix connection ended", extra={"venue": self._config.venue, "reason": str(error)})
            finally:
                self._ready.clear()
                if self._link is not None:
                    self._break(self._link)
            await self._pause(failures)

    async def stop(self) -> None:
        """Log out; `run` returns once the venue has answered, or after the session's logout timeout."""
        self._stopping.set()
        async with self._lock:
            link = self._link
            if link is not None:
                with suppress(OSError, TimeoutError, TrademeshError):
                    await self._carry_out(link, link.session.logout(self._now()))

    async def transmit(self, persist: Persist) -> bool:
        """Let a transaction number and store messages, then write them. False, and nothing is called, while the session cannot send.

        Once `persist` has returned, the messages are sent or will be resolved by resend: a failing write only ends the connection.
        Raises what `persist` raises; where it had numbered messages by then, the connection is dropped, since their fate is not known.
        """
        async with self._lock:
            link = self._link
            if link is None or not link.session.can_send:
                return False
            numbering = _Numbering(link.session, self._now())
            try:
                await persist(numbering)
            except BaseException as error:
                self._lost = self._lost or isinstance(error, LeaseLostError)
                if self._lost or numbering.step is not None:
                    self._break(link)
                raise
            if numbering.step is not None:
                link.committed = numbering.step.sequences
                with suppress(OSError, TimeoutError, LeaseLostError):
                    await self._write(link, numbering.step.data)
            return True

    async def synchronise(self) -> bool:
        """Ask the venue to confirm what it has processed; the answer shows in `view`. False while the session cannot send."""
        async with self._lock:
            link = self._link
            if link is None or not link.session.can_send:
                return False
            with suppress(OSError, TimeoutError, TrademeshError):
                await self._carry_out(link, link.session.synchronise(self._now()))
                return True
            return False

    def _now(self) -> Now:
        return Now(self._clock.now(), self._clock.monotonic())

    async def _log_on(self, session: Session) -> _Link:
        config = self._config
        async with asyncio.timeout(config.connect_timeout_seconds):
            reader, writer = await asyncio.open_connection(config.host, config.port, limit=config.read_bytes_max)
        if self._stopping.is_set():
            writer.transport.abort()
            raise LinkBrokenError("stopped before the connection stood")
        writer.transport.set_write_buffer_limits(high=0)
        self._link = link = _Link(session, MessageReader(), reader, writer, session.sequences)
        async with self._lock:
            await self._carry_out(link, session.connect(self._now()))
        while session.phase is not Phase.ACTIVE:
            await self._turn(link)
        self._generation += 1
        self._ready.set()
        return link

    async def _turn(self, link: _Link) -> None:
        """What came in, if anything did, and the timers: a busy socket must not starve the heartbeats."""
        data = await self._read(link)
        if not self._still_mine():
            raise self._lease_lost()
        async with self._lock:
            if self._link is not link:
                raise LinkBrokenError("a transaction of the router failed")
            if data is not None:
                await self._carry_out(link, link.session.receive(link.messages.feed(data), self._now()))
            await self._carry_out(link, link.session.tick(self._now()))

    async def _read(self, link: _Link) -> bytes | None:
        """What came in, or None where it is time to look at the timers."""
        deadline = link.session.next_deadline()
        idle = _IDLE_SECONDS_MAX if deadline is None else min(max(deadline - self._clock.monotonic(), 0.0), _IDLE_SECONDS_MAX)
        try:
            async with asyncio.timeout(idle):
                data = await link.reader.read(self._config.read_bytes_max)
        except TimeoutError:
            if link.reader.exception() is not None:  # ETIMEDOUT of the socket is a TimeoutError too
                raise
            return None
        if not data:
            raise LinkBrokenError("the venue closed the connection")
        return data

    async def _carry_out(self, link: _Link, step: Step) -> None:
        """The order that `kernel.fix.steps` demands: commit, write, resend, close. Any failure ends the connection."""
        try:
            while True:
                self._log_notices(step)
                await self._commit(link, step)
                link.confirmed = link.session.confirmed_out
                await self._write(link, step.data)
                if step.disconnect is not None:
                    raise LinkBrokenError(step.disconnect)
                if step.resend is None:
                    return
                through = min(step.resend.end, step.resend.begin + self._config.resend_messages_max - 1)
                stored = await self._host.messages_to_resend(ResendRange(step.resend.begin, through))
                step = link.session.resend(stored, self._now(), through=through)
        except BaseException as error:
            self._lost = self._lost or isinstance(error, LeaseLostError)
            self._break(link)
            raise

    async def _commit(self, link: _Link, step: Step) -> None:
        assert not step.reset, "an initiator accepts no reset"
        reports: list[InboundReport] = [report for delivery in step.delivered for report in read_delivery(delivery, self._config.venue)]
        reports += [read_refused(refused) for refused in step.refused]
        skipped = [NumbersSkipped(notice.text) for notice in step.notices if notice.kind is NoticeKind.RESET]
        if reports or skipped or step.stored or step.sequences != link.committed:
            await self._host.on_reports(InboundBatch((*skipped, *reports), SessionChange.of(step), link.confirmed))
            link.committed = step.sequences
            self.recount.heard(reports)
        if skipped:
            self.recount.begin()

    async def _write(self, link: _Link, data: bytes) -> None:
        try:
            for start in range(0, len(data), self._config.write_bytes_max):
                if not self._still_mine():
                    raise self._lease_lost()
                link.writer.write(data[start : start + self._config.write_bytes_max])
                async with asyncio.timeout(self._config.write_timeout_seconds):
                    await link.writer.drain()
        except BaseException:
            self._break(link)
            raise

    def _log_notices(self, step: Step) -> None:
        for notice in step.notices:
            level = logging.WARNING if notice.kind in _WARNINGS else logging.INFO
            _log.log(level, "fix session: %s", notice.kind.value, extra={"venue": self._config.venue, "detail": notice.text})

    def _break(self, link: _Link) -> None:
        """End a connection: nothing uses its session again, its read fails, and `run` starts anew."""
        self._ready.clear()
        link.writer.transport.abort()
        if self._link is link:
            self._link = None

    def _lease_lost(self) -> LeaseLostError:
        self._lost = True
        return LeaseLostError(f"fix session of {self._config.venue}", 0)

    async def _pause(self, failures: int) -> None:
        if self._stopping.is_set():
            return
        config = self._config
        ceiling = min(config.backoff_seconds_max, config.backoff_seconds_min * 2 ** min(failures, 16))
        delay = config.backoff_seconds_min + self._jitter() * (ceiling - config.backoff_seconds_min)
        try:
            async with asyncio.timeout(delay):
                await self._stopping.wait()
        except TimeoutError:
            return
