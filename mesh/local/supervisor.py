"""Starts units in the order of their dependencies, keeps them running, and ends them in reverse order.

Units of one depth start in parallel. A unit that ends is started again after a growing delay, until it has failed too often in a row.
Whoever depends on it is left running: services reconnect. Only one-shots, and the start of the mesh as a whole, are waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernel.clock import SystemClock
from kernel.ports import Clock
from mesh.local.backoff import RestartHistory, RestartPolicy
from mesh.local.layout import Layout
from mesh.local.process import Process, describe_end
from mesh.local.report import InstanceReport, MeshReport, Phase, State
from mesh.local.rotation import Rotation, tail
from mesh.local.unit import Unit, start_waves

START_SECONDS_MAX = 120.0
"""Bound on the start of the whole mesh."""
PROBE_STARTING_SECONDS = 0.05
PROBE_READY_SECONDS = 0.5
PROBE_FAILURES = 2
"""So many failed probes in a row, the second at once after the first, make an instance unready: one may only have been late."""
ROTATE_SECONDS = 2.0


class StartError(Exception):
    """The mesh did not become ready; everything that was started has been stopped again. The text says which part failed and why."""


@dataclass
class _Record:
    """What is known of one unit while the supervisor runs."""

    unit: Unit
    history: RestartHistory
    state: State = State.WAITING
    process: Process | None = None
    restarts: int = 0
    started_at: float | None = None
    retry_at: float | None = None
    last_end: str = ""
    was_ready: bool = False
    log_offset: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self, log: str) -> InstanceReport:
        pid = self.process.pid if self.process is not None else None
        return InstanceReport(
            self.unit.name,
            self.unit.service,
            self.state,
            self.unit.address,
            log,
            pid,
            self.restarts,
            self.started_at,
            self.retry_at,
            self.last_end,
        )


class Supervisor:
    """Runs a plan once: `start`, then `stop`. Belongs to the main thread, because children die with the thread that started them.

    Args:
        units: what to run.
        layout: where logs and the status document go; its directories exist.
        policy: when to start again and when to give up.
        facts: short texts for the status document, such as addresses.
        on_change: called after every change of any state.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        layout: Layout,
        *,
        policy: RestartPolicy | None = None,
        rotation: Rotation | None = None,
        facts: dict[str, str] | None = None,
        on_change: Callable[[MeshReport], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._waves = start_waves(units)
        self._layout = layout
        self._rotation = rotation or Rotation()
        self._facts = facts or {}
        self._on_change = on_change
        self._clock = clock or SystemClock()
        self._began = self._clock.monotonic()
        self._began_at = self._clock.now().timestamp()
        self._phase = Phase.STARTING
        self._ready_seconds: float | None = None
        self._failure = ""
        self._records = {unit.name: _Record(unit, RestartHistory(policy or RestartPolicy())) for wave in self._waves for unit in wave}
        self._pid = os.getpid()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._given_up = asyncio.Event()
        self._rotating: asyncio.Task[None] | None = None

    @property
    def report(self) -> MeshReport:
        """Where everything stands now."""
        instances = tuple(record.report(str(self._layout.log(name))) for name, record in self._records.items())
        return MeshReport(self._phase, self._pid, self._began_at, instances, self._ready_seconds, self._failure, dict(self._facts))

    async def start(self, *, timeout_seconds: float = START_SECONDS_MAX) -> None:
        """Start everything and return when all units have been ready once.

        Raises:
            StartError: a unit was given up or the time is over; everything is stopped again.
        """
        self._rotating = asyncio.create_task(self._rotate())
        for name, record in self._records.items():
            self._tasks[name] = asyncio.create_task(self._keep(record), name=f"keep {name}")
        self._publish()
        ready = asyncio.create_task(self._all_reached())
        failed = asyncio.create_task(self._given_up.wait())
        try:
            await asyncio.wait((ready, failed), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            # `ready` wins: a unit that was given up after it had been ready once does not undo the start.
            succeeded = ready.done()
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            ready.cancel()
            failed.cancel()
            await asyncio.gather(ready, failed, return_exceptions=True)
        if not succeeded:
            self._failure = self._explain(timeout_seconds)
            await self.stop(last=Phase.FAILED)
            raise StartError(self._failure)
        self._ready_seconds = round(self._clock.monotonic() - self._began, 3)
        self._phase = Phase.READY
        self._publish()

    async def _all_reached(self) -> bool:
        for record in self._records.values():
            await record.reached.wait()
        return True

    async def stop(self, *, last: Phase = Phase.STOPPED) -> None:
        """End everything, dependents before what they depend on, each unit with its own time to drain."""
        self._phase = Phase.STOPPING
        self._publish()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for wave in reversed(self._waves):
            await asyncio.gather(*(self._stop_one(self._records[unit.name]) for unit in wave))
        if self._rotating is not None:
            self._rotating.cancel()
            await asyncio.gather(self._rotating, return_exceptions=True)
        self._phase = last
        self._publish()

    async def kill(self) -> None:
        """End everything at once, without draining."""
        await asyncio.gather(*(record.process.kill() for record in self._records.values() if record.process is not None))

    async def _stop_one(self, record: _Record) -> None:
        if record.process is not None:
            self._change(record, State.STOPPING)
            clean = await record.process.stop()
            record.last_end = "stopped" if clean else f"killed after {record.unit.stop_seconds:g} s of draining"
        record.process = record.started_at = record.retry_at = None
        if record.state is not State.DONE:
            self._change(record, State.STOPPED)

    async def _keep(self, record: _Record) -> None:
        """Run one unit for as long as the mesh runs."""
        for name in record.unit.after:
            await self._records[name].reached.wait()
        while True:
            began = self._clock.monotonic()
            code = await self._run_once(record)
            if record.unit.one_shot and code == 0:
                self._change(record, State.DONE)
                record.reached.set()
                return
            uptime_seconds = self._clock.monotonic() - began
            delay_seconds = record.history.record_exit(was_ready=record.was_ready, uptime_seconds=uptime_seconds)
            if delay_seconds is None or code in record.unit.final_exit_codes:
                self._change(record, State.GIVEN_UP)
                self._given_up.set()
                return
            record.retry_at = self._clock.now().timestamp() + delay_seconds
            self._change(record, State.CRASH_LOOP if record.history.looping else State.BACKOFF)
            await asyncio.sleep(delay_seconds)
            record.restarts += 1

    async def _run_once(self, record: _Record) -> int:
        """Start the unit's process and return its exit code once it has ended."""
        record.started_at, record.retry_at, record.was_ready = self._clock.now().timestamp(), None, False
        log = self._layout.log(record.unit.name)
        # What earlier runs wrote explains nothing about this one.
        record.log_offset = log.stat().st_size if log.exists() else 0
        try:
            record.process = await Process.start(record.unit, log)
        except OSError as error:
            record.last_end = f"cannot start: {error.strerror}"
            return -1
        self._change(record, State.STARTING)
        watching = asyncio.gather(self._watch(record, record.process.pid), record.process.yield_to_others())
        try:
            code = await record.process.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        # Not in `finally`: a cancelled keeper leaves its process to `stop`.
        record.process = None
        record.last_end = describe_end(code)
        return code

    async def _watch(self, record: _Record, pid: int) -> None:
        """Follow the readiness of one process."""
        probe, failures = record.unit.ready, 0
        while probe is not None:
            ready = await probe(pid)
            if ready is not None:
                failures = 0 if ready else failures + 1
            if ready and record.state is not State.READY:
                record.was_ready = True
                record.reached.set()
                self._change(record, State.READY)
            elif failures == PROBE_FAILURES and record.state is State.READY:
                self._change(record, State.NOT_READY)
            await asyncio.sleep(PROBE_STARTING_SECONDS if ready is False else PROBE_READY_SECONDS)

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_SECONDS)
            for name in self._records:
                await asyncio.to_thread(self._rotation.apply, self._layout.log(name))

    def _change(self, record: _Record, state: State) -> None:
        record.state = state
        if self._phase in (Phase.READY, Phase.DEGRADED):
            whole = all(item.state in (State.READY, State.DONE) for item in self._records.values())
            self._phase = Phase.READY if whole else Phase.DEGRADED
        self._publish()

    def _publish(self) -> None:
        report = self.report
        with contextlib.suppress(OSError):
            # A full disk must not stop the supervision; readers see the last document that fitted.
            report.write(self._layout.status_file)
        if self._on_change is not None:
            self._on_change(report)

    def _explain(self, timeout_seconds: float) -> str:
        """Say which unit kept the mesh from starting, why, and what its log says."""
        given_up = [record for record in self._records.values() if record.state is State.GIVEN_UP]
        late = [record for record in self._records.values() if not record.reached.is_set() and record.state is not State.WAITING]
        texts = []
        for record in given_up or late:
            log = self._layout.log(record.unit.name)
            what = (
                f"{record.unit.name} failed: {record.last_end}"
                if given_up
                else f"{record.unit.name} was not ready within {timeout_seconds:g} s"
            )
            quoted = "".join(f"\n    {line}" for line in tail(log, offset=record.log_offset)) or "\n    (its log is empty)"
            texts.append(f"{what}. The end of its log, {log}:{quoted}")
        return "\n".join(texts) or f"the mesh was not ready within {timeout_seconds:g} s"
