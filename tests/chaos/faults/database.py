"""PostgreSQL dies, restarts, loses a backend, stops; and everything dies at once."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.local.parts import POSTGRES
from tests.chaos.fault import Fault
from tests.chaos.faults.kills import killed
from tests.chaos.faults.stops import LONGER_THAN_A_LEASE, stopped
from tests.chaos.scene import Scene

EVERYTHING = "everything"

_BACKEND = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1 ORDER BY state = 'active' DESC, pid LIMIT 1"


@asynccontextmanager
async def restarted(scene: Scene, target: str) -> AsyncIterator[None]:
    """Have the server cut its sessions and end (fast shutdown); the supervisor starts it again."""
    scene.kill(target, number=signal.SIGINT)
    yield


@asynccontextmanager
async def backend_killed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill one backend of the service, upon which the server ends all others and recovers by itself."""
    pid = (await scene.world.sql(_BACKEND, f"{target}-%"))[0][0]
    (backend,) = (process for process in scene.processes(POSTGRES) if process.pid == pid)
    backend.kill()
    scene.note(f"SIGKILL to a backend of {target}")
    yield


@asynccontextmanager
async def everything_killed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill every process of the mesh but its supervisor, as a machine that fails does."""
    scene.kill(*(item.name for item in scene.world.mesh.report.instances if item.pid is not None))
    yield


FAULTS = (
    Fault(
        name="postgres-kill",
        what="kill -9 of PostgreSQL",
        expectation="nothing acknowledged is lost; a commit whose fate was not heard is asked for by its number",
        inject=killed,
        targets=(POSTGRES,),
        objective_seconds=15.0,
        short=(POSTGRES,),
    ),
    Fault(
        name="postgres-restart",
        what="PostgreSQL restarts (fast shutdown)",
        expectation="as of a crash, sooner",
        inject=restarted,
        targets=(POSTGRES,),
        objective_seconds=15.0,
    ),
    Fault(
        name="postgres-backend-kill",
        what="kill -9 of one backend, so that the server ends all sessions and recovers in place",
        expectation="as of a crash",
        inject=backend_killed,
        targets=("svc_oms", "svc_risk"),
        objective_seconds=10.0,
    ),
    Fault(
        name="postgres-stop",
        what="PostgreSQL, all of its processes, stops for 8 s and goes on",
        expectation="commits of unknown fate are asked for by their number; leases that ran out are not used",
        inject=stopped,
        targets=(POSTGRES,),
        objective_seconds=20.0,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="everything-kill",
        what="kill -9 of every process of the mesh at once",
        expectation="what was acknowledged is there when all are back",
        inject=everything_killed,
        targets=(EVERYTHING,),
        objective_seconds=60.0,
    ),
)
