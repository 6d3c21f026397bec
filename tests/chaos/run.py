"""One fault tried on a running mesh: a steady state, load, the fault, its healing, recovery, rest, and then the auditor."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.calls import Calls
from tests.chaos.fault import Fault
from tests.chaos.pulse import NotRecoveredError, Pulse, interruption_of
from tests.chaos.scene import Scene
from tests.chaos.workload import Workload
from tests.e2e.crash import strike
from tests.e2e.crash.client import Clients, Ledger
from tests.e2e.crash.findings import AboveLimit, Doubled, Lost
from tests.e2e.crash.holdings_audit import Deposits
from tests.e2e.crash.load import Load
from tests.e2e.crash.operations_desk import OperationsDesk
from tests.e2e.crash.verdict import examined
from tests.e2e.crash.world import TRADER, World

STEADY_SECONDS_MAX = 60.0
RECOVERY_SECONDS_MAX = 60.0
REST_SECONDS_MAX = 90.0


class _SpoiledError(Exception):
    """The mesh is beyond recovery, as it was to be."""


class Late(str):
    """Something took longer than its objective, or than a caller waits: a violation, and one that a busy machine makes by itself."""

    __slots__ = ()


@dataclass(slots=True)
class Known:
    """What is known to the clients of one mesh, over all faults that were tried on it."""

    ledger: Ledger = field(default_factory=Ledger)
    deposits: Deposits = field(default_factory=Deposits)

    def learn(self, ledger: Ledger) -> None:
        """Add what some clients know."""
        for name in ("answers", "refused", "lost", "commands"):
            getattr(self.ledger, name).update(getattr(ledger, name))
        self.ledger.retried += ledger.retried


@dataclass(slots=True)
class Outcome:
    """What came of a fault. `recoveries` are seconds by target; `findings` the auditor's and everything else that is not as it must be.

    Attributes:
        not_run: why it was not tried; empty where it was.
        runs: how many targets it struck.
        commands: how many were entered.
        acknowledged: how many of them were answered.
        failures: calls of the pulse that nobody answered, by kind.
        measured: what the fault has measured, by target and name.
    """

    fault: Fault
    not_run: str = ""
    runs: int = 0
    commands: int = 0
    acknowledged: int = 0
    recoveries: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """How many findings say that something acknowledged is gone."""
        return sum(isinstance(finding, Lost) for finding in self.findings)

    @property
    def duplicated(self) -> int:
        """How many findings say that something is there twice."""
        return sum(isinstance(finding, Doubled) for finding in self.findings)

    @property
    def limit_breaches(self) -> int:
        """How many approvals went above their limit."""
        return sum(isinstance(finding, AboveLimit) for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Run:
    """When a target was struck, on the monotonic clock: before the injection began, when the fault was there, when its healing began."""

    target: str
    struck: float
    began: float
    healing: float


async def tried(fault: Fault, targets: Sequence[str], world: World, known: Known, seed: int) -> Outcome:
    """Try a fault on each of these targets in turn, then let the auditor at the mesh. A fault that is not outlived is a finding."""

    def dice(purpose: str) -> random.Random:
        # Each purpose has its own: how far one has drawn hangs on the machine's timing, and must not decide what another draws.
        return random.Random(f"{seed}/{fault.name}/{purpose}")

    outcome, name = Outcome(fault), f"{fault.name}-{dice('name').getrandbits(24):06x}"
    calls = Calls(world.mesh, dice("pulse"), f"p-{name}", known.deposits)
    clients, pulse = Clients(world.mesh, TRADER, dice("clients")), Pulse(calls)
    runs: list[_Run] = []
    try:
        async with clients, OperationsDesk(world.mesh, dice("desk")) as desk:
            desk.deposits = known.deposits
            load = Load(dice("load"), name)
            try:
                async with pulse:
                    for target in targets:
                        world.note(f"{fault.name}: {target}")
                        scene = Scene(world, pulse, dice(f"strike/{target}"), clients.ledger)
                        workload = Workload(world.mesh, clients, desk, load, dice(f"work/{target}"), walk_away=fault.walk_away)
                        if not await _struck(fault, target, scene, workload, outcome, runs):
                            break
            finally:
                if not fault.spoils:
                    _judge(fault, runs, pulse, world, outcome)
                    outcome.findings += [f"a call of kind {kind} was never answered" for kind in pulse.unanswered]
                outcome.findings += [f"a stream: {text}" for text in calls.followed.faults]
                for ledger in (clients.ledger, calls.ledger):
                    known.learn(ledger)
                    outcome.commands += len(ledger.commands)
                    outcome.acknowledged += len(ledger.answers)
            _, findings = await examined(world, clients, known.ledger, known.deposits, timeout_seconds=REST_SECONDS_MAX)
            outcome.findings += findings
    except* _SpoiledError:
        pass
    except* Exception as errors:  # noqa: BLE001 (what ends one fault is its finding, and no reason to try no other)
        outcome.findings += [f"{type(error).__name__}: {error}" for error in _leaves(errors)]
    return outcome


async def _struck(fault: Fault, target: str, scene: Scene, workload: Workload, outcome: Outcome, runs: list[_Run]) -> bool:
    """Strike one target, and return whether the mesh is well enough for the next."""
    # Calls that succeeded since the last target was healed count: they show a steady state as well as later ones do.
    await scene.pulse.recovered(runs[-1].healing if runs else time.monotonic(), timeout_seconds=STEADY_SECONDS_MAX)
    workload.resting = await strike.resting(scene.world)
    async with workload:
        await workload.moment()
        struck = time.monotonic()
        async with fault.inject(scene, target):
            began = time.monotonic()
            scene.note(f"{target}: the fault is there")
            outcome.runs += 1
            if fault.outlasted:
                outcome.findings += await _outlasted(fault, target, scene, began)
            outcome.findings += [f"{target}: {finding}" for finding in await fault.during(scene, target)]
            if fault.spoils:
                raise _SpoiledError
            await asyncio.sleep(max(0.0, began + fault.hold_seconds - time.monotonic()))
            healing = time.monotonic()
        runs.append(_Run(target, struck, began, healing))
        try:
            await scene.pulse.recovered(healing, timeout_seconds=RECOVERY_SECONDS_MAX)
        except NotRecoveredError as error:
            outcome.findings.append(Late(f"{target}: {error}"))
            return False
    await scene.returned()
    outcome.findings += [f"{target}: {finding}" for finding in scene.findings]
    outcome.measured |= {f"{target}.{name}": value for name, value in scene.measured.items()}
    return True


async def _outlasted(fault: Fault, target: str, scene: Scene, began: float) -> list[str]:
    """Wait until calls succeed again while the fault still holds. One that is not outlasted is healed and audited all the same."""
    patience = max(4 * fault.objective_seconds, fault.hold_seconds)
    try:
        await scene.pulse.recovered(began, timeout_seconds=patience)
    except NotRecoveredError as error:
        return [Late(f"{target}: not outlasted: {error}")]
    return []


def _judge(fault: Fault, runs: Sequence[_Run], pulse: Pulse, world: World, outcome: Outcome) -> None:
    """Hold each run to its objective, by all that happened until the next target was struck."""
    for number, run in enumerate(runs):
        until = runs[number + 1].struck if number + 1 < len(runs) else math.inf
        recovery = pulse.outage(run.healing, until, but=fault.resumed)
        if fault.outlasted:
            # One that holds for a while is outlasted in that time; one that strikes once heals itself.
            recovery = max(pulse.outage(run.began, run.healing), recovery) if fault.hold_seconds else pulse.outage(run.began, until)
        outcome.recoveries[run.target] = recovery
        world.note(f"{run.target}: well again after {recovery:.2f} s")
        failed = pulse.failures(run.struck, until)
        for kind, failures in failed.items():
            outcome.failures[kind] += failures.total()
            world.note(f"{run.target}: {kind}: {dict(failures.most_common(3))}")
        if recovery > fault.objective_seconds:
            outcome.findings.append(Late(f"{run.target}: recovered in {recovery:.1f} s, the objective is {fault.objective_seconds:g} s"))
        for kind, allowed in fault.resumed.items():
            interrupted = interruption_of(pulse.beats[kind], run.struck, until)
            world.note(f"{run.target}: {kind} was interrupted for {interrupted:.2f} s at most")
            if interrupted > allowed:
                text = f"{run.target}: {kind} was interrupted for {interrupted:.1f} s, {allowed:g} s are allowed"
                outcome.findings.append(Late(text))
        for kind in sorted(fault.unnoticed & failed.keys()):
            only_late = all(text.startswith("DEADLINE_EXCEEDED") for text in failed[kind])
            text = f"{run.target}: {failed[kind].total()} calls of kind {kind} failed: {dict(failed[kind].most_common(3))}"
            outcome.findings.append(Late(text) if only_late else text)


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found = []
    for error in errors.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
