"""What a fault is: one small object that says what happens, to whom, what must hold, and how soon all is well again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from tests.chaos.scene import Scene
from tests.chaos.stage import PLAIN, Stage

Inject = Callable[[Scene, str], AbstractAsyncContextManager[None]]
"""Entered, the fault is there; left, it is healed. The target is one of the fault's."""
Check = Callable[[Scene, str], Awaitable[list[str]]]
"""Returns what is not as it should be while the fault holds."""


async def nothing_more(scene: Scene, target: str) -> list[str]:
    """Expect no more than every fault must keep."""
    return []


def always() -> str:
    """Find no reason against it."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault. Under each, whatever else it says, the auditor must find nothing.

    Attributes:
        name: unique, in kebab-case.
        what: what happens.
        expectation: what must hold, for people.
        inject: makes it happen to one target and heals it.
        targets: what it happens to, one after the other, each a run.
        objective_seconds: every kind of call succeeds again so soon, counted from the healing, or from the fault's start where it is
            outlasted. It holds on a machine that has its cores to itself.
        outlasted: calls succeed again while the fault still holds.
        unnoticed: of these kinds of calls none may fail (`pulse.KINDS`).
        resumed: of these kinds calls may end at any time afterwards; by kind, how many seconds it may take until one succeeds again, which
            then stands in the objective's place.
        hold_seconds: the least time between fault and healing.
        during: looks at the mesh while the fault holds.
        spoils: the mesh is beyond recovery afterwards, and `during` alone judges it; its stage is `for_each`.
        walk_away: the share of clients that ask once and never again, so that outcomes stay unknown.
        short: the targets of the short set, which CI runs; none keeps it out.
        stage: the mesh that it needs.
        permitted: why this machine cannot have it; empty where it can. Asked before anything starts.
    """

    name: str
    what: str
    expectation: str
    inject: Inject
    targets: tuple[str, ...]
    objective_seconds: float
    outlasted: bool = False
    unnoticed: frozenset[str] = frozenset()
    resumed: Mapping[str, float] = field(default_factory=dict)
    hold_seconds: float = 0.0
    during: Check = nothing_more
    spoils: bool = False
    walk_away: float = 0.0
    short: tuple[str, ...] = ()
    stage: Stage = PLAIN
    permitted: Callable[[], str] = always

    def __post_init__(self) -> None:
        if self.spoils and not self.stage.for_each:
            raise ValueError(f"{self.name}: what spoils its mesh needs one of its own")
        if not self.targets or not set(self.short) <= set(self.targets):
            raise ValueError(f"{self.name}: the short set's targets must be some of the fault's: {self.short}")
