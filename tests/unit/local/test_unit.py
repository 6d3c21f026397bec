"""The order in which units start."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.local.unit import Unit, start_waves


def unit(name: str, *after: str) -> Unit:
    return Unit(name, name, ("true",), Path("/"), after)


def names(units: list[Unit]) -> list[list[str]]:
    return [[item.name for item in wave] for wave in start_waves(units)]


def test_every_unit_stands_after_all_that_it_waits_for() -> None:
    plan = [unit("oms", "database", "bus"), unit("seed", "risk"), unit("risk", "database"), unit("bus"), unit("database")]
    assert names(plan) == [["bus", "database"], ["oms", "risk"], ["seed"]]


def test_a_circle_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="a, b"):
        start_waves([unit("a", "b"), unit("b", "a"), unit("c")])


def test_an_unknown_dependency_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="nobody"):
        start_waves([unit("a", "nobody")])


def test_names_are_unique() -> None:
    with pytest.raises(ValueError, match="unique"):
        start_waves([unit("a"), unit("a")])
