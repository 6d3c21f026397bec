"""The blows: what happens to a mesh while clients are in the middle of something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import psutil

from tests.e2e.crash.client import Clients
from tests.e2e.crash.load import Command
from tests.e2e.crash.world import World
from trademesh.oms.v1 import order_pb2

T = TypeVar("T")

_WITHOUT_ORDER = """
SELECT count(*) FROM svc_risk.reservation r
WHERE r.status = 1 AND NOT EXISTS (SELECT FROM svc_oms.orders o WHERE o.order_id = r.order_id::text)
"""
_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE $1 AND wait_event_type = 'Lock' AND backend_start < $2
"""


async def resting(world: World) -> list[order_pb2.Order]:
    """Return the orders that are open now."""
    rows = await world.sql("SELECT snapshot FROM svc_oms.orders WHERE open ORDER BY order_id")
    return [order_pb2.Order.FromString(row["snapshot"]) for row in rows]


async def in_the_middle(world: World, clients: Clients, commands: Iterable[Command], blow: Callable[[], T]) -> T:
    """Enter commands, strike at the answer that the seed draws, between a tenth and a half of them all, and return what the blow returned.

    Raises:
        TimeoutError: a patient client has no answer.
    """
    entered, struck = list(commands), list[T]()
    left = world.random.randrange(len(entered) // 10, len(entered) // 2)
    world.note(f"{len(entered)} commands, struck at answer {left}")

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            struck.append(blow())

    clients.on_answer = count
    try:
        await clients.enter(entered)
    finally:
        clients.on_answer = _nothing
    world.note("all answered")
    return struck[0]


@asynccontextmanager
async def commits_held(world: World, table: str = "svc_oms.event") -> AsyncIterator[None]:
    """Keep a service from writing to a table, and at the end wait until whoever waited to has given up: its commit never happens."""
    async with world.database() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        try:
            yield
            now = await connection.fetchval("SELECT clock_timestamp()")

            async def given_up() -> bool:
                return not await held_commits(world, table, now)

            await world.until(given_up, timeout_seconds=15.0)
        finally:
            await transaction.rollback()


async def held_commits(world: World, table: str, before: datetime) -> int:
    """Return how many backends of the table's service, of those that began before then, wait for a lock."""
    service = table.partition(".")[0]
    count: int = (await world.sql(_WAITING, f"{service}-%", before))[0][0]
    return count


async def reserved_without_order(world: World) -> int:
    """Return how many reservations stand for orders that are not on disk."""
    count: int = (await world.sql(_WITHOUT_ORDER))[0][0]
    return count


def venue_owner(world: World) -> str:
    """Return the replica of the order service that holds the connection to the venue, as the kernel sees it."""
    port = int(world.mesh.instance("exchange").address.rpartition(":")[2])
    owners = [
        instance.name
        for instance in world.mesh.instances("svc_oms")
        for connection in psutil.Process(instance.pid).net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == port
    ]
    assert len(owners) == 1, f"connected to the venue: {owners}"
    return owners[0]


async def venue_epoch(world: World) -> int:
    """Return the fencing epoch of the venue session's lease."""
    epoch: int = (await world.sql("SELECT epoch FROM svc_oms.lease WHERE name LIKE 'venue-session/%'"))[0][0]
    return epoch


async def gathered(*tasks: asyncio.Task[Any]) -> None:
    """Wait for tasks; if one fails, end the others."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _nothing() -> None:
    return
