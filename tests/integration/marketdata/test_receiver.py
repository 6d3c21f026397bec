"""The receiver's sockets: who may speak, how old what arrives is, and what a deaf or mad server does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kernel.clock import SystemClock
from kernel.itch.errors import MalformedError
from kernel.itch.glimpse import Snapshot, SnapshotError, encode_end
from kernel.itch.soupbintcp import LoginAccepted, LoginRefusal, PacketType, encode, encode_accepted, encode_refusal
from svc_marketdata.config import Address, FeedAddresses
from svc_marketdata.domain import Venue
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.receiver import FeedReceiver, fetch_snapshot
from tests.integration.marketdata.test_exchange import free_ports
from tests.unit.marketdata.scripted import ScriptedVenue
from tests.wire.kernel_net.serving import until

NAMES = ("AAPL", "MSFT")


class SkewedClock(SystemClock):
    """The machine's clock, or one that says that the kernel's stamps are old."""

    skew_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.skew_ns


class Receiving:
    """A receiver on sockets of its own, and sockets to speak to it."""

    def __init__(self) -> None:
        self.script = ScriptedVenue()
        self.script.open(*NAMES)
        self.ports = free_ports(socket.SOCK_DGRAM, 3)
        self.clock = SkewedClock()
        self.venue, self.liveness = Venue(), Liveness()
        self.fetches = 0
        self.snapshots_fail = False
        lines = ("127.0.0.1", self.ports[0]), ("127.0.0.1", self.ports[1])
        addresses = FeedAddresses(lines, ("127.0.0.1", self.ports[2]), ("127.0.0.1", 1), frozenset({"127.0.0.1"}))
        self.receiver = FeedReceiver(addresses, self.venue, self.liveness, self.clock, fetch=self._fetch)

    async def _fetch(self, address: Address) -> Snapshot:
        self.fetches += 1
        if self.snapshots_fail:
            raise SnapshotError("none today")
        return Snapshot(self.script.session, self.script.next_sequence, self.script.snapshot(*NAMES))

    def send(self, data: bytes, *, line: int = 0, source: str = "127.0.0.1") -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((source, 0))
            sender.sendto(data, ("127.0.0.1", self.ports[line]))

    def say(self, *, line: int = 0, source: str = "127.0.0.1") -> None:
        self.send(self.script.packet(1, len(self.script.messages)), line=line, source=source)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiving]:
    receiving = Receiving()
    running = asyncio.create_task(receiving.receiver.run())
    try:
        # The first turn of the task binds the sockets.
        await asyncio.sleep(0)
        yield receiving
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_both_lines_are_heard_and_a_new_session_is_settled_by_a_snapshot() -> None:
    async with receiving() as feed:
        feed.script.add("AAPL", 1, "B", 10, 10_000)
        feed.say(line=0)
        feed.say(line=1)
        await until(lambda: len(feed.venue) == 2 and feed.venue.is_continuous)
        market = feed.venue.market("AAPL")
        assert market is not None
        assert market.book.bids(5) == [(10_000, 10, 1)]
        counts = feed.receiver.follower.arbiter.counts
        assert (counts.delivered_messages, counts.duplicate_packets) == (len(feed.script.messages), 1)
        assert feed.fetches == 1


async def test_strangers_and_nonsense_change_nothing() -> None:
    async with receiving() as feed:
        feed.say(source="127.0.0.9")
        await until(lambda: feed.receiver.foreign_datagrams == 1)
        for data in (b"", b"x", feed.script.packet(1, 3)[:-1], b"\xff" * 1_400):
            feed.send(data)
        await until(lambda: feed.receiver.follower.arbiter.counts.malformed_packets == 4)
        assert len(feed.venue) == 0
        assert feed.liveness.heard_at is None


async def test_what_waited_in_the_socket_is_as_old_as_its_arrival() -> None:
    async with receiving() as feed:
        feed.clock.skew_ns = 9_000_000_000
        feed.say()
        await until(lambda: feed.liveness.heard_at is not None)
        assert feed.liveness.heard_at is not None
        assert feed.clock.monotonic() - feed.liveness.heard_at == pytest.approx(9.0, abs=1.0)
        assert not feed.liveness.is_live(feed.clock.monotonic())


async def test_without_a_snapshot_the_books_stay_stale_and_the_feed_goes_on() -> None:
    async with receiving() as feed:
        feed.snapshots_fail = True
        feed.say()
        await until(lambda: feed.fetches >= 2)
        assert not feed.venue.is_continuous
        feed.snapshots_fail = False
        await until(lambda: feed.venue.is_continuous)


async def test_a_line_that_cannot_be_bound_ends_the_receiver() -> None:
    feed = Receiving()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", feed.ports[0]))
        with pytest.raises(OSError, match="in use"):
            await feed.receiver.run()


@asynccontextmanager
async def snapshot_server(*chunks: bytes) -> AsyncIterator[Address]:
    """Serve the same bytes to whoever logs in."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(49)
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


async def test_a_snapshot_is_fetched_whole() -> None:
    script = ScriptedVenue()
    messages = script.snapshot(*NAMES)
    data = b"".join(encode(PacketType.SEQUENCED_DATA, message) for message in (*messages, encode_end(42)))
    accepted = encode_accepted(LoginAccepted(script.session, 1))
    async with snapshot_server(accepted + data[:7], data[7:]) as address:
        assert await fetch_snapshot(address) == Snapshot(script.session, 42, messages)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", SnapshotError),
        (encode_refusal(LoginRefusal.NOT_AUTHORISED), SnapshotError),
        (encode_accepted(LoginAccepted("2601050001", 1)), SnapshotError),
        (b"\x00\x00", MalformedError),
        (b"\x00\x01?", MalformedError),
    ],
)
async def test_a_snapshot_that_is_none_is_an_error(answer: bytes, error: type[Exception]) -> None:
    async with snapshot_server(answer) as address:
        with pytest.raises(error):
            await fetch_snapshot(address)
