"""The feed over real sockets: lines, heartbeats, re-requests, snapshots, faults, and strangers at its doors."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel.clock import SystemClock
from kernel.itch import soupbintcp
from kernel.itch.moldudp64 import Request, encode_request
from kernel.itch.soupbintcp import LoginRefusal, LoginRequest, PacketReader, PacketType
from kernel.itch.steps import GapDeclared, LineFound, LineLost, RequestNeeded, SessionEnded, SnapshotAccepted, SnapshotNeeded
from sandbox.exchange.engine.state import VenueState
from sandbox.exchange.exchange import Exchange, ExchangeSettings
from sandbox.exchange.instruments import parse_instruments
from sandbox.exchange.market_data.channels import ChannelSettings, MarketDataServer
from sandbox.exchange.members import Credentials
from sandbox.exchange.server import ExchangeServer
from tests.simulation.exchange.test_market_data import engine_queue
from tests.wire.exchange.client import DEADLINE_SECONDS, FixClient, is_report
from tests.wire.exchange.itch_client import ItchReceiver, fetch_snapshot, until
from tests.wire.exchange.test_server import PASSWORD, always_open


@dataclass
class Published:
    """A served venue, its feed and one receiver."""

    server: ExchangeServer
    market_data: MarketDataServer
    receiver: ItchReceiver
    fix_port: int

    @property
    def state(self) -> VenueState:
        return self.server.exchange.state

    def fault(self, **fields: object) -> None:
        answer = json.loads(self.server.control.handle(json.dumps({"op": "line.fault.add", **fields})))
        assert answer["ok"], answer

    def is_followed(self) -> bool:
        """Whether the receiver has the engine's books."""
        return all(self.receiver.follower.queue(stock) == engine_queue(self.state, stock) for stock in ("AAPL", "BTC-USD"))


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Published]:
    async with ItchReceiver() as receiver:
        clock = SystemClock()
        lines = {line: [("127.0.0.1", receiver.line_ports[line])] for line in "AB"}
        market_data = MarketDataServer(ChannelSettings(lines), clock, tmp_path / "journal" / "session.json")
        credentials = {name: Credentials(name, name.lower(), PASSWORD) for name in ("ALPHA", "BETA")}
        settings = ExchangeSettings("XSIM", parse_instruments(always_open()), credentials, tmp_path / "journal")
        server = ExchangeServer(Exchange(settings, clock, market_data.publisher), 0, market_data)
        fix_port = await server.start("127.0.0.1", 0, None)
        assert server.market_data_ports is not None
        receiver.request_port, receiver.snapshot_port = server.market_data_ports
        published = Published(server, market_data, receiver, fix_port)
        yield published
        await server.close()


async def enter(venue: Published, count: int, *, prefix: str = "a", name: str = "ALPHA") -> None:
    """Enter orders one batch after the other, so that each makes a packet."""
    async with await FixClient(name).connect(venue.fix_port) as client:
        await client.logon(PASSWORD)
        for number in range(count):
            await client.send(client.order(f"{prefix}{number}", "12"[number % 2], str(number % 7 + 1), str(98 + 4 * (number % 2))))
            await client.wait(is_report("0"), number + 1)


async def test_both_lines_have_every_packet_and_the_book_follows(venue: Published) -> None:
    await enter(venue, 20)
    await until(venue.is_followed, "the books")
    await until(lambda: venue.receiver.packets["A"] == venue.receiver.packets["B"], "both lines")
    assert not venue.receiver.has(RequestNeeded)


async def test_heartbeats_come_at_least_once_a_second_while_nothing_happens(venue: Published) -> None:
    def beats() -> int:
        return sum(not packet.messages for packet in venue.receiver.packets["A"])

    began = asyncio.get_running_loop().time()
    await until(lambda: beats() >= 3, "three heartbeats")
    assert asyncio.get_running_loop().time() - began < 3
    assert venue.receiver.packets["A"][-1].sequence == venue.receiver.arbiter.next_sequence


async def test_one_line_is_enough(venue: Published) -> None:
    venue.fault(action="silence", line="A")
    await enter(venue, 10)
    await until(venue.is_followed, "the books")
    await until(lambda: venue.receiver.has(LineLost), "line A is missed")
    assert not venue.receiver.has(RequestNeeded)
    venue.server.control.handle('{"op":"line.fault.clear"}')
    await until(lambda: venue.receiver.arbiter.lines.is_up("A"), "line A is back")
    assert venue.receiver.steps.count(LineFound("A")) == 2


