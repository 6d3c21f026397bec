"""`python -m sandbox.exchange` as a process: configuration, readiness, SIGTERM, and kill -9 in the middle of everything."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kernel.fix.message import Message
from tests.wire.exchange.client import DEADLINE_SECONDS, FixClient, is_report
from tests.wire.exchange.test_server import always_open

PASSWORD = "a secret of this test"
ROOT = Path(__file__).parents[3]
_READY = re.compile(r"ready fix=127\.0\.0\.1:(\d+) pid=(\d+)")


class Process:
    """One exchange process after the other, on one journal."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        credentials = directory / "credentials.json"
        members = [{"comp_id": name, "username": name.lower(), "password": PASSWORD} for name in ("ALPHA", "BETA")]
        credentials.write_text(json.dumps({"members": members}))
        credentials.chmod(0o600)
        instruments = directory / "instruments.json"
        instruments.write_text(always_open())
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
            "TRADEMESH_EXCHANGE_JOURNAL_DIRECTORY": str(directory / "journal"),
            "TRADEMESH_EXCHANGE_CREDENTIALS_FILE": str(credentials),
            "TRADEMESH_EXCHANGE_INSTRUMENTS_FILE": str(instruments),
            "TRADEMESH_EXCHANGE_READY_FILE": str(directory / "ready"),
            "TRADEMESH_EXCHANGE_FIX_PORT": "0",
            "TRADEMESH_EXCHANGE_FLOW_RATE": "50",
            **{f"TRADEMESH_EXCHANGE_{name.upper()}": text for name, text in settings.items()},
        }
        self.process: asyncio.subprocess.Process | None = None
        self.fix_port = 0

    async def start(self) -> None:
        """Start and wait for the ready line."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sandbox.exchange", env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode()
        match = _READY.match(line)
        assert match is not None, line
        assert (self.directory / "ready").read_text() == line
        self.fix_port = int(match.group(1))

    async def stop(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), DEADLINE_SECONDS)
        # Let the pipe's transport notice that the process is gone.
        assert self.process.stdout is not None
        await self.process.stdout.read()
        return status


@pytest.fixture
async def exchange(tmp_path: Path) -> AsyncIterator[Process]:
    process = Process(tmp_path)
    try:
        await process.start()
        yield process
    finally:
        if process.process is not None and process.process.returncode is None:
            await process.stop(signal.SIGKILL)


async def test_sigterm_says_goodbye_and_takes_the_ready_file_away(exchange: Process) -> None:
    async with await FixClient("ALPHA").connect(exchange.fix_port) as alpha:
        await alpha.logon(PASSWORD)
        assert await exchange.stop(signal.SIGTERM) == 0
        await alpha.wait(lambda message: message.msg_type == "5")
    assert not (exchange.directory / "ready").exists()


async def test_no_execution_id_is_reused_and_no_answer_lost_over_kill_9(exchange: Process) -> None:
    told: dict[str, Message] = {}
    alpha = FixClient("ALPHA")
    acknowledged: set[str] = set()
    for life in range(3):
        async with await alpha.connect(exchange.fix_port):
            await alpha.logon(PASSWORD)
            missed = alpha.frame("2", [(7, "1"), (16, "0")])
            await alpha.send(missed)
            orders = [alpha.order(f"{life}-{number}", "12"[number % 2], price=str(99 + number % 3)) for number in range(300)]
            await alpha.send(*orders[:200])
            await alpha.wait(is_report("0"), len(acknowledged) + 100)
            await alpha.send(*orders[200:])
            await exchange.stop(signal.SIGKILL)
        for report in alpha.received:
            if report.msg_type == "8":
                exec_id = report.require(17)
                known = told.setdefault(exec_id, report)
                assert [known.get(tag) for tag in (11, 37, 150, 14, 60)] == [report.get(tag) for tag in (11, 37, 150, 14, 60)]
                acknowledged.add(report.require(11))
        await exchange.start()
        # The venue knows how far it read; a real member learns it by the resend request.
        alpha = FixClient("ALPHA")
        alpha.next_out = await next_expected(exchange)
    async with await alpha.connect(exchange.fix_port):
        await alpha.logon(PASSWORD)
        for name in sorted(acknowledged):
            await alpha.send(alpha.frame("H", [(11, name), (54, "1"), (55, "AAPL")]))
        statuses = await alpha.wait(is_report("I"), len(acknowledged))
        unknown = [status.get(11) for status in statuses if status.get(37) == "NONE"]
        assert unknown == [], "an acknowledged order is gone"


async def next_expected(exchange: Process) -> int:
    """Ask the venue, by a logon with a number that is far too high, where it stands: its ResendRequest names the number it expects."""
    probe = FixClient("ALPHA")
    probe.next_out = 1_000_000
    async with await probe.connect(exchange.fix_port):
        await probe.logon(PASSWORD)
        (request,) = await probe.wait(lambda message: message.msg_type == "2")
        return int(request.require(7))


async def test_a_second_venue_on_one_journal_is_refused(exchange: Process) -> None:
    result = await asyncio.to_thread(run, exchange.environment)
    assert result.returncode == 3
    assert "another venue" in result.stderr


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the exchange to its end."""
    return subprocess.run(
        [sys.executable, "-m", "sandbox.exchange"], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def idle(tmp_path: Path) -> Process:
    return Process(tmp_path)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("FIX_PORT", "seven", "FIX_PORT"),
        ("FIX_PORT", "70000", "FIX_PORT"),
        ("ADDRESS", "0.0.0.0", "ADDRESS"),  # noqa: S104 - the refusal is the point
        ("COLOUR", "red", "COLOUR"),
        ("CREDENTIALS_FILE", "/nowhere/credentials.json", "nowhere"),
        ("INSTRUMENTS_FILE", "/dev/null", "not JSON"),
        ("FLOW_RATE", "-1", "FLOW_RATE"),
    ],
)
def test_wrong_configuration_is_named_and_nothing_starts(idle: Process, key: str, text: str, message: str) -> None:
    result = run(idle.environment | {f"TRADEMESH_EXCHANGE_{key}": text})
    assert result.returncode == 2
    assert message in result.stderr
    assert not (idle.directory / "ready").exists()


def test_required_keys(idle: Process) -> None:
    result = run({"PATH": os.environ["PATH"], "PYTHONPATH": idle.environment["PYTHONPATH"]})
    assert result.returncode == 2
    assert "JOURNAL_DIRECTORY" in result.stderr
    assert "CREDENTIALS_FILE" in result.stderr


def test_credentials_that_others_can_read_are_refused(idle: Process) -> None:
    (idle.directory / "credentials.json").chmod(0o644)
    result = run(idle.environment)
    assert result.returncode == 2
    assert "0644" in result.stderr
    assert PASSWORD not in result.stderr


def test_a_bad_script_is_refused(idle: Process) -> None:
    script = idle.directory / "script.jsonl"
    script.write_text('{"op":"fault.add","action":"explode"}\n')
    result = run(idle.environment | {"TRADEMESH_EXCHANGE_SCRIPT_FILE": str(script)})
    assert result.returncode == 2
    assert "line 1" in result.stderr


def test_another_tick_than_the_journals_is_refused(idle: Process) -> None:
    async def once() -> None:
        await idle.start()
        await idle.stop(signal.SIGTERM)

    asyncio.run(once())
    path = idle.directory / "instruments.json"
    path.write_text(path.read_text().replace('"tick": "0.01"', '"tick": "0.05"'))
    result = run(idle.environment)
    assert result.returncode == 3
    assert "AAPL was listed with tick 0.01" in result.stderr
