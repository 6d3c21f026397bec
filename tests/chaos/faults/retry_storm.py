"""Callers who all ask again while what they call is not there: what is executed stays near what was asked, and nothing collapses."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
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
from tests.e2e.crash.client import call_failure
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
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "trademesh.oms.v1.OrderService"}],
                "retryPolicy": {
                    "maxAttempts": ATTEMPTS,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


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
        options = (("grpc.service_config", _SERVICE_CONFIG), ("grpc.enable_retries", 1), ("grpc.use_local_subchannel_pool", 1))
        token = await asyncio.to_thread(LocalUsers(mesh.layout).token, TRADER)
        metadata = (("authorization", f"Bearer {token.text}"),)
        load = Load(self.scene.random, f"storm-{self.scene.random.getrandbits(24):06x}")
        async with grpc.aio.secure_channel(entrance.edge, credentials, options=options) as channel, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._caller(OrderServiceStub(channel), load, metadata))

    async def _caller(self, orders: Any, load: Load, metadata: tuple[tuple[str, str], ...]) -> None:
        while not self.ending.is_set():
            (command,) = load.resting(1)
            await self._place(orders, command, metadata)
            read = order_service_pb2.LookupOrderRequest(account_id=command.account_id, client_order_id=command.key)
            try:
                await orders.LookupOrder(read, metadata=metadata, timeout=CALL_SECONDS)
                self.told["read OK"] += 1
            except grpc.aio.AioRpcError as error:
                self.told[f"read {error.code().name}"] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _place(self, orders: Any, command: Command, metadata: tuple[tuple[str, str], ...]) -> None:
        ledger, key = self.scene.ledger, (command.account_id, command.key)
        ledger.commands[key] = command
        try:
            answer = await orders.CreateOrder(command.request, metadata=metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            failure = call_failure(error)
            ledger.lost[key] = failure
            self.told[f"order {failure.code} {failure.reason}"] += 1
        else:
            ledger.answers[key] = answer.order
            self.told["order OK"] += 1


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


async def _tries(scene: Scene) -> Counter[str]:
    """Every call between workloads so far, and how many of them were repetitions by a proxy, by caller."""
    found: Counter[str] = Counter()
    mesh = scene.world.mesh
    callers = {EDGE: await edge_stats(mesh, _RETRIES)}
    callers |= {name: await sidecar_stats(mesh, name, _RETRIES) for name in scene.replicas("svc_oms")}
    for caller, stats in callers.items():
        for name, value in stats.items():
            found[f"{caller} {name.rpartition('_')[2]}"] += value
    return found


def _judge(scene: Scene, before: Counter[str], after: Counter[str], seconds: float) -> None:
    scene.findings += list(_excess(before, after, seconds))
    for caller in sorted({name.partition(" ")[0] for name in after}):
        for what in ("total", "retry"):
            scene.measured[f"{caller} {what}"] = float(after[f"{caller} {what}"] - before[f"{caller} {what}"])


def _excess(before: Counter[str], after: Counter[str], seconds: float) -> list[str]:
    """A budget bounds what is under way; over time, the least of it may turn over with every call that ends."""
    found = []
    for caller in sorted({name.partition(" ")[0] for name in after}):
        total, retries = (after[f"{caller} {what}"] - before[f"{caller} {what}"] for what in ("total", "retry"))
        allowed = BUDGET_SHARE * (total - retries) + BUDGET_LEAST * max(seconds, 1.0)
        if retries > allowed:
            found.append(f"{caller} made {total} calls, {retries} of them repetitions; the budget allows {allowed:.0f}")
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
