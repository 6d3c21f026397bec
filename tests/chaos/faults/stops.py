"""Processes that stop where they stand (SIGSTOP), for longer than a lease lives, and go on afterwards: whoever wakes must be fenced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.local.edge import EDGE
from mesh.local.options import SERVICES
from mesh.local.parts import EXCHANGE, ISSUER
from mesh.local.sidecar import CONTROL
from mesh.local.topology import sidecar_name
from tests.chaos.fault import Fault
from tests.chaos.faults.kills import NO_CALL
from tests.chaos.scene import Scene
from tests.e2e.crash import strike

LONGER_THAN_A_LEASE = 8.0
"""Leases live for 6 s."""


@asynccontextmanager
async def stopped(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop the instance, and let it go on in the end."""
    processes = scene.stop(target)
    try:
        yield
    finally:
        scene.resume(processes)


@asynccontextmanager
async def replica_stopped(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop a replica of the service."""
    async with stopped(scene, scene.a_replica(target)):
        yield


@asynccontextmanager
async def sidecar_stopped(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop the sidecar of a replica of the service."""
    async with stopped(scene, sidecar_name(scene.random.choice(scene.replicas(target)))):
        yield


@asynccontextmanager
async def venue_owner_stopped(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop the replica that holds the venue's session."""
    async with stopped(scene, strike.venue_owner(scene.world)):
        yield


@asynccontextmanager
async def venue_owner_killed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill the replica that holds the venue's session."""
    scene.kill(strike.venue_owner(scene.world))
    yield


FAULTS = (
    Fault(
        name="replica-stop",
        what="a replica of each service stops for longer than a lease, and goes on",
        expectation="the dead peer is noticed, the other one serves; the woken one writes nothing under a lease that is over",
        inject=replica_stopped,
        targets=SERVICES,
        objective_seconds=5.0,
        outlasted=True,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="sidecar-stop",
        what="the sidecar of a replica of each service stops for longer than a lease, and goes on",
        expectation="the dead peer is noticed, the other one serves",
        inject=sidecar_stopped,
        targets=SERVICES,
        objective_seconds=5.0,
        outlasted=True,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="venue-owner-stop",
        what="the replica that holds the venue's session stops for longer than its lease, and goes on",
        expectation="the other one takes the session over; the woken one sends nothing",
        inject=venue_owner_stopped,
        targets=("svc_oms",),
        objective_seconds=20.0,
        outlasted=True,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="venue-owner-kill",
        what="kill -9 of the replica that holds the venue's session",
        expectation="the session is taken over once its lease is over; every order is at the venue once",
        inject=venue_owner_killed,
        targets=("svc_oms",),
        objective_seconds=15.0,
    ),
    Fault(
        name="edge-stop",
        what="the edge stops for 8 s, and goes on",
        expectation="calls wait or fail, and nothing is done twice",
        inject=stopped,
        targets=(EDGE,),
        objective_seconds=5.0,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="bystander-stop",
        what="the control process and the issuer stop for 8 s, and go on",
        expectation="no call fails",
        inject=stopped,
        targets=(CONTROL, ISSUER),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="exchange-stop",
        what="the exchange stops for 8 s, and goes on",
        expectation="what it does not answer is unknown until it does; nothing is sent twice",
        inject=stopped,
        targets=(EXCHANGE,),
        objective_seconds=15.0,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
)
