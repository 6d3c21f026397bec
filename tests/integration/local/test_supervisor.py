"""The supervisor over real processes: order, readiness, restarts, ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from mesh.local.backoff import RestartPolicy
from mesh.local.layout import Layout
from mesh.local.probes import ReadyFile
from mesh.local.report import MeshReport, Phase, State, read
from mesh.local.supervisor import StartError, Supervisor
from mesh.local.unit import CONFIGURATION_EXIT_CODE, Unit

FAST = RestartPolicy(delay_seconds_min=0.01, delay_seconds_max=0.05, loop_failures=2, failures_max=4, failures_max_unproven=3)
WAIT_SECONDS_MAX = 20.0

SERVE = """
import os, pathlib, signal, sys, time
directory, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def say(what):
    with (directory / "diary").open("a") as diary:
        diary.write(f"{what} {name}\\n")
def leave(*_):
    say("stop")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
say("start")
(directory / f"{name}.ready").write_text(str(os.getpid()))
while True:
    signal.pause()
"""


def python(layout: Layout, name: str, program: str, *after: str, ready: bool = True, stop_seconds: float = 15.0) -> Unit:
    return Unit(
        name,
        name.partition("-")[0],
        (sys.executable, "-I", "-S", "-c", program, str(layout.root), name),
        layout.root,
        after,
        ReadyFile(layout.root / f"{name}.ready") if ready else None,
        {"PATH": "/usr/bin:/bin"},
        stop_seconds=stop_seconds,
    )


def serving(layout: Layout, name: str, *after: str) -> Unit:
    return python(layout, name, SERVE, *after)


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[Supervisor]:
    await supervisor.start(timeout_seconds=WAIT_SECONDS_MAX)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not condition():
            await asyncio.sleep(0.01)


def diary(layout: Layout) -> list[str]:
    return (layout.root / "diary").read_text().splitlines()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_units_start_after_what_they_need_and_stop_before_it(layout: Layout) -> None:
    migrate = python(layout, "migrate", SERVE.replace("while True:\n    signal.pause()", "say('done')"), "database", ready=False)
    units = [serving(layout, "oms-0", "migrate"), serving(layout, "database"), migrate, serving(layout, "oms-1", "migrate")]
    async with running(Supervisor(units, layout)) as supervisor:
        report = supervisor.report
        assert report.phase is Phase.READY
        assert report.instance("migrate").state is State.DONE
        assert read(layout.status_file) == report
        pids = [item.pid for item in report.instances if item.pid is not None]
        assert len(pids) == 3
    lines = diary(layout)
    assert lines[:3] == ["start database", "start migrate", "done migrate"]
    assert sorted(lines[3:5]) == ["start oms-0", "start oms-1"]
    assert sorted(lines[5:7]) == ["stop oms-0", "stop oms-1"]
    assert lines[7:] == ["stop database"]
    assert all(gone(pid) for pid in pids)
    assert supervisor.report.phase is Phase.STOPPED


async def test_a_killed_unit_comes_back_and_its_dependents_stay(layout: Layout) -> None:
    async with running(Supervisor([serving(layout, "database"), serving(layout, "oms-0", "database")], layout, policy=FAST)) as supervisor:
        database, oms = supervisor.report.instance("database").pid, supervisor.report.instance("oms-0").pid
        assert database is not None
        os.kill(database, signal.SIGKILL)
        await until(lambda: supervisor.report.instance("database").restarts == 1 and supervisor.report.phase is Phase.READY)
        again = supervisor.report.instance("database")
        assert again.pid not in (None, database)
        assert again.last_end == "killed by SIGKILL"
        assert supervisor.report.instance("oms-0").pid == oms


async def test_a_crash_loop_is_shown_and_given_up_while_the_rest_runs_on(layout: Layout) -> None:
    crashing = SERVE.replace("while True:\n    signal.pause()", "time.sleep(0.2); sys.exit(3)")
    seen: list[MeshReport] = []
    units = [serving(layout, "good"), python(layout, "bad", crashing)]
    async with running(Supervisor(units, layout, policy=FAST, on_change=seen.append)) as supervisor:
        await until(lambda: supervisor.report.instance("bad").state is State.GIVEN_UP)
        assert supervisor.report.phase is Phase.DEGRADED
        assert supervisor.report.instance("bad").last_end == "exit code 3"
        assert supervisor.report.instance("good").state is State.READY
        assert State.CRASH_LOOP in {report.instance("bad").state for report in seen}


async def test_a_start_that_fails_says_why_and_leaves_nothing_behind(layout: Layout) -> None:
    broken = python(layout, "oms-0", "import sys; sys.exit('TRADEMESH_VENUE: is required')", "database")
    supervisor = Supervisor([serving(layout, "database"), broken], layout, policy=FAST)
    with pytest.raises(StartError, match=r"(?s)oms-0 failed: exit code 1.*TRADEMESH_VENUE: is required"):
        await supervisor.start(timeout_seconds=WAIT_SECONDS_MAX)
    assert diary(layout) == ["start database", "stop database"]
    assert supervisor.report.phase is Phase.FAILED
    assert "TRADEMESH_VENUE" in supervisor.report.failure


async def test_refused_configuration_is_not_tried_again(layout: Layout) -> None:
    refused = python(layout, "oms-0", f"import sys; sys.exit({CONFIGURATION_EXIT_CODE})")
    supervisor = Supervisor([refused], layout, policy=RestartPolicy(delay_seconds_min=60.0, delay_seconds_max=60.0))
    with pytest.raises(StartError, match=f"exit code {CONFIGURATION_EXIT_CODE}"):
        await supervisor.start(timeout_seconds=WAIT_SECONDS_MAX)
    assert supervisor.report.instance("oms-0").restarts == 0


async def test_a_unit_that_never_becomes_ready_is_named(layout: Layout) -> None:
    mute = python(layout, "mute", "import time\nwhile True: time.sleep(60)")
    supervisor = Supervisor([mute, serving(layout, "oms-0", "mute")], layout)
    with pytest.raises(StartError, match=r"^mute was not ready within 0\.5 s"):
        await supervisor.start(timeout_seconds=0.5)


async def test_a_program_that_does_not_exist_is_named(layout: Layout) -> None:
    absent = Unit("oms-0", "oms", ("/nonexistent/program",), layout.root, ready=ReadyFile(layout.root / "never"))
    with pytest.raises(StartError, match="No such file"):
        await Supervisor([absent], layout, policy=FAST).start(timeout_seconds=WAIT_SECONDS_MAX)


async def test_a_unit_that_will_not_drain_is_killed_with_its_children(layout: Layout) -> None:
    stubborn = """
