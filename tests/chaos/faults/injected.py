"""Delays and refusals by fault injection: the Istio manifests of `tests/chaos/experiments`, put into the running mesh."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import yaml

from mesh.local.edge import EDGE
from mesh.local.sidecar import DRAIN_SECONDS
from tests.chaos import manifests, sidecars
from tests.chaos.experiment import DIRECTORY, EXPERIMENTS
from tests.chaos.fault import Fault
from tests.chaos.pulse import CANCEL, ORDER, QUOTES, REPLACE, VENUE
from tests.chaos.scene import Scene
from tests.chaos.stage import PLAIN

HOLD_SECONDS = 4.0
SILENT = "risk-late"
SETTLING_SECONDS = 0.5
"""In which calls end that were under way."""

CHECK_ORDERS = "/trademesh.risk.v1.PreTradeService/CheckOrders"
GET_QUOTES = "/trademesh.marketdata.v1.MarketDataService/BatchGetQuotes"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What an experiment may do, and must.

    Attributes:
        fails: kinds of calls that some of fail; all others go on.
        closed: kinds that none of passes.
        slow: kinds that each take so many seconds, or longer.
        executed: by method, the kind of calls of which each is carried out at most once; None allows none at all.
    """

    fails: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    slow: Mapping[str, float] = field(default_factory=dict)
    executed: Mapping[str, str | None] = field(default_factory=dict)


_ORDERS = frozenset({ORDER, REPLACE, VENUE})
EXPECTED: Mapping[str, Expected] = {
    "risk-late": Expected(fails=_ORDERS, closed=frozenset({ORDER}), executed={CHECK_ORDERS: None}),
    "risk-refuses": Expected(fails=_ORDERS, closed=frozenset({ORDER}), executed={CHECK_ORDERS: None}),
    "risk-shaky": Expected(fails=_ORDERS),
    "orders-503": Expected(fails=_ORDERS),
    "cancels-late": Expected(slow={CANCEL: 0.5}),
    "quotes-refused": Expected(fails=frozenset({QUOTES}), executed={GET_QUOTES: QUOTES}),
    "events-late": Expected(),
}
MUST_FAIL: Mapping[str, str] = {"risk-late": ORDER, "risk-refuses": ORDER, "orders-503": ORDER, "quotes-refused": QUOTES}
"""What shows that the fault is there."""


@asynccontextmanager
async def applied(scene: Scene, target: str) -> AsyncIterator[None]:
    """Put the experiment's manifest in the place of the one that it stands for, and that one back."""
    item = yaml.safe_load((DIRECTORY / f"{target}.yaml").read_text())
    (experiment,) = (found for found in EXPERIMENTS if found.name == target)
    callers = (EDGE,) if experiment.caller == EDGE else scene.replicas(experiment.caller.replace("-", "_"))
    async with manifests.kept(scene) as files:
        await manifests.put(scene, manifests.replaced(files, item))
        await sidecars.configured(scene, callers, lambda dump: '"fixed_delay"' in dump or '"abort"' in dump)
        yield


async def as_expected(scene: Scene, target: str) -> list[str]:
    """Compare what calls met with what they should have."""
    expected = EXPECTED[target]
    await asyncio.sleep(SETTLING_SECONDS)
    began, logs = time.monotonic(), {path: path.stat().st_size for path in scene.world.mesh.layout.logs.glob("svc_*.log")}
    await asyncio.sleep(HOLD_SECONDS)
    ended = time.monotonic()
    failed = scene.pulse.failures(began)
    findings = [f"{kind} failed: {dict(failed[kind].most_common(3))}" for kind in sorted(failed.keys() - expected.fails)]
    if target in MUST_FAIL and MUST_FAIL[target] not in failed:
        findings.append(f"the fault is not there: no {MUST_FAIL[target]} failed")
    for kind in sorted(expected.closed):
        passed = [beat for beat in scene.pulse.since(kind, began) if not beat.failure]
        findings += [f"{kind} passed {beat.began - began:.2f} s into the fault" for beat in passed]
    for kind, seconds in expected.slow.items():
        quick = [beat for beat in scene.pulse.since(kind, began) if beat.ended - beat.began < seconds]
        findings += [f"{kind} took {beat.ended - beat.began:.2f} s, with a delay of {seconds:g} s on its way" for beat in quick]
    lines = [json.loads(line) for path, size in logs.items() for line in sidecars.log_since(path, size).splitlines() if '"rpc"' in line]
    for method, asked in expected.executed.items():
        executions = sum(line.get("method") == method for line in lines)
        calls = 0 if asked is None else sum(beat.ended >= began and beat.began <= ended for beat in scene.pulse.beats[asked]) + 1
        scene.note(f"{target}: {method.rpartition('/')[2]} was carried out {executions} times, for {calls} calls")
        if executions > calls:
            findings.append(f"{method} was carried out {executions} times, for {calls} calls")
    return findings


FAULTS = (
    Fault(
        name="injected",
        what="delays and refusals by fault injection from an Istio VirtualService, by one caller on one route",
        expectation="nothing is carried out more often than it was asked for; without risk no order; everything else goes on",
        inject=applied,
        during=as_expected,
        targets=tuple(experiment.name for experiment in EXPERIMENTS if experiment.name != SILENT),
        objective_seconds=10.0,
        stage=PLAIN,
    ),
    Fault(
        name="injected-silence",
        what="no question of the order service to risk is answered within its deadline, by fault injection",
        expectation="no order; everything else goes on; routes that change reach a connection with its next answer, or when it has drained",
        inject=applied,
        during=as_expected,
        targets=(SILENT,),
        # A connection learns that its routes are replaced with an answer. Without one it lives until its listener's time is over.
        objective_seconds=DRAIN_SECONDS + 5.0,
        stage=PLAIN,
    ),
)
