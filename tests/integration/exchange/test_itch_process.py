"""The real process and its feed: kill -9 in the middle, sessions that never come twice, faults from a script, configuration."""

import json
import re
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from kernel.itch.steps import GapDeclared, RequestNeeded, SessionEnded, SnapshotAccepted
from tests.integration.exchange.test_process import PASSWORD, Process, run
from tests.simulation.exchange.itch_follower import Follower, Rest
from tests.wire.exchange.client import FixClient, is_report
from tests.wire.exchange.itch_client import ItchReceiver, fetch_snapshot, until

_ITCH_PORTS = re.compile(r"itch_request=127\.0\.0\.1:(\d+) itch_snapshot=127\.0\.0\.1:(\d+)")
SCRIPT = [
    {"op": "line.fault.add", "action": "drop", "line": "*", "skip": 3, "count": 2},
    {"op": "line.fault.add", "action": "lose", "skip": 9, "count": 1},
    {"op": "line.fault.add", "action": "reorder", "line": "A", "count": 20, "distance": 3},
    {"op": "line.fault.add", "action": "duplicate", "line": "B"},
]


Books = dict[str, list[Rest]]


def books_of(follower: Follower) -> Books:
    """All books of a receiver."""
    return {stock: follower.queue(stock) for stock in follower.stocks.values()}


class Published:
    """An exchange process and a receiver of its feed that outlives it."""

    def __init__(self, process: Process, receiver: ItchReceiver) -> None:
        self.process = process
        self.receiver = receiver
        self.next_out = 1

    async def start(self) -> None:
        await self.process.start()
        ports = _ITCH_PORTS.search((self.process.directory / "ready").read_text())
        assert ports is not None
        self.receiver.request_port, self.receiver.snapshot_port = map(int, ports.groups())

    async def snapshot_books(self) -> Books:
        """The venue's books as it tells them to who comes late."""
        follower = Follower()
        for message in (await fetch_snapshot(self.receiver.snapshot_port)).messages:
            follower.apply(message)
        return books_of(follower)

    def has(self, books: Books) -> bool:
        """Whether the receiver has these books."""
        return books_of(self.receiver.follower) == books


@pytest.fixture
async def published(tmp_path: Path) -> AsyncIterator[Published]:
    async with ItchReceiver() as receiver:
        lines = {f"itch_{line.lower()}": f"127.0.0.1:{receiver.line_ports[line]}" for line in "AB"}
        process = Process(tmp_path, itch_request_port="0", itch_snapshot_port="0", flow_rate="0", **lines)
        try:
            yield Published(process, receiver)
        finally:
            if process.process is not None and process.process.returncode is None:
                await process.stop(signal.SIGKILL)


async def enter(published: Published, name: str, count: int) -> None:
    """Enter resting orders, each acknowledged before the next."""
    client = FixClient("ALPHA")
    client.next_out = published.next_out
    async with await client.connect(published.process.fix_port):
        await client.logon(PASSWORD)
        for number in range(count):
            side = "12"[number % 2]
            await client.send(client.order(f"{name}{number}", side, str(1 + number % 9), str(90 + number % 5 + 20 * (side == "2"))))
            await client.wait(is_report("0"), number + 1)
    published.next_out = client.next_out


async def test_kill_9_and_restart_never_repeat_a_session_and_the_book_goes_on(published: Published) -> None:
    receiver = published.receiver
    for life in range(4):
        await published.start()
        await enter(published, f"{life}-", 10)
        expected = await published.snapshot_books()
        assert sum(map(len, expected.values())) == 10 * (life + 1)
        await until(partial(published.has, expected), "the books")
        await published.process.stop(signal.SIGKILL)
    assert len(receiver.sessions) == len(set(receiver.sessions)) == 4
    assert receiver.sessions == sorted(receiver.sessions)
    firsts = {packet.session: packet.sequence for packet in reversed(receiver.packets["A"])}
    assert firsts == dict.fromkeys(receiver.sessions, 1)


async def test_a_clean_stop_ends_the_session(published: Published) -> None:
    await published.start()
    await until(lambda: bool(published.receiver.sessions), "a session")
    assert await published.process.stop(signal.SIGTERM) == 0
    await until(lambda: published.receiver.has(SessionEnded), "the end")


async def test_a_script_bends_the_lines_and_the_receiver_recovers(published: Published) -> None:
    script = published.process.directory / "script.jsonl"
    script.write_text("".join(f"{json.dumps(line)}\n" for line in SCRIPT))
    published.process.environment["TRADEMESH_EXCHANGE_SCRIPT_FILE"] = str(script)
    await published.start()
    await enter(published, "a", 40)
    expected = await published.snapshot_books()
    await until(partial(published.has, expected), "the books")
    assert published.receiver.has(RequestNeeded)
    assert published.receiver.has(SnapshotAccepted)
    assert not published.receiver.has(GapDeclared)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("ITCH_A", "127.0.0.1", "ITCH_A"),
        ("ITCH_A", "127.0.0.1:70000", "70000"),
        ("ITCH_B", "10.0.0.1:26400", "ITCH_B"),
        ("ITCH_SNAPSHOT_PORT", "many", "ITCH_SNAPSHOT_PORT"),
        ("ITCH_PACKETS_PER_SECOND", "0", "ITCH_PACKETS_PER_SECOND"),
    ],
)
def test_wrong_configuration_is_named(tmp_path: Path, key: str, text: str, message: str) -> None:
    result = run(Process(tmp_path).environment | {f"TRADEMESH_EXCHANGE_{key}": text})
    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"BTC-USD"', '"BITCOIN-USD"', "'BITCOIN-USD' cannot be published"),
        ('"prior_close": "50000"', '"prior_close": "429496730"', "BTC-USD'.prior_close"),
        ('"currency": "USD"', '"currency": "US-DOLLARS"', "its currency"),
    ],
)
def test_an_instrument_that_itch_has_no_room_for_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    process = Process(tmp_path, itch_a="127.0.0.1:26400", itch_request_port="0", itch_snapshot_port="0")
    path = tmp_path / "instruments.json"
    path.write_text(path.read_text().replace(old, new))
    result = run(process.environment)
    assert result.returncode == 2
    assert message in result.stderr


def test_a_session_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    process = Process(tmp_path, itch_a="127.0.0.1:26400", itch_request_port="0", itch_snapshot_port="0")
    (tmp_path / "journal").mkdir(mode=0o700)
    (tmp_path / "journal" / "market-data-session.json").write_text("{")
    result = run(process.environment)
    assert result.returncode == 2
    assert "could come twice" in result.stderr
    assert not (tmp_path / "ready").exists()
