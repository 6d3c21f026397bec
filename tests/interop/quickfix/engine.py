"""The test's end of a QuickFIX process: starts, commands, kills and restarts it, and waits on what it reports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel.fix.steps import AppMessage

ROOT = Path(__file__).resolve().parents[3]
INSTALLED = ROOT / ".venv" / "interop"
DEADLINE_SECONDS = 15.0
LINE_BYTES_MAX = 1 << 20
HEARTBEAT_SECONDS = 1


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(INSTALLED)}


def problem() -> str:
    """Why QuickFIX cannot be imported; empty where it can."""
    call = [sys.executable, "-W", "ignore", "-c", "import quickfix"]
    done = subprocess.run(call, env=environment(), capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2]


def dictionary() -> Path | None:
    """The FIX 4.4 dictionary that the package ships."""
    places = (INSTALLED / "share" / "quickfix", Path(sys.prefix) / "share" / "quickfix")
    return next((place / "FIX44.xml" for place in places if (place / "FIX44.xml").exists()), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, within the deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass
class Seen:
    """A message that QuickFIX read (`direction` in) or wrote (out)."""

    direction: str
    fields: list[tuple[int, str]]

    @property
    def msg_type(self) -> str:
        return self[35]

    def __getitem__(self, tag: int) -> str:
        return next((value for name, value in self.fields if name == tag), "")


@dataclass
class Engine:
    """One QuickFIX engine over any number of processes: its store lives in `directory`."""

    directory: Path
    settings: dict[str, str]
    credentials: tuple[str, ...] = ()
    messages: list[Seen] = field(default_factory=list)
    logons: int = 0
    logouts: int = 0
    _events: list[dict[str, Any]] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start a process on the store as it is."""
        path = self.directory / "settings.cfg"
        path.write_text("".join(f"{line}\n" for line in self._settings_lines()), encoding="utf-8")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "ignore",
            str(Path(__file__).with_name("peer.py")),
            str(path),
            *self.credentials,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            limit=LINE_BYTES_MAX,
        )
        known = len(self._events)
        self._reader = asyncio.create_task(self._read(self._process))
        await until(lambda: len(self._events) > known or self._reader is None or self._reader.done())
        assert self._events[known:][:1] == [{"event": "ready"}], "QuickFIX did not start"

    def _settings_lines(self) -> list[str]:
        found = dictionary()
        checked = {"UseDataDictionary": "N"} if found is None else {"UseDataDictionary": "Y", "DataDictionary": str(found)}
        usual = {
            "BeginString": "FIX.4.4",
            "StartTime": "00:00:00",
            "EndTime": "00:00:00",
            "NonStopSession": "Y",
            "FileStorePath": str(self.directory),
            "FileLogPath": str(self.directory / "log"),
            "SocketNodelay": "Y",
            **checked,
        }
        return ["[DEFAULT]", *map("=".join, usual.items()), "[SESSION]", *map("=".join, self.settings.items())]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            event = json.loads(line)
            self._events.append(event)
            self.logons += event["event"] == "logon"
            self.logouts += event["event"] == "logout"
            if event["event"] in ("in", "out"):
                self.messages.append(Seen(event["event"], [(int(tag), value) for tag, value in event["fields"]]))

    async def ask(self, **command: Any) -> tuple[int, int]:
        """Carry out a command; return the next numbers in and out after it."""
        known = len(self._events)
        self.tell(**command)
        await until(lambda: any(event["event"] == "numbers" for event in self._events[known:]))
        answer = next(event for event in self._events[known:] if event["event"] == "numbers")
        return answer["next_in"], answer["next_out"]

    def tell(self, **command: Any) -> None:
        """Give a command without waiting."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def send(self, *messages: AppMessage) -> None:
        """Send now, or number and store for later while it is not logged on."""
        for message in messages:
            await self.ask(do="send", type=message.msg_type, fields=list(message.body))

    async def numbers(self) -> tuple[int, int]:
        """The next numbers in and out."""
        return await self.ask(do="numbers")

    def seen(self, direction: str, msg_type: str, tag: int = 34) -> list[str]:
        """The values of a tag in all messages of a type that QuickFIX read or wrote."""
        return [message[tag] for message in self.messages if message.direction == direction and message.msg_type == msg_type]

    def signal(self, number: signal.Signals) -> None:
        """Stop (SIGSTOP), continue (SIGCONT) or kill the process."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, *, kill: bool = False) -> None:
        """End the process: in order, or without a word."""
        if self._process is None or self._reader is None:
            return
        if kill:
            self._process.kill()
        else:
            self.tell(do="stop")
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader
        self._process = None


def as_acceptor(directory: Path, port: int, **settings: str) -> Engine:
    """QuickFIX as venue QFIX, for a member TM. It can only listen on every address, but lets in the loopback alone."""
    own = {"ConnectionType": "acceptor", "SenderCompID": "QFIX", "TargetCompID": "TM", "SocketAcceptPort": str(port)}
    return Engine(directory, {**own, "SocketReuseAddress": "Y", "AllowedRemoteAddresses": "127.0.0.1", **settings})


def as_initiator(directory: Path, port: int, credentials: Sequence[str], **settings: str) -> Engine:
    """QuickFIX as member QFIX of the venue XSIM."""
    own = {"ConnectionType": "initiator", "SenderCompID": "QFIX", "TargetCompID": "XSIM", "HeartBtInt": str(HEARTBEAT_SECONDS)}
    own |= {"SocketConnectHost": "127.0.0.1", "SocketConnectPort": str(port), "ReconnectInterval": "1"}
    return Engine(directory, {**own, **settings}, tuple(credentials))


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    """The engine's process, ended with the test."""
    await engine.start()
    try:
        yield engine
    finally:
        await engine.end(kill=True)
