"""The catalogue as data, and what a campaign makes of outcomes."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace

import pytest

from tests.chaos import campaign
from tests.chaos.campaign import COMMANDS_MAX, Campaign
from tests.chaos.catalogue import catalogue
from tests.chaos.fault import Fault
from tests.chaos.planted import SelfTests
from tests.chaos.pulse import KINDS
from tests.chaos.run import Known, Outcome
from tests.chaos.scene import Scene
from tests.chaos.table import line, passed, verdict
from tests.e2e.crash.findings import AboveLimit, Doubled, Lost
from tests.e2e.crash.load import Command, Create
from tests.e2e.crash.world import World

COMMAND = Command("ACC-1", "key", Create())
ALL_CAUGHT = SelfTests(2, 2, ())


@asynccontextmanager
async def _nothing(scene: Scene, target: str) -> AsyncIterator[None]:
    yield


FAULT = Fault(
    name="nothing", what="nothing", expectation="nothing", inject=_nothing, targets=("one", "two"), objective_seconds=1.0, short=("one",)
)


def test_every_fault_says_what_it_is() -> None:
    for fault in catalogue():
        assert fault.what, fault.name
        assert fault.expectation, fault.name
        assert fault.objective_seconds > 0, fault.name
        assert fault.unnoticed <= set(KINDS), fault.name


def test_faults_of_a_stage_stand_together() -> None:
    stages = [fault.stage for fault in catalogue()]
    changes = sum(one is not other for one, other in itertools.pairwise(stages))
    assert changes == len({id(stage) for stage in stages}) - 1


def test_the_short_set_takes_some_targets_of_some_faults() -> None:
    with Campaign(1, short=True, say=lambda text: None) as running:
        other = replace(FAULT, name="other", short=())
        assert list(running.chosen([FAULT, other])) == [(FAULT, ("one",))]


def test_a_short_target_must_be_one_of_the_faults() -> None:
    with pytest.raises(ValueError, match="short set"):
        replace(FAULT, short=("three",))


def test_what_spoils_its_mesh_needs_one_of_its_own() -> None:
    with pytest.raises(ValueError, match="one of its own"):
        replace(FAULT, spoils=True)


async def test_what_a_machine_does_not_permit_is_not_run_and_not_passed() -> None:
    with Campaign(1, short=False, say=lambda text: None) as running:
        outcomes = await running.run([replace(FAULT, permitted=lambda: "no such thing here")])
    assert verdict(outcomes[0]) == "not run: no such thing here"
    assert not passed(outcomes, ALL_CAUGHT)
    assert json.loads(line(outcomes, ALL_CAUGHT)) | {"faults": 0, "runs": 0, "not_run": 1} == json.loads(line(outcomes, ALL_CAUGHT))


async def test_a_mesh_with_a_long_history_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tried(fault: Fault, targets: Sequence[str], world: World, known: Known, seed: int) -> Outcome:
        known.ledger.commands |= {(fault.name, str(number)): COMMAND for number in range(COMMANDS_MAX // 2)}
        return Outcome(fault)

    said: list[str] = []
    monkeypatch.setattr(campaign, "tried", tried)
    monkeypatch.setattr(campaign, "world", lambda mesh, seed: nullcontext(World(mesh, seed, random.Random(seed))))
    monkeypatch.setattr(campaign, "LocalMesh", lambda options, directory: object())
    with Campaign(1, short=False, say=said.append) as running:
        await running.run([replace(FAULT, name=name) for name in ("one", "two", "three", "four")])
    begun = [text.split(":")[0] for text in said]
    assert begun == ["starting a mesh (plain)", "one", "two", "three", "starting a mesh (plain)", "four"]


def test_findings_are_counted_by_their_kind() -> None:
    outcome = Outcome(FAULT, runs=2, recoveries={"one": 0.5, "two": 2.345}, acknowledged=7, failures=Counter(order=2, read=1))
    outcome.findings += [Lost("an order"), Doubled("a fill"), Doubled("another"), AboveLimit("an approval"), "something else"]
    assert json.loads(line([outcome], ALL_CAUGHT)) == {
        "faults": 1,
        "runs": 2,
        "acknowledged": 7,
        "calls_failed": 3,
        "lost": 1,
        "duplicated": 2,
        "limit_breaches": 1,
        "violations": 5,
        "slowest_recovery_s": 2.35,
        "auditor_self_tests": {"planted": 2, "caught": 2},
        "not_run": 0,
        "measured": {},
    }
    assert not passed([outcome], ALL_CAUGHT)


def test_an_auditor_that_misses_a_plant_passes_nothing() -> None:
    outcome = Outcome(FAULT, runs=1, recoveries={"one": 0.5})
    assert passed([outcome], ALL_CAUGHT)
    assert not passed([outcome], SelfTests(2, 1, ("a lost order",)))
