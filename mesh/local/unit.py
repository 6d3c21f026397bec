"""What the supervisor runs: one process, what must be ready before it, and how its own readiness shows."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

CONFIGURATION_EXIT_CODE = 78
"""EX_CONFIG of sysexits.h: starting again cannot help."""


class Probe(Protocol):
    """Says whether a process is ready. Answers within a second or little more, and never raises for a process that is not."""

    async def __call__(self, pid: int) -> bool | None:
        """Return whether the process with this id is ready now; None if it is there and cannot tell: nothing is known to have changed."""
        ...


@dataclass(frozen=True)
class Unit:
    """One supervised process.

    Attributes:
        name: unique, such as `svc_oms-0`.
        service: what it is a replica of, such as `svc_oms`.
        command: program and arguments; no secrets, they are world-readable.
        after: names of units that must have been ready once, or have finished, before it starts.
        ready: the probe; None for a one-shot, which is ready once it has ended with exit code 0.
        environment: the whole environment of the process.
        directory: its working directory.
        address: where it is reached, for people; a socket path or `host:port`.
        stop_signal: asks for a clean end, which may take `stop_seconds`; then the process group is killed.
        death_signal: what the kernel sends when the supervisor is gone.
        niceness: how much it yields to the others where processors are short, 0 to 19 (nice(2)).
        final_exit_codes: ends that starting again cannot help.
    """

    name: str
    service: str
    command: tuple[str, ...]
    directory: Path
    after: tuple[str, ...] = ()
    ready: Probe | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    death_signal: signal.Signals = signal.SIGKILL
    niceness: int = 0
    final_exit_codes: frozenset[int] = frozenset({CONFIGURATION_EXIT_CODE})

    @property
    def one_shot(self) -> bool:
        """Say whether the unit does one thing and ends."""
        return self.ready is None


def start_waves(units: Sequence[Unit]) -> list[list[Unit]]:
    """Return the units by depth of their dependencies: every unit stands in a later wave than all that it waits for.

    Raises:
        ValueError: two units share a name, one waits for an unknown unit, or some wait for each other.
    """
    by_name = {unit.name: unit for unit in units}
    if len(by_name) != len(units):
        raise ValueError("unit names must be unique")
    unknown = {name for unit in units for name in unit.after} - by_name.keys()
    if unknown:
        raise ValueError(f"units wait for unknown ones: {', '.join(sorted(unknown))}")
    waves: list[list[Unit]] = []
    placed: set[str] = set()
    while len(placed) < len(units):
        wave = [unit for unit in units if unit.name not in placed and placed.issuperset(unit.after)]
        if not wave:
            raise ValueError(f"units wait for each other: {', '.join(sorted(by_name.keys() - placed))}")
        waves.append(wave)
        placed.update(unit.name for unit in wave)
    return waves
