"""What a campaign found, for people as a table, and for machines as one line."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table

from tests.chaos.planted import SelfTests
from tests.chaos.run import Outcome


def verdict(outcome: Outcome) -> str:
    """Return one fault's verdict in words."""
    if outcome.not_run:
        return f"not run: {outcome.not_run}"
    if outcome.findings:
        return f"{len(outcome.findings)} violations: {outcome.findings[0]}"[:160]
    shown = ", ".join(f"{name} {value:g}" for name, value in outcome.measured.items())
    return f"held: {shown}" if shown else "held"


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row for each fault."""
    found = Table(title="Chaos")
    for name in ("fault", "runs", "load", "acknowledged", "calls failed", "lost", "duplicated", "recovery s", "objective s", "verdict"):
        found.add_column(name, justify="left" if name in ("fault", "verdict") else "right")
    for outcome in outcomes:
        slowest = max(outcome.recoveries, key=lambda target: outcome.recoveries[target], default="")
        shown = f"{outcome.recoveries[slowest]:.2f} ({slowest})" if slowest else "-"
        counts = (outcome.commands, outcome.acknowledged, outcome.failures.total(), outcome.lost, outcome.duplicated)
        objective = f"{outcome.fault.objective_seconds:g}"
        found.add_row(outcome.fault.name, str(outcome.runs), *map(str, counts), shown, objective, verdict(outcome))
    return found


def summary(outcomes: Sequence[Outcome], self_tests: SelfTests) -> dict[str, object]:
    """Return the whole in numbers. A fault that was not run is counted as that, and nowhere else."""
    run = [outcome for outcome in outcomes if not outcome.not_run]
    return {
        "faults": len(run),
        "runs": sum(outcome.runs for outcome in run),
        "acknowledged": sum(outcome.acknowledged for outcome in run),
        "calls_failed": sum(outcome.failures.total() for outcome in run),
        "lost": sum(outcome.lost for outcome in run),
        "duplicated": sum(outcome.duplicated for outcome in run),
        "limit_breaches": sum(outcome.limit_breaches for outcome in run),
        "violations": sum(len(outcome.findings) for outcome in run),
        "slowest_recovery_s": round(max((seconds for outcome in run for seconds in outcome.recoveries.values()), default=0.0), 2),
        "auditor_self_tests": {"planted": self_tests.planted, "caught": self_tests.caught},
        "not_run": len(outcomes) - len(run),
        "measured": {outcome.fault.name: outcome.measured for outcome in run if outcome.measured},
    }


def line(outcomes: Sequence[Outcome], self_tests: SelfTests) -> str:
    """Return the last line."""
    return json.dumps(summary(outcomes, self_tests))


def passed(outcomes: Sequence[Outcome], self_tests: SelfTests) -> bool:
    """Say whether something was tried, nothing was violated, and the auditor saw all that was planted."""
    tried_any = any(outcome.runs for outcome in outcomes)
    return tried_any and self_tests.caught == self_tests.planted and not any(outcome.findings for outcome in outcomes)
