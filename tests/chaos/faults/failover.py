"""PostgreSQL dies for good, and a streaming replica takes its place: nothing acknowledged is lost where commits wait for it.

Where they do not, acknowledged orders are lost. No service can see that from its side of a connection, so the replica must be synchronous;
the second fault proves that this auditor would see it if it were not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.local.parts import POSTGRES
from tests.chaos.fault import Fault
from tests.chaos.scene import Scene
from tests.chaos.stage import Stage
from tests.chaos.standby import Standby
from tests.e2e.crash.audit import acknowledged
from tests.e2e.crash.findings import Lost
from tests.e2e.crash.order_record import read_order_record

OWN_MESH = Stage("a PostgreSQL to lose", for_each=True)
UNSEEN = 100
UNSEEN_SECONDS_MAX = 30.0
BACK_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.02


@asynccontextmanager
async def _failing_over(scene: Scene, target: str, *, synchronous: bool) -> AsyncIterator[None]:
    standby, holder = Standby(scene), scene.holder(target)
    try:
        await standby.start(synchronous=synchronous)
        if not synchronous:
            standby.suspend()
            await _answered(scene, UNSEEN)
        # Until the standby is in its place, nobody is to start the server again.
        holder.suspend()
        for process in scene.processes(target):
            process.kill()
        scene.note("the primary is dead")
        promotion = asyncio.create_task(_promoted(scene, target, standby))
        try:
            yield
        finally:
            await promotion
    finally:
        standby.end()


async def _promoted(scene: Scene, target: str, standby: Standby) -> None:
    await standby.take_over()
    holder = scene.holder(target)
    scene.await_death(target)
    holder.kill()


async def _answered(scene: Scene, count: int) -> None:
    wanted = len(scene.ledger.answers) + count
    async with asyncio.timeout(UNSEEN_SECONDS_MAX):
        while len(scene.ledger.answers) < wanted:
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def failover(scene: Scene, target: str) -> AsyncIterator[None]:
    """Lose the primary of a synchronous standby."""
    async with _failing_over(scene, target, synchronous=True):
        yield


@asynccontextmanager
async def asynchronous_failover(scene: Scene, target: str) -> AsyncIterator[None]:
    """Lose the primary of an asynchronous standby that is behind."""
    async with _failing_over(scene, target, synchronous=False):
        yield


async def loss_is_seen(scene: Scene, target: str) -> list[str]:
    """The auditor finds that acknowledged orders are gone."""

    async def back() -> bool:
        return not (await scene.world.sql("SELECT pg_is_in_recovery()"))[0][0]

    await scene.world.until(back, timeout_seconds=BACK_SECONDS_MAX)
    async with scene.world.database() as connection:
        found = [finding for finding in acknowledged(scene.ledger, await read_order_record(connection)) if isinstance(finding, Lost)]
    scene.note(f"{len(found)} acknowledged commands are lost, and the auditor says so")
    return [] if found else ["the standby was behind, and the auditor does not see what is lost"]


FAULTS = (
    Fault(
        name="failover",
        what="PostgreSQL dies for good; its synchronous streaming replica is promoted",
        expectation="nothing acknowledged is lost",
        inject=failover,
        targets=(POSTGRES,),
        objective_seconds=30.0,
        outlasted=True,
        stage=OWN_MESH,
    ),
    Fault(
        name="failover-asynchronous",
        what="PostgreSQL dies for good; an asynchronous replica that is behind is promoted: the loss is the point",
        expectation="the auditor sees that acknowledged orders are lost, so its silence elsewhere means something",
        inject=asynchronous_failover,
        targets=(POSTGRES,),
        objective_seconds=30.0,
        during=loss_is_seen,
        spoils=True,
        stage=OWN_MESH,
    ),
)
