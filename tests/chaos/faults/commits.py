"""Services die around their commits. PostgreSQL places the blow, so that production carries no hook for it.

Before the commit: a lock keeps the rows from being written, the process dies waiting, and its transaction is given up.
After it: a synchronous standby that does not exist makes every commit wait once its record is on disk, and before anybody hears of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.fault import Fault
from tests.chaos.scene import Scene
from tests.e2e.crash import strike

TABLES = {
    "svc_oms": "svc_oms.event",
    "svc_risk": "svc_risk.event",
    "svc_custody": "svc_custody.event",
    "svc_portfolio": "svc_portfolio.event",
    "svc_reporting": "svc_reporting.order_event",
}
COMMIT_SECONDS = 10.0

_AFTER_COMMIT = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1 AND wait_event = 'SyncRep'"


@asynccontextmanager
async def killed_before_commit(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill all replicas of the service while they wait to write what they will never commit."""
    world, table = scene.world, TABLES[target]
    async with strike.commits_held(world, table):

        async def waits() -> bool:
            now = (await world.sql("SELECT clock_timestamp()"))[0][0]
            return await strike.held_commits(world, table, now) > 0

        await world.until(waits, timeout_seconds=COMMIT_SECONDS)
        scene.kill(*scene.replicas(target))
    yield


@asynccontextmanager
async def killed_after_commit(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill all replicas of the service when a commit of theirs is on disk and they have not been told."""
    world = scene.world
    async with world.database() as connection:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            await connection.execute("SELECT pg_reload_conf()")

            async def waits() -> bool:
                return bool((await world.sql(_AFTER_COMMIT, f"{target}-%"))[0][0])

            await world.until(waits, timeout_seconds=COMMIT_SECONDS)
            scene.kill(*scene.replicas(target))
        finally:
            await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await connection.execute("SELECT pg_reload_conf()")
    yield


FAULTS = (
    Fault(
        name="kill-before-commit",
        what="kill -9 of all replicas of a service that wait to commit; a fifth of the clients never ask again",
        expectation="nothing of it is there; who asks again gets it done once, and what was reserved for the others is given up",
        inject=killed_before_commit,
        targets=tuple(TABLES),
        objective_seconds=20.0,
        walk_away=0.2,
    ),
    Fault(
        name="kill-after-commit",
        what="kill -9 of all replicas of a service whose commits are on disk and not yet acknowledged",
        expectation="who asks again under the same key gets the first answer; nothing is done twice",
        inject=killed_after_commit,
        targets=tuple(TABLES),
        objective_seconds=20.0,
        short=("svc_oms",),
    ),
)
