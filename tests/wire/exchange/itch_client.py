"""A receiver on real sockets: two lines, re-requests, snapshots. It follows by the simulation's hand-made reader."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from kernel.itch.arbiter import Arbiter
from kernel.itch.glimpse import Snapshot, SnapshotReader
from kernel.itch.moldudp64 import Packet, decode_packet, encode_request
from kernel.itch.steps import (
    ArbiterLimits,
    ArbiterStep,
    Delivered,
    GapDeclared,
    RequestNeeded,
    SessionBegan,
    SnapshotAccepted,
    SnapshotNeeded,
)
from tests.simulation.exchange.itch_follower import Follower
from tests.wire.exchange.client import DEADLINE_SECONDS

TICK_SECONDS = 0.005
# Generous times: these machines stall, and a snapshot instead of an answer would pass for one.
LIMITS = ArbiterLimits(hold_seconds=0.02, request_timeout_seconds=0.25, request_attempts=4)


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data)


async def fetch_snapshot(port: int) -> Snapshot:
    """Log in, read one snapshot."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        snapshots = SnapshotReader("test", "")
        writer.write(snapshots.greeting)
        while True:
            data = await asyncio.wait_for(reader.read(65_536), DEADLINE_SECONDS)
            assert data, "the snapshot server closed early"
            snapshot = snapshots.feed(data)
            if snapshot is not None:
                return snapshot
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class ItchReceiver:
    """Binds both lines at once; `ports` of the servers may come later, and change."""

    def __init__(self) -> None:
        self.arbiter = Arbiter(("A", "B"), LIMITS)
        self.follower = Follower()
        self.packets: dict[str, list[Packet]] = {"A": [], "B": [], "answers": []}
        self.sessions: list[str] = []
        self.steps: list[ArbiterStep] = []
        self.line_ports: dict[str, int] = {}
        self.request_port = self.snapshot_port = 0
        self._transports: dict[str, asyncio.DatagramTransport] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._is_in_doubt = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for name in self.packets:
            transport, _ = await loop.create_datagram_endpoint(partial(_Inbox, partial(self._take, name)), ("127.0.0.1", 0))
            self._transports[name] = transport
            self.line_ports[name] = transport.get_extra_info("sockname")[1]
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in (self._ticking, self._fetching):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        for transport in self._transports.values():
            transport.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._note(self.arbiter.tick(asyncio.get_running_loop().time()))

    def _take(self, name: str, data: bytes) -> None:
        self.packets[name].append(decode_packet(data))
        self._note(self.arbiter.receive(name, data, asyncio.get_running_loop().time()))

    def _note(self, steps: list[ArbiterStep]) -> None:
        self.steps += (step for step in steps if not isinstance(step, Delivered))
        for step in steps:
            match step:
                case SessionBegan():
                    self.sessions.append(step.session)
                    self.follower.clear_books()
                    self._is_in_doubt = False
                case Delivered() if not self._is_in_doubt:
                    for message in step.messages:
                        self.follower.apply(message)
                case RequestNeeded():
                    self._transports["answers"].sendto(encode_request(step.request), ("127.0.0.1", self.request_port))
                case SnapshotNeeded():
                    self._fetching = asyncio.create_task(self._recover())
                case GapDeclared():
                    self._is_in_doubt = True
                case _:
                    pass

    async def _recover(self) -> None:
        snapshot = await fetch_snapshot(self.snapshot_port)
        steps = self.arbiter.snapshot(snapshot.session, snapshot.next_sequence, asyncio.get_running_loop().time())
        if any(isinstance(step, SnapshotAccepted) for step in steps):
            self.follower.clear_books()
            self._is_in_doubt = False
            for message in snapshot.messages:
                self.follower.apply(message)
        self._note(steps)

    def has(self, kind: type[ArbiterStep]) -> bool:
        """Whether the arbiter said such a thing."""
        return any(isinstance(step, kind) for step in self.steps)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not in time: {what}"
        await asyncio.sleep(TICK_SECONDS)
