"""The venue's real sockets on one loop: FIX door and control."""

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernel.clock import SystemClock
from sandbox.exchange.exchange import Exchange, ExchangeSettings
from sandbox.exchange.instruments import parse_instruments
from sandbox.exchange.journal import JournalError
from sandbox.exchange.members import Credentials
from sandbox.exchange.server import ExchangeServer
from tests.unit.exchange.venues import EVERY_DAY, document
from tests.wire.exchange.client import DEADLINE_SECONDS, FixClient, is_report

PASSWORD = "a secret of this test"


@dataclass
class Running:
    """A served venue."""

    server: ExchangeServer
    fix_port: int
    control: Path


def always_open() -> str:
    listing: Any = document()
    listing["calendars"]["new-york"] = {"timezone": "UTC", "days": EVERY_DAY, "open": "00:00", "close": "24:00"}
    return json.dumps(listing)


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Running]:
    credentials = {name: Credentials(name, name.lower(), PASSWORD) for name in ("ALPHA", "BETA")}
    settings = ExchangeSettings("XSIM", parse_instruments(always_open()), credentials, tmp_path / "journal")
    server = ExchangeServer(Exchange(settings, SystemClock()), flow_rate=0)
    control = tmp_path / "control"
    yield Running(server, await server.start("127.0.0.1", 0, control), control)
    await server.close()


async def member(venue: Running, name: str) -> FixClient:
    client = await FixClient(name).connect(venue.fix_port)
    await client.logon(PASSWORD)
    return client


async def test_two_members_trade(venue: Running) -> None:
    async with await member(venue, "ALPHA") as alpha, await member(venue, "BETA") as beta:
        await alpha.send(alpha.order("a"))
        await alpha.wait(is_report("0"))
        await beta.send(beta.order("b", "2", "60"))
        (fill,) = await alpha.wait(is_report("F"))
        assert fill.get(14) == "60"
        await beta.wait(is_report("F"))


async def test_many_orders_in_one_write_are_one_batch(venue: Running) -> None:
    async with await member(venue, "ALPHA") as alpha:
        before = venue.server.exchange.journal.record_count
        await alpha.send(*(alpha.order(f"a{number}") for number in range(100)))
        reports = await alpha.wait(is_report("0"), 100)
        assert [report.get(11) for report in reports] == [f"a{number}" for number in range(100)]
        assert venue.server.exchange.journal.record_count - before <= 10


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"8=FIX.4.4\x019=5\x0135=0\x0110=000\x01", b"8=FIX.4.4\x019=999999999\x01"]
)
async def test_garbage_from_a_stranger_closes_the_connection(venue: Running, garbage: bytes) -> None:
    async with await FixClient("ALPHA").connect(venue.fix_port) as client:
        await client.send(garbage)
        await client.wait_closed()
        assert client.received == []


async def test_wrong_password_closes_without_an_answer(venue: Running) -> None:
    async with await FixClient("ALPHA").connect(venue.fix_port) as client:
        with pytest.raises(ConnectionError):
            await client.logon("wrong password")
        assert client.received == []


async def test_garbage_from_a_member_is_ignored_and_the_next_message_taken(venue: Running) -> None:
    async with await member(venue, "ALPHA") as alpha:
        good = alpha.order("a")
        await alpha.send(good.replace(b"38=100", b"38=900"), b"8=FIX.4.4\x019=99999999\x01", good)
        (report,) = await alpha.wait(is_report("0"))
        assert report.get(38) == "100"


async def test_oversized_message_is_ignored(venue: Running) -> None:
    async with await member(venue, "ALPHA") as alpha:
        number = alpha.next_out
        await alpha.send(alpha.order("big", t58="x" * 70_000))
        alpha.next_out = number
        await alpha.send(alpha.order("a"))
        (report,) = await alpha.wait(is_report("0"))
        assert report.get(11) == "a"


async def test_a_new_logon_replaces_the_old_connection(venue: Running) -> None:
    async with await member(venue, "ALPHA") as stale:
        fresh = FixClient("ALPHA")
        fresh.next_out = stale.next_out
        async with await fresh.connect(venue.fix_port):
            await fresh.logon(PASSWORD)
            await stale.wait_closed()
            await fresh.send(fresh.order("a"))
            await fresh.wait(is_report("0"))


async def read_line(reader: asyncio.StreamReader) -> dict[str, Any]:
    line = json.loads(await asyncio.wait_for(reader.readline(), DEADLINE_SECONDS))
    assert isinstance(line, dict)
    return line


async def ask(venue: Running, *lines: str) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(venue.control))
    writer.write("".join(f"{line}\n" for line in lines).encode())
    answers = [await read_line(reader) for _ in lines]
    writer.close()
    await writer.wait_closed()
    return answers


async def test_control_socket_is_private_and_answers(venue: Running) -> None:
    assert stat.S_IMODE(venue.control.stat().st_mode) == 0o600
    answers = await ask(venue, '{"op":"status"}', "nonsense", '{"op":"fault.add","action":"reject","count":1}')
    assert [answer["ok"] for answer in answers] == [True, False, True]
    async with await member(venue, "ALPHA") as alpha:
        await alpha.send(alpha.order("a"))
        await alpha.wait(is_report("8"))


