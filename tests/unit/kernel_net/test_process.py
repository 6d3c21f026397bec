"""A service's process: its exit codes and words, and how its work begins and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from kernel.config import ConfigError
from kernel.errors import Reason, UnavailableError
from kernel.postgres import MigrationError
from kernel.process import CONFIGURATION_EXIT_CODE, GARBAGE_THRESHOLD, run_process, until_stopped


class Traced:
    """A server, work and drains that say what happens to them, in order."""

    def __init__(self, *, start_fails: bool = False) -> None:
        self.told: list[str] = []
        self.serving = asyncio.Event()
        self._start_fails = start_fails

    async def start(self) -> None:
        self.told.append("server starts")
        # Lets background work begin, as binding a socket does.
        await asyncio.sleep(0)
        if self._start_fails:
            raise OSError("the socket is taken")
        self.serving.set()

    async def stop(self) -> None:
        self.told.append("server stops")

    async def work(self) -> None:
        self.told.append("work begins")
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append("work is cancelled")

    def drain(self, name: str) -> Callable[[], Awaitable[None]]:
        async def drained() -> None:
            await asyncio.sleep(0)
            self.told.append(f"{name} drained")

        return drained

    def started(self) -> None:
        self.told.append("started")


async def test_the_end_is_server_then_drains_in_turn_then_background_work() -> None:
    traced, stop = Traced(), asyncio.Event()
    drains = [traced.drain("one"), traced.drain("two")]
    running = asyncio.create_task(until_stopped(traced, [traced.work()], stop, started=traced.started, drains=drains))
    await asyncio.wait_for(traced.serving.wait(), 5)
    stop.set()
    await asyncio.wait_for(running, 5)
    assert traced.told == [
        "server starts", "work begins", "started", "server stops", "one drained", "two drained", "work is cancelled",
    ]  # fmt: skip


async def test_background_work_that_fails_ends_the_service_with_its_error() -> None:
    async def failing() -> None:
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "gone")

    traced = Traced()
    with pytest.raises(UnavailableError, match="gone"):
        await until_stopped(traced, [traced.work(), failing()], asyncio.Event(), started=traced.started, drains=[traced.drain("one")])
    assert traced.told[-3:] == ["server stops", "one drained", "work is cancelled"]


async def test_background_work_that_ends_is_an_error() -> None:
    async def ending() -> None:
        await asyncio.sleep(0)

    traced = Traced()
    with pytest.raises(RuntimeError, match="background work ended by itself"):
        await until_stopped(traced, [ending()], asyncio.Event(), started=traced.started)
    assert traced.told[-1] == "server stops"


async def test_a_server_that_cannot_start_leaves_no_work_behind() -> None:
    traced = Traced(start_fails=True)
    with pytest.raises(OSError, match="taken"):
        await until_stopped(traced, [traced.work()], asyncio.Event(), started=traced.started)
    assert traced.told == ["server starts", "work begins", "server stops", "work is cancelled"]


async def _unwanted(config: str, stop: asyncio.Event) -> None:
    raise AssertionError("must not be served")


@pytest.mark.parametrize("error", [ConfigError(["TRADEMESH_X: is required"]), MigrationError("0002_x.sql is not applied")])
def test_a_start_that_a_person_has_to_make_possible_is_refused_with_78(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> str:
        raise error

    async def refusing(config: str, stop: asyncio.Event) -> None:
        raise error

    assert run_process("svc_x", refused, _unwanted) == CONFIGURATION_EXIT_CODE == 78
    assert run_process("svc_x", lambda: "config", refusing) == CONFIGURATION_EXIT_CODE
    assert capsys.readouterr().err == f"svc_x: {error}\n" * 2


def test_a_dependency_that_is_away_ends_with_1_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    async def without_database(config: str, stop: asyncio.Event) -> None:
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "no answer")

    assert run_process("svc_x", lambda: "config", without_database) == 1
    assert capsys.readouterr().err == "svc_x: DATABASE_UNAVAILABLE: no answer\n"


def test_only_what_is_expected_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    async def unbound(config: str, stop: asyncio.Event) -> None:
        raise OSError(98, "Address already in use")

    assert run_process("svc_x", lambda: "config", unbound, expected=(OSError,)) == 1
    assert capsys.readouterr().err == "svc_x: [Errno 98] Address already in use\n"
    with pytest.raises(OSError, match="Address"):
        run_process("svc_x", lambda: "config", unbound)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_and_the_code_is_0(number: signal.Signals) -> None:
    served: list[str] = []

    async def serving(config: str, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)
        served.append(config)

    assert run_process("svc_x", lambda: "config", serving) == 0
    assert served == ["config"]


def test_a_quiet_collector_leaves_the_start_alone() -> None:
    """In a process of its own: the collector's settings are everybody's."""
    code = (
        "import gc, kernel.process as p; before = gc.get_threshold(); p.freeze_start();"
        " assert gc.get_threshold() == before and gc.get_freeze_count() > 1_000; p.quiet_collector(); print(gc.get_threshold())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"({GARBAGE_THRESHOLD}, 20, 100)"
