"""Faults one after the other, each on the mesh that it needs; a mesh with a finding, or with a long history, is not used again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from mesh.local.harness import LocalMesh
from tests.chaos.fault import Fault
from tests.chaos.run import Known, Outcome, tried
from tests.chaos.stage import Stage
from tests.e2e.crash.world import World, world

Say = Callable[[str], None]

COMMANDS_MAX = 5_000
"""A mesh that has had more is ended before the next fault. An audit reads all that a mesh has ever done, at 0.7 s a thousand commands, and
a new mesh is there in 9 s: with a thousand commands a fault, a new one for every fifth costs least."""


class Campaign:
    """A context manager, which ends the mesh that still runs.

    Args:
        seed: decides all chance.
        short: only the short set's faults and targets.
        say: shows progress.
    """

    def __init__(self, seed: int, *, short: bool, say: Say) -> None:
        self._seed, self._short, self._say = seed, short, say
        self._mesh = ExitStack()
        self._stage: Stage | None = None
        self._known = Known()

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._mesh.close()

    def chosen(self, faults: Sequence[Fault]) -> Iterator[tuple[Fault, tuple[str, ...]]]:
        """Return the faults of this campaign with their targets."""
        for fault in faults:
            targets = fault.short if self._short else fault.targets
            if targets:
                yield fault, targets

    async def run(self, faults: Sequence[Fault]) -> list[Outcome]:
        """Try all of them and return what came of it."""
        return [await self._one(fault, targets) for fault, targets in self.chosen(faults)]

    async def _one(self, fault: Fault, targets: tuple[str, ...]) -> Outcome:
        reason = fault.permitted()
        if reason:
            self._say(f"{fault.name}: not run: {reason}")
            return Outcome(fault, not_run=reason)
        try:
            world, known = self._world(fault.stage)
        except Exception as error:  # noqa: BLE001 (a mesh that does not start is this fault's finding, and no reason to try no other)
            return self._ended(Outcome(fault, findings=[f"no mesh: {type(error).__name__}: {error}"]))
        self._say(f"{fault.name}: {fault.what} ({', '.join(targets)}); load average {os.getloadavg()[0]:.1f}")
        outcome = await tried(fault, targets, world, known, self._seed)
        for finding in outcome.findings[:20]:
            self._say(f"  ! {finding}")
        if outcome.findings:
            self._say("".join(f"  . {note}\n" for note in world.notes[-60:]).rstrip())
        if outcome.findings or fault.stage.for_each:
            return self._ended(outcome)
        return outcome

    def _ended(self, outcome: Outcome) -> Outcome:
        """End the mesh after a fault; what cannot be ended is a finding."""
        try:
            self._end()
        except Exception as error:  # noqa: BLE001 (the next fault has a mesh of its own)
            outcome.findings.append(f"the mesh does not end: {type(error).__name__}: {error}")
        return outcome

    def _world(self, stage: Stage) -> tuple[World, Known]:
        if self._stage is not stage or len(self._known.ledger.commands) > COMMANDS_MAX:
            self._end()
            self._say(f"starting a mesh ({stage.name})")
            directory = self._mesh.enter_context(stage.ground())
            self._world_now = self._mesh.enter_context(world(LocalMesh(stage.options, directory=directory), seed=self._seed))
            self._known, self._stage = Known(), stage
        return self._world_now, self._known

    def _end(self) -> None:
        self._mesh.close()
        self._stage = None