async def test_an_endless_control_line_is_cut_off(venue: Running) -> None:
    reader, writer = await asyncio.open_unix_connection(str(venue.control))
    writer.write(b"x" * 20_000)
    assert (await read_line(reader))["error"] == "the line is too long"
    assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
    writer.close()


async def test_an_operators_disconnect_reaches_the_member(venue: Running) -> None:
    async with await member(venue, "ALPHA") as alpha:
        await ask(venue, '{"op":"member.disconnect","comp_id":"ALPHA"}')
        await alpha.wait_closed()


async def test_stop_waits_for_the_answers_to_its_logouts(venue: Running) -> None:
    async with await member(venue, "ALPHA") as alpha, await member(venue, "BETA") as beta:
        stopping = asyncio.create_task(venue.server.close())
        for client in (alpha, beta):
            (logout,) = await client.wait(lambda message: message.msg_type == "5")
            assert logout.get(58) == "the exchange stops"
        await alpha.send(alpha.frame("5", []))
        await alpha.wait_closed()
        assert not stopping.done(), "one member has not answered"
        await beta.send(beta.frame("5", []))
        await beta.wait_closed()
        await asyncio.wait_for(stopping, DEADLINE_SECONDS)
    assert venue.server.exchange.desk.members["ALPHA"].sequences.next_in == alpha.next_out, "the answer counts"


async def test_stop_does_not_wait_for_ever(venue: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.exchange.server.LOGOUT_SECONDS_MAX", 0.05)
    async with await member(venue, "ALPHA") as alpha:
        await asyncio.wait_for(venue.server.close(), DEADLINE_SECONDS)
        await alpha.wait_closed()
        assert [message.msg_type for message in alpha.received] == ["A", "5"]


async def test_a_member_that_does_not_read_is_dropped_and_loses_nothing(venue: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.exchange.server.WRITE_BUFFER_BYTES_MAX", 64 * 1024)
    quiet = socket.create_connection(("127.0.0.1", venue.fix_port))
    quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    helper = FixClient("ALPHA")
    quiet.sendall(helper.frame("A", [(98, "0"), (108, "0"), (553, "alpha"), (554, PASSWORD)]))
    alpha = venue.server.exchange.desk.members["ALPHA"]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not alpha.is_connected:
            await asyncio.sleep(0)
        quiet.setblocking(False)
        loop = asyncio.get_running_loop()
        number = 0
        with contextlib.suppress(ConnectionError):
            while alpha.link is not None:
                await loop.sock_sendall(quiet, b"".join(helper.order(f"o{number + index}") for index in range(200)))
                number += 200
        while alpha.link is not None:
            await asyncio.sleep(0)
    quiet.close()
    orders = len(venue.server.exchange.state.open_orders_of("ALPHA"))
    again = FixClient("ALPHA")
    again.next_out = alpha.sequences.next_in
    async with await again.connect(venue.fix_port):
        await again.logon(PASSWORD)
        await again.send(again.frame("2", [(7, "1"), (16, "0")]))
        reports = await again.wait(is_report("0"), orders)
        assert len({report.get(11) for report in reports}) == orders


async def test_a_resend_larger_than_the_buffer_reaches_a_slow_member_whole(venue: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.exchange.server.WRITE_BUFFER_BYTES_MAX", 128 * 1024)
    monkeypatch.setattr("sandbox.exchange.sessions.RESEND_MESSAGES_MAX", 100)
    count = 3_000
    async with await member(venue, "ALPHA") as alpha:
        for start in range(0, count, 500):
            await alpha.send(*(alpha.order(f"o{number}") for number in range(start, start + 500)))
            await alpha.wait(is_report("0"), start + 500)
    numbers = venue.server.exchange.desk.members["ALPHA"].sequences
    # Accepted sockets inherit it; loopback's own would take megabytes before the venue feels anything.
    venue.server._servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
    slow = FixClient("ALPHA")
    slow.next_out = numbers.next_in
    async with await slow.connect(venue.fix_port, receive_buffer_bytes=4096), await member(venue, "BETA") as beta:
        await slow.logon(PASSWORD)
        await slow.send(slow.frame("2", [(7, "1"), (16, "0")]))
        await beta.send(beta.order("b", "2"))
        await beta.wait(is_report("F"))
        largest = 0
        for wanted in range(100, count + 1, 100):
            await slow.wait(is_report("0"), wanted)
            largest = max(largest, *(connection.write_buffer_bytes for connection in venue.server.fix_connections))
        (fill,) = await slow.wait(is_report("F"))
        assert fill.get(11) == "o0"
        assert [int(message.require(34)) for message in slow.received if message.msg_type == "8"] == [*range(2, count + 2), count + 3]
        assert largest < 128 * 1024


async def test_when_the_journal_cannot_be_written_nobody_is_told_anything(venue: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with await member(venue, "ALPHA") as alpha:
        monkeypatch.setattr("sandbox.exchange.journal.os.fdatasync", full)
        await alpha.send(alpha.order("a"))
        await asyncio.wait_for(venue.server.stopped.wait(), DEADLINE_SECONDS)
        assert isinstance(venue.server.failure, JournalError)
        monkeypatch.undo()
        await venue.server.close()
        await alpha.wait_closed()
        assert [message.msg_type for message in alpha.received] == ["A"]
