"""`up`, `down`, `status` and `logs` of the mesh on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil
from rich.console import Console

from mesh.local import log_reader, report, screens
from mesh.local.layout import DIRECTORY_KEY, Layout, LocalMeshError, SupervisorLock, running_supervisor
from mesh.local.options import Options, surroundings
from mesh.local.plan import build_plan
from mesh.local.report import MeshReport, Phase
from mesh.local.rotation import tail
from mesh.local.started import started_screen
from mesh.local.supervisor import START_SECONDS_MAX, StartError, Supervisor
from mesh.local.topology import ENVOY
from mesh.local.watches import require_watches

SUPERVISOR = "supervisor"
STOP_SECONDS_MAX = 90.0

_POLL_SECONDS = 0.05


def up(layout: Layout, options: Options, console: Console) -> int:
    """Start a supervisor in the background, show how it goes, and return when the mesh is ready.

    Raises:
        LocalMeshError: it did not start; what had started is stopped again.
    """
    pid = running_supervisor(layout)
    if pid is not None:
        console.print(f"The mesh is already running (supervisor pid {pid}); nothing was done. `make down` stops it.")
        return 0
    layout.create()
    console.print(f"Starting Trademesh in {layout.root} ...", markup=False)
    process = detach(layout, options)
    progress = screens.ProgressView(console)
    try:
        final = await_ready(layout, process, progress.update)
    except KeyboardInterrupt:
        console.print("Interrupted; stopping what was started ...")
        process.terminate()
        process.wait()
        return 130
    started_screen(console, final, layout)
    return 0


def detach(layout: Layout, options: Options, launcher: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a supervisor in a session of its own, behind a launcher if one is given; its output goes to its log."""
    layout.log(SUPERVISOR).unlink(missing_ok=True)
    with layout.log(SUPERVISOR).open("ab") as log:
        return subprocess.Popen(
            [*launcher, sys.executable, "-m", "mesh.local", "run", *options.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, DIRECTORY_KEY: str(layout.root)},
            start_new_session=True,
        )


def await_ready(layout: Layout, process: subprocess.Popen[bytes], show: Callable[[MeshReport], None]) -> MeshReport:
    """Return the report of a supervisor's mesh once it is ready.

    Raises:
        LocalMeshError: it did not become ready; the text says why.
    """
    deadline = time.monotonic() + START_SECONDS_MAX + STOP_SECONDS_MAX
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        current = report.read(layout.status_file)
        if current is not None and current.supervisor_pid == process.pid:
            show(current)
            if current.phase is Phase.READY:
                return current
        if ended:
            failure = current.failure if current is not None and current.supervisor_pid == process.pid else ""
            raise LocalMeshError(failure or "\n".join(tail(layout.log(SUPERVISOR))) or "The supervisor ended without a word.")
        time.sleep(_POLL_SECONDS)
    raise LocalMeshError(f"The mesh neither started nor failed in time; see {layout.log(SUPERVISOR)}, and stop it with `make down`.")


def run(layout: Layout, options: Options, console: Console) -> int:
    """Supervise in this process until SIGTERM or SIGINT; a second one kills instead of draining. Return the exit code.

    Raises:
        LocalMeshError: a supervisor runs already, or the surroundings do not allow a start.
    """
    layout.create()
    lock = SupervisorLock(layout)
    lock.acquire()
    try:
        plan = build_plan(layout, options, surroundings())
        require_watches(sum(unit.service == ENVOY for unit in plan.units))
        progress = screens.ProgressView(console)
        supervisor = Supervisor(plan.units, layout, facts=plan.facts, on_change=progress.update)
        return asyncio.run(_supervise(supervisor, console, layout))
    finally:
        shutil.rmtree(layout.runtime, ignore_errors=True)
        lock.release()


async def _supervise(supervisor: Supervisor, console: Console, layout: Layout) -> int:
    stop, force = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: force.set() if stop.is_set() else stop.set())
    starting = asyncio.create_task(supervisor.start())
    asked = asyncio.create_task(stop.wait())
    killing = asyncio.create_task(_kill_when(force, supervisor))
    try:
        await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
        await starting
        started_screen(console, supervisor.report, layout)
        await asked
        await supervisor.stop()
    except StartError as error:
        console.print(f"Trademesh did not start.\n{error}", markup=False, soft_wrap=True)
        return 1
    finally:
        asked.cancel()
        killing.cancel()
        await asyncio.gather(asked, killing, return_exceptions=True)
    return 0


async def _kill_when(force: asyncio.Event, supervisor: Supervisor) -> None:
    await force.wait()
    await supervisor.kill()


def down(layout: Layout, console: Console, *, timeout_seconds: float = STOP_SECONDS_MAX) -> int:
    """Stop the mesh cleanly, and by force when that takes too long. A mesh that does not run is a success.

    Raises:
        LocalMeshError: it does not stop.
    """
    pid = running_supervisor(layout)
    if pid is None:
        console.print(f"No mesh runs in {layout.root}.", markup=False)
        return 0
    console.print(f"Stopping the mesh (supervisor pid {pid}) ...")
    for seconds in (timeout_seconds, timeout_seconds / 3):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # The lock goes a moment before the process does.
            if running_supervisor(layout) is None and _ended(pid):
                console.print("Stopped. The data stays where it is; `make up` goes on with it.")
                return 0
            time.sleep(_POLL_SECONDS)
        console.print("It takes long; killing what is left ...")
    raise LocalMeshError(f"Supervisor {pid} does not stop. See {layout.log(SUPERVISOR)}; `kill -9 {pid}` ends it and all its processes.")


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def status(layout: Layout, console: Console, *, as_json: bool) -> int:
    """Show every instance. Return 0 when all of the mesh is ready, else 3."""
    current = report.read(layout.status_file)
    running = running_supervisor(layout) is not None
    if as_json:
        sys.stdout.write(json.dumps(screens.status_document(current, running=running)) + "\n")
    elif current is None or not running:
        console.print(f"No mesh runs in {layout.root}. `make up` starts one.", markup=False)
    else:
        console.print(f"Trademesh in {layout.root} is {current.phase}.", markup=False)
        console.print(screens.status_table(screens.view(current)))
    return 0 if running and current is not None and current.phase is Phase.READY else 3


def logs(layout: Layout, names: Sequence[str], *, lines_max: int, follow: bool) -> int:
    """Show the logs of the named services or instances, of all for no name, and follow them until interrupted.

    Raises:
        LocalMeshError: a name fits nothing.
    """
    with suppress(KeyboardInterrupt, BrokenPipeError):
        log_reader.show(log_reader.matching_logs(layout, names), lines_max=lines_max, follow=follow)
    return 0
