"""Every process dies by SIGKILL, in turn, at an answer that the seed draws; and services with all of their replicas at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.local.edge import EDGE
from mesh.local.options import SERVICES
from mesh.local.parts import EXCHANGE, ISSUER
from mesh.local.sidecar import CONTROL
from mesh.local.topology import sidecar_name
from tests.chaos.fault import Fault
from tests.chaos.pulse import KINDS
from tests.chaos.scene import Scene

NO_CALL = frozenset(KINDS)


@asynccontextmanager
async def killed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill the instance; the supervisor is what heals."""
    scene.kill(target)
    yield


@asynccontextmanager
async def replica_killed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill a replica of the service."""
    scene.kill(scene.a_replica(target))
    yield


@asynccontextmanager
async def all_killed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill all replicas of the service."""
    scene.kill(*scene.replicas(target))
    yield


@asynccontextmanager
async def sidecars_killed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill the sidecars of all replicas of the service."""
    scene.kill(*(sidecar_name(name) for name in scene.replicas(target)))
    yield


FAULTS = (
    Fault(
        name="replica-kill",
        what="kill -9 of one replica of each service",
        expectation="callers are served by the other one within 3 s",
        inject=replica_killed,
        targets=SERVICES,
        objective_seconds=3.0,
        outlasted=True,
        short=("svc_risk",),
    ),
    Fault(
        name="service-kill",
        what="kill -9 of all replicas of a service at once",
        expectation="calls wait or fail; all is well again once a replica is back and leases of the dead have run out",
        inject=all_killed,
        targets=SERVICES,
        objective_seconds=20.0,
    ),
    Fault(
        name="sidecar-kill",
        what="kill -9 of the sidecars of all replicas of a service at once",
        expectation="no call passes by the sidecars; all is well once they are back",
        inject=sidecars_killed,
        targets=SERVICES,
        objective_seconds=10.0,
    ),
    Fault(
        name="edge-kill",
        what="kill -9 of the edge",
        expectation="clients outside reconnect once it is back",
        inject=killed,
        targets=(EDGE,),
        objective_seconds=5.0,
    ),
    Fault(
        name="bystander-kill",
        what="kill -9 of the control process and of the issuer",
        expectation="the data plane keeps its last configuration and tokens their validity: no call fails",
        inject=killed,
        targets=(CONTROL, ISSUER),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
    ),
    Fault(
        name="exchange-kill",
        what="kill -9 of the exchange",
        expectation="orders are taken and wait; the venue has each once when it is back",
        inject=killed,
        targets=(EXCHANGE,),
        objective_seconds=15.0,
    ),
)
