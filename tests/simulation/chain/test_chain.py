"""Runs of the whole chain by seed, as many as fit into a minute; `python -m tests.simulation.chain --seeds N --start S` plays more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.chain.__main__ import problems_of, report
from tests.simulation.chain.story import digest
from tests.simulation.chain.world import play

ROOT = Path(__file__).resolve().parents[3]
SEEDS = range(16)
SUBPROCESS_SECONDS_MAX = 120


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_breaks_no_rule(seed: int) -> None:
    problems = problems_of(seed)
    assert not problems, report(seed, problems)


def digest_elsewhere(seed: int) -> str:
    """Play a run in a process of its own, with hashes of its own, and return what happened as a hash."""
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "gen")))}
    command = [sys.executable, "-m", "tests.simulation.chain", "--seed", str(seed), "--digest"]
    played = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=SUBPROCESS_SECONDS_MAX)
    return played.stdout.strip()


def test_a_seed_is_a_bug_report() -> None:
    """The same seed is the same run in any process, whatever its hashes are and whatever ran before; another seed is another run."""
    first = digest(play(3))
    assert digest_elsewhere(3) == first
    assert digest(play(4)) != first
