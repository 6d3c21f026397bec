"""The auditor sees every violation that is planted for it; `make chaos` begins with the same."""

from __future__ import annotations

import pytest

from tests.chaos.planted import PLANTS, Plant, self_tests


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.what)
def test_a_planted_violation_is_caught(plant: Plant) -> None:
    assert plant.caught, plant.audit()


def test_all_of_them_are_counted() -> None:
    found = self_tests()
    assert (found.planted, found.caught, found.missed) == (len(PLANTS), len(PLANTS), ())
