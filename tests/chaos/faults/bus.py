"""Redis dies, is down, stops, loses everything, and delivers twice and in another order: slower at worst, for the bus only accelerates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from mesh.local.embedded import ADDRESS_FILE
from mesh.local.parts import REDIS
from tests.chaos.fault import Fault
from tests.chaos.faults.kills import NO_CALL, killed
from tests.chaos.faults.stops import LONGER_THAN_A_LEASE, stopped
from tests.chaos.scene import Scene

TOPICS = ("oms", "risk", "custody")
PARTITIONS = 4
AGAIN = 8
TIMES = 5

# The last rounds of a topic once more, the youngest first, under numbers that its relay is about to use.
_REDELIVER = """
local last, rounds = 0, {}
for i, key in ipairs(KEYS) do
    rounds[i] = redis.call('XREVRANGE', key, '+', '-', 'COUNT', ARGV[1])
    if rounds[i][1] then last = math.max(last, tonumber(string.match(rounds[i][1][1], '%d+'))) end
end
local sent = 0
for n = 1, tonumber(ARGV[1]) do
    for i, key in ipairs(KEYS) do
        if rounds[i][n] then
            redis.call('XADD', key, (last + n) .. '-0', 'm', rounds[i][n][2][2])
            sent = sent + 1
        end
    end
end
return sent
"""


@asynccontextmanager
async def _bus(scene: Scene) -> AsyncIterator[Any]:
    client = redis.asyncio.Redis.from_url((scene.world.mesh.layout.private(REDIS) / ADDRESS_FILE).read_text().strip())
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def down(scene: Scene, target: str) -> AsyncIterator[None]:
    """Kill the server, and keep its holder from telling the supervisor until the fault is healed."""
    holder = scene.holder(target)
    holder.suspend()
    try:
        for process in scene.processes(target):
            process.kill()
        scene.note(f"{target} is down")
        yield
    finally:
        scene.await_death(target)
        holder.kill()


@asynccontextmanager
async def flushed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Empty the bus."""
    async with _bus(scene) as bus:
        assert await bus.flushall()
    yield


@asynccontextmanager
async def redelivered(scene: Scene, target: str) -> AsyncIterator[None]:
    """Publish the last rounds of a topic again and again, in the reverse order."""
    keys = [f"trademesh:bus:{target}:{partition}" for partition in range(PARTITIONS)]
    async with _bus(scene) as bus:
        sent = [await bus.eval(_REDELIVER, len(keys), *keys, AGAIN) for _ in range(TIMES)]
    assert all(sent), f"the topic {target} is empty"
    scene.note(f"{sum(sent)} messages of {target} were delivered again")
    yield


FAULTS = (
    Fault(
        name="redis-kill",
        what="kill -9 of Redis",
        expectation="no call fails; consumers read the producers' logs",
        inject=killed,
        targets=(REDIS,),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
    ),
    Fault(
        name="redis-down",
        what="Redis is away for 8 s",
        expectation="no call fails, and no limit is passed by",
        inject=down,
        targets=(REDIS,),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="redis-stop",
        what="Redis stops for 8 s, and goes on",
        expectation="no call fails, and no limit is passed by",
        inject=stopped,
        targets=(REDIS,),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        hold_seconds=LONGER_THAN_A_LEASE,
    ),
    Fault(
        name="redis-flush",
        what="Redis loses everything",
        expectation="no call fails; consumers notice the gap and read the producers' logs",
        inject=flushed,
        targets=(REDIS,),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
    ),
    Fault(
        name="redelivery",
        what="the bus delivers the last rounds of a topic five times more, in the reverse order",
        expectation="every event counts once",
        inject=redelivered,
        targets=TOPICS,
        objective_seconds=1.0,
        unnoticed=NO_CALL,
    ),
)
