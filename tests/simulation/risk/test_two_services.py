"""No shared transaction, no lost reservation: seeded runs, and an auditor that finds what is planted."""

from __future__ import annotations

from decimal import Decimal

import pytest

from svc_risk.domain.reservation import ReservationStatus
from tests.simulation.risk.world import World, audit

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_reservations_end_with_their_orders(seed: int) -> None:
    world = World(seed)
    world.run(120)
    audit(world)
    assert not [one for one in world.reservations.values() if one.status is ReservationStatus.UNCONFIRMED], "an orphan is left"


def test_the_runs_meet_what_they_are_for() -> None:
    worlds = [World(seed) for seed in SEEDS]
    for world in worlds:
        world.run(120)
    causes = {cause for world in worlds for stream in world.streams.values() for _, cause in stream.facts}
    assert causes == {"oms.v1.OrderAccepted", "oms.v1.OrderCanceled", "oms.v1.ExecutionRecorded", "oms.v1.OrderAbandoned"}
    assert any(answer.answer == b"refused" for world in worlds for answer in world.answers.values())


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (
            lambda world: world.accounts.update({"ACC-1": world.accounts["ACC-1"]._replace(buy_notional=Decimal(7))}),
            "reserved is not what is open",
        ),
        (lambda world: next(iter(world.streams.values())).__dict__.update(filled=Decimal(10**6)), "not the sum of fills|not what is open"),
        (lambda world: world.approvals.update({"o-1": 2}), "reserved twice"),
        (lambda world: world.approvals.clear(), "without an approval"),
        (lambda world: world.opened.append(("ACC-1", Decimal(10**6))), "passed the limit"),
    ],
)
def test_the_auditor_finds_what_is_planted(plant: object, finding: str) -> None:
    world = World(1)
    world.run(60)
    audit(world)
    plant(world)  # type: ignore[operator]  # a lambda of the table above
    with pytest.raises(AssertionError, match=finding):
        audit(world)
