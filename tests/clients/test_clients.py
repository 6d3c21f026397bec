"""Clients in other languages meet the mesh through its edge: one table for all of them, and each one's example."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.table import names
from tests.clients.toolchains import ALWAYS, TOOLCHAINS
from tests.clients.verdict import complaints
from tests.clients.world import World

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Played:
    """A run of the table: its rows, the reports by name, and how the runner ended."""

    rows: dict[str, dict[str, Any]]
    reports: dict[str, dict[str, Any]]
    ending: str


@pytest.fixture(scope="session", params=list(TOOLCHAINS))
def language(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name not in ALWAYS and not TOOLCHAINS[name].built():
        lacking = TOOLCHAINS[name].missing()
        why = f"this machine has no {', '.join(lacking)}" if lacking else "`make interop` builds it"
        pytest.skip(f"the contracts are not proven from {name}: {why}")
    return name


@pytest.fixture(scope="session")
def played(language: str, world: World) -> Played:
    rows = world.rows(language)
    outcome = asyncio.run(world.conformance(TOOLCHAINS[language], rows))
    reports = [json.loads(line) for line in outcome.output.splitlines()]
    ending = f"the runner ended with {outcome.code}: {outcome.errors}"
    return Played({row["name"]: row for row in rows}, {report["scenario"]: report for report in reports}, ending)


@pytest.mark.parametrize("row", names())
def test_a_row_of_the_table(played: Played, row: str) -> None:
    assert row in played.reports, f"not played; {', '.join(played.reports) or 'none'} were; {played.ending}"
    found = complaints(played.rows[row], played.reports[row])
    assert not found, "\n".join(found)


def test_the_example_trades(language: str, world: World) -> None:
    outcome = asyncio.run(world.example(TOOLCHAINS[language]))
    assert outcome.code == 0, outcome.errors
    lines = outcome.output.splitlines()
    assert lines[0].startswith(f"placed example-{language}-"), outcome.output
    assert lines[-1].startswith("ORDER_STATE_FILLED 1 at "), outcome.output
