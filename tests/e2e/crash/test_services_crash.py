"""Both replicas of a service die at once, in the middle of orders, cancels and replaces: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import functools
from datetime import timedelta

import pytest

from tests.e2e.crash import strike
from tests.e2e.crash.audit import orphans
from tests.e2e.crash.client import Clients
from tests.e2e.crash.load import Command, Load
from tests.e2e.crash.risk_record import Reservation
from tests.e2e.crash.verdict import Evidence, verified
from tests.e2e.crash.world import TRADER, World, world

pytestmark = pytest.mark.e2e

OMS = ("svc_oms-0", "svc_oms-1")
RISK = ("svc_risk-0", "svc_risk-1")
ORPHAN_BOUND = timedelta(seconds=30)
"""After which a reservation without an order is settled; the shortest that svc_risk takes."""
SWEEP_SLACK = timedelta(seconds=25)
"""A sweep every five seconds, after a lease of six has run out, on a busy machine."""


async def test_ten_thousand_orders_and_every_replica_killed_in_the_middle_of_more() -> None:
    with world() as running:
        load = Load(running.random, "load")
        async with Clients(running.mesh, TRADER, running.random) as clients:
            await clients.enter(load.orders(10_000))
            running.note("10,000 orders answered")
            assert len(clients.ledger.answers) == 10_000

            for replicas in (OMS, RISK):
                blow = functools.partial(running.kill, *replicas)
                killed = await strike.in_the_middle(running, clients, await _mixed(running, load), blow)
                await running.restarted(killed)

            # Once more where it hurts most: risk has reserved, and the commit that would record the orders never happens.
            async with strike.commits_held(running):
                entering = asyncio.create_task(clients.enter(load.orders(400, walk_away=0.3), only_batches=True))
                await running.until(lambda: _many_reserved(running), timeout_seconds=20.0)
                killed = running.kill(*OMS)
            await strike.gathered(entering)
            await running.restarted(killed)

            evidence = await verified(running, clients, timeout_seconds=90.0)
    given_up = orphans(evidence.orders, evidence.risk)
    assert given_up, "no client walked away from a reservation"
    _released_in_time(evidence, given_up)


async def _mixed(running: World, load: Load) -> list[Command]:
    """A thousand commands; one client in ten asks once and walks away. Some replaces race, on a few orders."""
    resting = await strike.resting(running)
    changes = load.changes(resting, 300, walk_away=0.1) + load.changes(resting[:50], 100, replace_twice=True)
    return load.orders(600, walk_away=0.1) + changes


async def _many_reserved(running: World) -> bool:
    return await strike.reserved_without_order(running) >= 50


def _released_in_time(evidence: Evidence, given_up: list[Reservation]) -> None:
    """Whatever never became an order was given up by svc_oms, and released by risk soon after the bound."""
    released = {
        entry.delta.order_id: entry.recorded_at
        for log in evidence.risk.log.values()
        for entry in log
        if entry.delta is not None and entry.type == "risk.v1.ExposureReleased" and entry.message.cause == "oms.v1.OrderAbandoned"
    }
    for orphan in given_up:
        held = released[orphan.order_id] - orphan.reserved_at
        assert ORPHAN_BOUND <= held <= ORPHAN_BOUND + SWEEP_SLACK, f"{orphan.order_id} was held for {held}"
