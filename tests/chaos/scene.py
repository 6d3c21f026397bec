"""What a fault works on: the mesh, its processes by name, and the calls that run all the while."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterable

import psutil

from mesh.local.parts import POSTGRES, REDIS
from tests.chaos.pulse import Pulse
from tests.e2e.crash import strike
from tests.e2e.crash.client import Ledger
from tests.e2e.crash.world import World

EMBEDDED = (POSTGRES, REDIS)


class Scene:
    """One fault's view of the mesh.

    Args:
        world: the mesh, its databases and its notes.
        pulse: calls of every kind, through the edge, for as long as the fault is tried.
        source: all chance comes from here; the seed and the fault's name decide it.
        ledger: what the load's clients have been told under this fault.
    """

    def __init__(self, world: World, pulse: Pulse, source: random.Random, ledger: Ledger) -> None:
        self.world, self.pulse, self.random, self.ledger = world, pulse, source, ledger
        self._died: dict[str, int] = {}
        self.findings: list[str] = []
        """What is found wrong when a fault ends; `Fault.during` returns what is wrong while it holds."""
        self.measured: dict[str, float] = {}
        """Numbers for the table and the last line, by name; ratios of one run, never a promise for another machine."""

    def note(self, text: str) -> None:
        """Keep a line for whoever reads a failure."""
        self.world.note(text)

    def kill(self, *names: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End instances by a signal; of an embedded part, its server. The run waits for them to be back."""
        self._died |= self.world.kill(*names, number=number)

    def await_death(self, *names: str) -> None:
        """Have the run wait until these, which are dying by other means than `kill`, are back under other process ids."""
        for name in names:
            pid = self.world.mesh.instance(name).pid
            assert pid is not None
            self._died[name] = pid

    def replicas(self, service: str) -> tuple[str, ...]:
        """Return the names of a service's instances."""
        return tuple(sorted(item.name for item in self.world.mesh.instances(service)))

    def a_replica(self, service: str) -> str:
        """Return a replica by chance; of the order service one that does not hold the venue's session, whose loss is a fault of its own."""
        owner = strike.venue_owner(self.world) if service == "svc_oms" else ""
        return self.random.choice([name for name in self.replicas(service) if name != owner])

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the processes that do an instance's work: its own, or an embedded part's server with all that it has started."""
        process = psutil.Process(self.world.mesh.instance(name).pid)
        return process.children(recursive=True) if name in EMBEDDED else [process]

    def holder(self, part: str) -> psutil.Process:
        """Return the process that holds an embedded part and would tell of its end."""
        return psutil.Process(self.world.mesh.instance(part).pid)

    def stop(self, *names: str) -> list[psutil.Process]:
        """Stop instances where they stand (SIGSTOP) and return their processes, for `resume`."""
        found = [process for name in names for process in self.processes(name)]
        for process in found:
            process.suspend()
        self.note(f"SIGSTOP to {', '.join(names)}")
        return found

    def resume(self, processes: Iterable[psutil.Process]) -> None:
        """Let stopped processes go on (SIGCONT); one that has ended is left alone."""
        for process in processes:
            if process.is_running():
                process.resume()
        self.note("SIGCONT")

    async def returned(self) -> None:
        """Return once all that was killed runs again and the mesh is whole."""
        died, self._died = self._died, {}
        await self.world.restarted(died)
        await asyncio.to_thread(self.world.mesh.await_ready)