import os, pathlib, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", deaf])
pathlib.Path(sys.argv[1], "child").write_text(str(child.pid))
pathlib.Path(sys.argv[1], "stubborn.ready").write_text(str(os.getpid()))
while True:
    signal.pause()
"""
    supervisor = Supervisor([python(layout, "stubborn", stubborn, stop_seconds=0.2)], layout)
    async with running(supervisor):
        pid = supervisor.report.instance("stubborn").pid
        child = int((layout.root / "child").read_text())
    assert pid is not None
    assert gone(pid)
    await until(lambda: gone(child))
    assert supervisor.report.instance("stubborn").last_end == "killed after 0.2 s of draining"


async def test_a_stopped_unit_is_shown_as_not_ready_until_it_answers_again(layout: Layout) -> None:
    ready = layout.root / "oms-0.ready"
    async with running(Supervisor([serving(layout, "oms-0")], layout)) as supervisor:
        text = ready.read_text()
        ready.unlink()
        await until(lambda: supervisor.report.instance("oms-0").state is State.NOT_READY)
        assert supervisor.report.phase is Phase.DEGRADED
        ready.write_text(text)
        await until(lambda: supervisor.report.phase is Phase.READY)
        assert supervisor.report.instance("oms-0").restarts == 0


async def test_nothing_survives_a_killed_supervisor(layout: Layout) -> None:
    program = f"""
import asyncio, pathlib, sys
from mesh.local.layout import Layout
from mesh.local.supervisor import Supervisor
from tests.integration.local.test_supervisor import serving
async def main():
    layout = Layout(pathlib.Path({str(layout.root)!r}))
    await Supervisor([serving(layout, "database"), serving(layout, "oms-0", "database")], layout).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=root)
    await until(lambda: (report := read(layout.status_file)) is not None and report.phase is Phase.READY)
    report = read(layout.status_file)
    assert report is not None
    process.kill()
    await process.wait()
    pids = [item.pid for item in report.instances if item.pid is not None]
    assert len(pids) == 2
    await until(lambda: all(gone(pid) for pid in pids))
