"""One run of one unit: start it so that it cannot outlive us, wait for it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from mesh.local import launch
from mesh.local.priority import ASK_AGAIN_SECONDS, group_yields
from mesh.local.unit import Unit

KILL_SECONDS_MAX = 10.0
"""Bound on the kernel's own work after SIGKILL; a process that still is there sits in a system call that never returns."""


class Process:
    """A started process, leader of its own session and process group."""

    def __init__(self, unit: Unit, process: asyncio.subprocess.Process) -> None:
        self._unit = unit
        self._process = process

    @classmethod
    async def start(cls, unit: Unit, log: Path) -> Process:
        """Start the unit's command with its output appended to `log`. Call it in the main thread: the child dies with the calling thread.

        Raises:
            OSError: the operating system refused.
        """
        launcher = (sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(unit.death_signal)), str(unit.niceness), "--")
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                *unit.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=unit.directory,
                env=dict(unit.environment),
                start_new_session=True,
                umask=0o077,
            )
        return cls(unit, process)

    @property
    def pid(self) -> int:
        """The process's id; also that of its group."""
        return self._process.pid

    async def yield_to_others(self) -> None:
        """Let its group yield as the unit says, once the kernel takes that."""
        while True:
            if not self._unit.niceness or group_yields(self.pid, self._unit.niceness):
                return
            await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def wait(self) -> int:
        """Return the exit code, negative for a signal, once the process has ended and what was left of its group is killed."""
        code = await self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return code

    async def stop(self) -> bool:
        """Ask for a clean end, then insist. Return whether it ended cleanly by itself."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self._unit.stop_signal)
            # A stopped process takes no other signal.
            self._process.send_signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(self._unit.stop_seconds):
                await self.wait()
                return True
        except TimeoutError:
            await self.kill()
            return False

    async def kill(self) -> None:
        """Kill the process and its group, and wait for its end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_SECONDS_MAX):
                await self.wait()


def describe_end(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
