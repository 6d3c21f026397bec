"""The feed's sockets: two lines of datagrams, the re-request server, the snapshot server.

Datagrams are read with the kernel's time of their arrival: a process that slept must not take a backlog for a sign of life. The
kernel's count of what it dropped comes along.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

from kernel.itch.errors import MalformedError
from kernel.itch.glimpse import Snapshot, SnapshotError, SnapshotReader
from kernel.itch.moldudp64 import DATAGRAM_BYTES_MAX, Request, encode_request
from kernel.itch.soupbintcp import HEARTBEAT_SECONDS
from kernel.itch.steps import ArbiterLimits
from kernel.ports import Clock
from kernel.telemetry import Sample
from svc_marketdata.config import Address, FeedAddresses
from svc_marketdata.domain import Venue
from svc_marketdata.itch.follower import FeedFollower
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.reading import FeedReader, snapshot_reader

RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
TICK_SECONDS = 0.1
READ_DATAGRAMS_MAX = 256
"""Datagrams of one line that are read before others have their turn."""

SNAPSHOT_SECONDS_MAX = 10.0
SNAPSHOT_RETRY_SECONDS = 0.25
SNAPSHOT_RETRY_SECONDS_MAX = 5.0
CATCH_UP_SECONDS_MAX = 5.0
"""A snapshot may be ahead of what the lines have brought; the lines are given so long to come there."""

CATCH_UP_PAUSE_SECONDS = 0.005
_LOAD_MESSAGES = 2_000
# Linux: socket options and control messages of the same numbers (asm-generic/socket.h).
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_TIMESPEC = struct.Struct("@ll")
_COUNT = struct.Struct("@I")
_CONTROL_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_COUNT.size)
_ANSWERS = "requests"

_logger = logging.getLogger(__name__)


async def fetch_snapshot(address: Address) -> Snapshot:
    """Fetch the state of all books.

    Raises:
        OSError, TimeoutError, SnapshotError, MalformedError: the server does not answer, refuses, ends early, or makes no sense.
    """
    protocol = SnapshotReader()
    async with asyncio.timeout(SNAPSHOT_SECONDS_MAX):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(protocol.greeting)
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        data = await reader.read(1 << 16)
                except TimeoutError:
                    writer.write(protocol.heartbeat)
                    continue
                if not data:
                    raise SnapshotError("the connection ended before the snapshot did")
                snapshot = protocol.feed(data)
                if snapshot is not None:
                    return snapshot
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class FeedReceiver:
    """Receives one feed into a venue.

    Args:
        addresses: where it comes from.
        venue: what it changes.
        liveness: is told of every sign of life.
        clock: monotonic time, and wall time to tell the age of what the kernel has stamped.
        fetch: fetches a snapshot.
    """

    def __init__(
        self,
        addresses: FeedAddresses,
        venue: Venue,
        liveness: Liveness,
        clock: Clock,
        *,
        fetch: Callable[[Address], Awaitable[Snapshot]] = fetch_snapshot,
        limits: ArbiterLimits | None = None,
    ) -> None:
        self._addresses = addresses
        self._clock = clock
        self._fetch = fetch
        self._asking: socket.socket | None = None
        self.follower = FeedFollower(venue, liveness, self._ask, limits=limits)
        self.on_change: Callable[[], None] = lambda: None
        self._due: asyncio.TimerHandle | None = None
        self._doubted = asyncio.Event()
        self.foreign_datagrams = 0
        self.dropped_datagrams: dict[str, int] = {}

    @property
    def is_recovering(self) -> bool:
        """Return whether messages are missing that are being asked for."""
        return self.follower.is_recovering

    async def run(self) -> None:
        """Receive until cancelled.

        Raises:
            OSError: a line cannot be bound.
        """
        repair = asyncio.create_task(self._repair(), name="feed-repair")
        with contextlib.ExitStack() as stack:
            stack.callback(repair.cancel)
            stack.callback(self._cancel_due)
            for line, address in zip(("A", "B"), self._addresses.lines, strict=True):
                self._open(stack, line, _bound(address))
            self._asking = _connected(self._addresses.requests)
            self._open(stack, _ANSWERS, self._asking)
            while not repair.done():
                self._tick()
                await asyncio.wait({repair}, timeout=TICK_SECONDS)
            repair.result()

    def samples(self) -> list[Sample]:
        """Return the receiver's metrics; dropped datagrams that grow mean that this process is too slow."""
        dropped = [Sample("feed_dropped_datagrams_total", count, (("line", line),)) for line, count in self.dropped_datagrams.items()]
        return [*self.follower.samples(), *dropped, Sample("feed_foreign_datagrams_total", self.foreign_datagrams)]

    def _open(self, stack: contextlib.ExitStack, line: str, opened: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        stack.callback(opened.close)
        loop.add_reader(opened.fileno(), self._read, line, opened)
        stack.callback(loop.remove_reader, opened.fileno())

    def _read(self, line: str, opened: socket.socket) -> None:
        now, now_ns = self._clock.monotonic(), self._clock.now_ns()
        sources = self._addresses.sources
        for _ in range(READ_DATAGRAMS_MAX):
            try:
                data, control, _, sender = opened.recvmsg(DATAGRAM_BYTES_MAX, _CONTROL_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                # A re-request server that is away answers by ICMP; the ladder goes on without it.
                _logger.debug("feed %s: %s", line, error)
                break
            if line != _ANSWERS and sender[0] not in sources:
                self.foreign_datagrams += 1
                continue
            self.follower.receive(line, data, now, arrived_at=now - self._age_seconds(line, control, now_ns))
        self._schedule()
        self.on_change()

    def _age_seconds(self, line: str, control: list[tuple[int, int, bytes]], now_ns: int) -> float:
        age = 0.0
        for level, kind, value in control:
            if level != socket.SOL_SOCKET:
                continue
            if kind == _SO_TIMESTAMPNS and len(value) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                age = max(now_ns - seconds * 1_000_000_000 - nanoseconds, 0) / 1e9
            elif kind == _SO_RXQ_OVFL and len(value) >= _COUNT.size:
                (self.dropped_datagrams[line],) = _COUNT.unpack_from(value)
        return age

    def _tick(self) -> None:
        self.follower.tick(self._clock.monotonic())
        self._schedule()
        self.on_change()

    def _schedule(self) -> None:
        """Let the arbiter have its turn when it is due: its first rung is two milliseconds."""
        if self.follower.needs_snapshot:
            self._doubted.set()
        self._cancel_due()
        deadline = self.follower.arbiter.next_deadline()
        if deadline is not None and (delay := deadline - self._clock.monotonic()) < TICK_SECONDS:
            self._due = asyncio.get_running_loop().call_later(max(delay, 0.0), self._tick)

    def _cancel_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _ask(self, request: Request) -> None:
        if self._asking is not None:
            with contextlib.suppress(OSError):
                self._asking.send(encode_request(request))

    async def _repair(self) -> None:
        """Fetch a snapshot whenever one is needed, less and less often while none helps."""
        pause = SNAPSHOT_RETRY_SECONDS
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            if not self.follower.needs_snapshot or await self._repaired():
                pause = SNAPSHOT_RETRY_SECONDS
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, SNAPSHOT_RETRY_SECONDS_MAX)

    async def _repaired(self) -> bool:
        follower = self.follower
        follower.begin_snapshot()
        try:
            snapshot = await self._fetch(self._addresses.snapshots)
            reader = await _loaded(snapshot)
        except (OSError, TimeoutError, SnapshotError, MalformedError) as error:
            _logger.warning("no snapshot: %s", error)
            follower.fail_snapshot(self._clock.monotonic())
            return False
        given_up_at = self._clock.monotonic() + CATCH_UP_SECONDS_MAX
        while (merged := follower.merge(reader, snapshot.next_sequence, self._clock.monotonic())) is None:
            if self._clock.monotonic() > given_up_at:
                break
            await asyncio.sleep(CATCH_UP_PAUSE_SECONDS)
        if not merged:
            follower.fail_snapshot(self._clock.monotonic())
        self._schedule()
        self.on_change()
        return bool(merged) and follower.venue.is_continuous


async def _loaded(snapshot: Snapshot) -> FeedReader:
    reader = snapshot_reader(snapshot.session, snapshot.next_sequence)
    for start in range(0, len(snapshot.messages), _LOAD_MESSAGES):
        reader.load(snapshot.messages[start : start + _LOAD_MESSAGES])
        # The lines go on meanwhile.
        await asyncio.sleep(0)
    return reader


def _bound(address: Address) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    try:
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def _connected(address: Address) -> socket.socket:
    """A socket that takes datagrams of this address alone."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    opened.connect(address)
    return opened
