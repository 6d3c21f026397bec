"""The parts that services stand on die in the middle of something: the venue, PostgreSQL, the bus; and a replica sleeps too long."""

from __future__ import annotations

import asyncio
import signal

import pytest
import redis.asyncio

from mesh.local.embedded import ADDRESS_FILE
from mesh.local.parts import EXCHANGE, POSTGRES, REDIS
from tests.e2e.crash import strike
from tests.e2e.crash.client import Clients
from tests.e2e.crash.load import Command, Load
from tests.e2e.crash.verdict import verified
from tests.e2e.crash.world import TRADER, World, world

pytestmark = pytest.mark.e2e


async def _mixed(running: World, load: Load) -> list[Command]:
    return load.orders(600) + load.changes(await strike.resting(running), 400)


async def test_the_exchange_dies_mid_flow_and_again_with_orders_in_its_inbox() -> None:
    with world() as running:
        load = Load(running.random, "venue")
        async with Clients(running.mesh, TRADER, running.random) as clients:
            await clients.enter(load.orders(800))
            killed = await strike.in_the_middle(running, clients, await _mixed(running, load), lambda: running.kill(EXCHANGE))
            await running.restarted(killed)
            await running.settled()

            # It reads nothing any more, so what is sent now is lost with it: sent, and unknown until it is back.
            entering = asyncio.create_task(
                strike.in_the_middle(running, clients, await _mixed(running, load), lambda: running.kill(EXCHANGE, number=signal.SIGSTOP))
            )
            await running.until(lambda: _some_unknown(running), timeout_seconds=40.0)
            killed = running.kill(EXCHANGE)
            await strike.gathered(entering)
            await running.restarted(killed)
            evidence = await verified(running, clients)
    assert any(history.was_unknown for history in evidence.orders.histories.values())


async def test_postgresql_dies_mid_flow() -> None:
    with world() as running:
        load = Load(running.random, "postgres")
        async with Clients(running.mesh, TRADER, running.random) as clients:
            await clients.enter(load.orders(800))
            killed = await strike.in_the_middle(running, clients, await _mixed(running, load), lambda: running.kill(POSTGRES))
            await running.restarted(killed)
            await verified(running, clients)


async def test_a_replica_sleeps_through_its_lease_and_writes_nothing_afterwards() -> None:
    with world() as running:
        load = Load(running.random, "lease")
        async with Clients(running.mesh, TRADER, running.random) as clients:
            await clients.enter(load.orders(800))
            sleeper, epoch = strike.venue_owner(running), await strike.venue_epoch(running)
            entering = asyncio.create_task(
                strike.in_the_middle(running, clients, await _mixed(running, load), lambda: running.kill(sleeper, number=signal.SIGSTOP))
            )
            await running.until(lambda: _taken_over(running, epoch), timeout_seconds=40.0)
            running.kill(sleeper, number=signal.SIGCONT)
            await strike.gathered(entering)
            # Anything that it still sent would show: an order at the venue twice, a number given twice, an order sent and not recorded.
            await verified(running, clients)


async def test_the_bus_is_emptied_and_killed_mid_flow() -> None:
    with world() as running:
        load = Load(running.random, "bus")
        async with Clients(running.mesh, TRADER, running.random) as clients:
            await clients.enter(load.orders(800))
            address = (running.mesh.layout.private(REDIS) / ADDRESS_FILE).read_text().strip()
            commands = await _mixed(running, load)
            await strike.gathered(await strike.in_the_middle(running, clients, commands, lambda: asyncio.create_task(_flush(address))))
            await running.settled()
            killed = await strike.in_the_middle(running, clients, await _mixed(running, load), lambda: running.kill(REDIS))
            await running.restarted(killed)
            await verified(running, clients)


async def _some_unknown(running: World) -> bool:
    return bool((await running.sql("SELECT count(*) FROM svc_oms.orders WHERE state = 11"))[0][0])


async def _taken_over(running: World, epoch: int) -> bool:
    return await strike.venue_epoch(running) > epoch


async def _flush(address: str) -> None:
    bus = redis.asyncio.Redis.from_url(address)
    try:
        assert await bus.flushall()
    finally:
        await bus.aclose()
