"""Callers who all ask again while what they call is not there: what is executed stays near what was asked, and nothing collapses."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from cli.access import LocalUsers
from mesh.local.edge import EDGE
from mesh.local.outside import door
from tests.chaos.envoy_stats import edge_stats, sidecar_stats
from tests.chaos.fault import Fault
from tests.chaos.scene import Scene
from tests.chaos.stage import FREE_PORTS, Stage
from tests.e2e.crash import strike
from tests.e2e.crash.client import RETRIED, Failure, Ledger, call_failure
from tests.e2e.crash.load import Command, Load
from tests.e2e.crash.world import TRADER
from trademesh.oms.v1 import order_service_pb2
from trademesh.oms.v1.order_service_pb2_grpc import OrderServiceStub

CALLERS = 24
CALL_SECONDS = 4.0
PAUSE_SECONDS = 0.02
HOLD_SECONDS = 6.0
ATTEMPTS = 4
BUDGET_SHARE = 0.2
BUDGET_LEAST = 3
"""`retryBudget` of mesh/istio: so many tries of a fifth of the calls under way, and three where that is less."""

STORM = Stage("retry storm", FREE_PORTS, for_each=True)
_RETRIES = r"cluster\.outbound\|9000\|.*\.upstream_rq_(total|retry)$"
_BACKOFF_SECONDS, _BACKOFF_SECONDS_MAX = 0.05, 0.5
_OPTIONS = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
"""Repeated in this file and not by gRPC, which would hide what became of the attempts before the last."""


def nothing_done(failure: Failure) -> bool:
    """Say whether a failure tells that the call was never carried out; any other leaves it open."""
    if failure.code == "UNAVAILABLE":
        return failure.reason != ""
    return failure.code == "RESOURCE_EXHAUSTED" or failure.code not in RETRIED


def learn(ledger: Ledger, key: tuple[str, str], failures: Sequence[Failure]) -> None:
    """Enter what the client of a key knows after attempts that failed, at least one: the most open of them decides."""
    still_open = next((failure for failure in failures if not nothing_done(failure)), None)
    if still_open is not None:
        ledger.lost[key] = still_open
    elif failures[-1].code == "UNAVAILABLE":
        ledger.lost[key] = failures[-1]
    else:
        ledger.refused[key] = failures[-1]


@dataclass
class Storm:
    """Callers without patience, who place orders and read them, and count what they are told."""

    scene: Scene
    told: Counter[str] = field(default_factory=Counter)
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    async def rage(self) -> None:
        """Call until the end, then return."""
        mesh = self.scene.world.mesh
        entrance = door(mesh.layout)
        credentials = grpc.ssl_channel_credentials(entrance.authority_file.read_bytes())
        token = await asyncio.to_thread(LocalUsers(mesh.layout).token, TRADER)
        metadata = (("authorization", f"Bearer {token.text}"),)
        load = Load(self.scene.random, f"storm-{self.scene.random.getrandbits(24):06x}")
        async with grpc.aio.secure_channel(entrance.edge, credentials, options=_OPTIONS) as channel, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._caller(OrderServiceStub(channel), load, metadata))

    async def _caller(self, orders: Any, load: Load, metadata: tuple[tuple[str, str], ...]) -> None:
        while not self.ending.is_set():
            (command,) = load.resting(1)
            await self._place(orders, command, metadata)
            read = order_service_pb2.LookupOrderRequest(account_id=command.account_id, client_order_id=command.key)
            self._count("read", *await self._attempts(orders.LookupOrder, read, metadata))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _place(self, orders: Any, command: Command, metadata: tuple[tuple[str, str], ...]) -> None:
        ledger, key = self.scene.ledger, (command.account_id, command.key)
        ledger.commands[key] = command
        answer, failures = await self._attempts(orders.CreateOrder, command.request, metadata)
        self._count("order", answer, failures)
        if answer is not None:
            ledger.answers[key] = answer.order
        else:
            learn(ledger, key, failures)

    async def _attempts(self, method: Any, request: Any, metadata: tuple[tuple[str, str], ...]) -> tuple[Any, list[Failure]]:
        """Ask until somebody answers, the attempts or the time are used up, or what is said is no reason to ask again."""
        failures, deadline = list[Failure](), time.monotonic() + CALL_SECONDS
        while True:
            self.told["attempts"] += 1
            try:
                return await method(request, metadata=metadata, timeout=max(deadline - time.monotonic(), 0.0)), failures
            except grpc.aio.AioRpcError as error:
                failures.append(call_failure(error))
            pause = min(_BACKOFF_SECONDS * 2 ** (len(failures) - 1), _BACKOFF_SECONDS_MAX) * self.scene.random.random()
            if failures[-1].code != "UNAVAILABLE" or len(failures) == ATTEMPTS or time.monotonic() + pause > deadline:
                return None, failures
            await asyncio.sleep(pause)

    def _count(self, kind: str, answer: Any, failures: Sequence[Failure]) -> None:
        last = "OK" if answer is not None else f"{failures[-1].code} {failures[-1].reason}".strip()
        self.told[f"{kind} {last}"] += 1


@asynccontextmanager
async def stormed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Let callers rage, and take what they call away from them: all of risk, or one replica of the order service."""
    storm = Storm(scene)
    raging = asyncio.create_task(storm.rage())
    try:
        before = await _tries(scene)
        names = scene.replicas(target)
        if target == "svc_oms":
            names = tuple(name for name in names if name != strike.venue_owner(scene.world))
        # Killed, not stopped: who is silent makes callers wait, who is gone makes them ask again.
        scene.kill(*names)
        began = time.monotonic()
        try:
            yield
        finally:
            storm.ending.set()
            await raging
        after = await _tries(scene)
        scene.measured |= {f"told {what}": float(count) for what, count in storm.told.items()}
        _judge(scene, before, after, time.monotonic() - began)
    finally:
        raging.cancel()
        await asyncio.gather(raging, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Tries:
    """Every call between workloads that a caller has made so far, and how many of them were repetitions by its proxy."""

    total: int
    retries: int


async def _tries(scene: Scene) -> dict[str, Tries]:
    """Return the tries of the edge and of the order service, by caller."""
    mesh = scene.world.mesh
    callers = {EDGE: await edge_stats(mesh, _RETRIES)}
    callers |= {name: await sidecar_stats(mesh, name, _RETRIES) for name in scene.replicas("svc_oms")}
    return {
        caller: Tries(*(sum(value for name, value in stats.items() if name.endswith(f"_{what}")) for what in ("total", "retry")))
        for caller, stats in callers.items()
        if stats
    }


def _judge(scene: Scene, before: Mapping[str, Tries], after: Mapping[str, Tries], seconds: float) -> None:
    scene.findings += list(excess(before, after, seconds))
    for caller in sorted(before.keys() & after.keys()):
        scene.measured[f"{caller} total"] = float(after[caller].total - before[caller].total)
        scene.measured[f"{caller} retry"] = float(after[caller].retries - before[caller].retries)


def excess(before: Mapping[str, Tries], after: Mapping[str, Tries], seconds: float) -> list[str]:
    """Say who made more repetitions than its budget allows, or cannot be judged.

    A budget bounds what is under way; over time, the least of it may turn over with every call that ends.
    """
    found = []
    for caller in sorted(before.keys() | after.keys()):
        if caller not in before or caller not in after or after[caller].total < before[caller].total:
            found.append(f"the Envoy of {caller} ended, which nobody meant to: its repetitions are not known")
            continue
        total, retries = after[caller].total - before[caller].total, after[caller].retries - before[caller].retries
        allowed = BUDGET_SHARE * (total - retries) + BUDGET_LEAST * max(seconds, 1.0)
        if retries > allowed:
            found.append(f"{caller} made {total} calls, {retries} of them repetitions; the budget allows {allowed:.0f}")
    if not any(after[caller].total > before[caller].total for caller in before.keys() & after.keys()):
        found.append("no proxy has called anybody, so that nothing is proven")
    return found


FAULTS = (
    Fault(
        name="retry-storm",
        what=f"callers that ask {ATTEMPTS} times each, while all of risk or a replica of the order service is gone",
        expectation="proxies repeat a fifth at most; orders fail typed or wait; all is well once they are back",
        inject=stormed,
        targets=("svc_risk", "svc_oms"),
        objective_seconds=20.0,
        hold_seconds=HOLD_SECONDS,
        stage=STORM,
    ),
)