async def test_what_both_lines_lose_is_asked_for(venue: Published) -> None:
    venue.fault(action="drop", line="*", skip=2, count=4)
    await enter(venue, 10)
    await until(venue.is_followed, "the books")
    assert venue.receiver.has(RequestNeeded)
    assert venue.receiver.packets["answers"]
    assert not venue.receiver.has(SnapshotNeeded)


async def test_what_everybody_lost_needs_a_snapshot(venue: Published) -> None:
    venue.fault(action="lose", skip=2, count=2)
    await enter(venue, 10)
    await until(venue.is_followed, "the books")
    assert venue.receiver.has(SnapshotAccepted)
    assert not venue.receiver.has(GapDeclared)


async def test_packets_that_come_twice_or_late_change_nothing(venue: Published) -> None:
    venue.fault(action="duplicate", line="B", count=5)
    venue.fault(action="reorder", line="A", count=5, distance=2)
    await enter(venue, 12)
    await until(venue.is_followed, "the books")
    assert not venue.receiver.has(SnapshotNeeded)


async def test_a_snapshot_is_the_book_and_says_where_to_go_on(venue: Published) -> None:
    await enter(venue, 600)
    snapshot = await fetch_snapshot(venue.receiver.snapshot_port)
    follower = type(venue.receiver.follower)()
    for message in snapshot.messages:
        follower.apply(message)
    assert follower.queue("AAPL") == engine_queue(venue.state, "AAPL")
    assert snapshot.session == venue.market_data.publisher.session
    assert snapshot.next_sequence == venue.market_data.publisher.next_sequence


async def test_stopping_ends_the_session(venue: Published) -> None:
    await until(lambda: bool(venue.receiver.sessions), "a session")
    await venue.server.close()
    await until(lambda: venue.receiver.has(SessionEnded), "the end")


async def test_nothing_but_a_request_is_answered_at_the_request_server(venue: Published) -> None:
    session = venue.market_data.publisher.session
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"hello", bytes(20), encode_request(Request(session, 1, 1)) + b"x", encode_request(Request("other", 1, 1))):
            stranger.sendto(data, ("127.0.0.1", venue.receiver.request_port))
        await until(lambda: venue.market_data.requests.malformed >= 4, "what is malformed is counted")
        assert venue.market_data.status()["malformed_requests"] == 4
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(65_535)


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (soupbintcp.encode_login(LoginRequest("x", "", "another")), soupbintcp.encode_refusal(LoginRefusal.SESSION_NOT_AVAILABLE)),
        (soupbintcp.encode(PacketType.UNSEQUENCED_DATA, b"x"), b""),
        (b"\x00\x00", b""),
        (b"GET / HTTP/1.1\r\n\r\n" * 5_000, b""),
    ],
)
async def test_who_does_not_log_in_gets_no_snapshot(venue: Published, greeting: bytes, answer: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", venue.receiver.snapshot_port)
    writer.write(greeting)
    try:
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == answer
    except ConnectionError:
        assert not answer
    finally:
        writer.close()
    assert PacketReader().feed(answer)[:1] == ([(PacketType.LOGIN_REJECTED, b"S")] if answer else [])


async def test_a_destination_that_is_not_there_is_no_matter(venue: Published) -> None:
    venue.market_data.lines._destinations["B"] = (("127.0.0.1", 9),)
    await enter(venue, 5)
    await until(venue.is_followed, "the books")


async def test_a_control_without_a_feed_says_so(venue: Published) -> None:
    status = json.loads(venue.server.control.handle('{"op":"status"}'))
    assert status["market_data"]["session"] == venue.market_data.publisher.session
    for wrong in ({"action": "burn"}, {"action": "drop", "line": "C"}, {"action": "lose", "line": "A"}, {"action": "drop", "distance": 2}):
        assert not json.loads(venue.server.control.handle(json.dumps({"op": "line.fault.add", **wrong})))["ok"]
    venue.server.control._market_data = None
    assert "ITCH_A" in json.loads(venue.server.control.handle('{"op":"line.fault.list"}'))["error"]
