"""The short set: some faults on some targets, each on a real mesh, held to the same rules as the whole catalogue."""

from __future__ import annotations

import secrets
import sys

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.catalogue import catalogue
from tests.chaos.planted import self_tests
from tests.chaos.run import Late
from tests.chaos.table import passed, verdict

pytestmark = pytest.mark.e2e


async def test_the_short_set_holds() -> None:
    planted, seed = self_tests(), secrets.randbelow(2**32)
    sys.stderr.write(f"python -m tests.chaos --short --seed {seed}\n")
    with Campaign(seed, short=True, say=_say) as campaign:
        outcomes = await campaign.run(catalogue())
    for outcome in outcomes:
        # How long it took is `make chaos`'s to judge, on a machine that does nothing else.
        outcome.findings = [finding for finding in outcome.findings if not isinstance(finding, Late)]
    verdicts = "\n".join(f"{outcome.fault.name}: {verdict(outcome)}" for outcome in outcomes)
    assert passed(outcomes, planted), verdicts


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
