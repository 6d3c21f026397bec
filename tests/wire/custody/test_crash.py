"""A replica as a process of its own, killed with SIGKILL while it folds and settles: positions, ledger and events agree all the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.local.provision import ServiceDatabase
from tests.integration.custody.audit import audit
from tests.integration.custody.conftest import replica
from tests.integration.custody.test_replicas import net, trade
from tests.integration.custody.world import AAPL, USD, Custodian, Orders, Reference
from tests.wire.custody.test_replica import environment_of, upstream

pytestmark = pytest.mark.processes

KILLS = 3


@contextlib.asynccontextmanager
async def process(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m svc_custody` until the block ends, then kill it."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svc_custody", env={**os.environ, **environment}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.send_signal(signal.SIGKILL)
        await started.wait()


async def folded(custody: Custodian) -> int:
    """Return how many executions have counted."""
    return int(await custody.stores.database.fetchval("SELECT count(*) FROM execution"))


async def test_a_killed_process_loses_and_repeats_nothing(
    custody_database: ServiceDatabase, orders: Orders, reference: Reference, sockets: Path
) -> None:
    dice = random.Random(7)
    async with contextlib.AsyncExitStack() as stack:
        custody = await stack.enter_async_context(replica(custody_database, orders, reference))
        targets = [
            await stack.enter_async_context(upstream(log, name, sockets)) for log, name in ((orders, "svc-oms"), (reference, "svc-risk"))
        ]
        more = {"TRADEMESH_AFFIRM_SECONDS": "0"}
        environment = environment_of("svc_custody-0", custody_database, sockets, *targets, **more)
        for account_id in ("ACC-1", "ACC-2"):
            await custody.deposit(USD, "3000", account_id)
            await custody.deposit(AAPL, "30", account_id)
        for kill in range(KILLS):
            before = await folded(custody)
            trade(orders, seed=kill)
            async with process(environment) as running, asyncio.timeout(40):
                # Until it has got somewhere into what is new, or a little beyond.
                while await folded(custody) < before + dice.randint(1, 60):
                    assert running.returncode is None
                    await asyncio.sleep(dice.random() * 0.02)
        async with process(environment), asyncio.timeout(40):
            while await custody.stores.projections.load("executions", "oms") < orders.events[-1].position:
                await asyncio.sleep(0.05)
        positions = await audit(custody)
        for account_id in ("ACC-1", "ACC-2"):
            shares, money = net(orders, account_id)
            assert positions.get((account_id, 2, "AAPL"), 0) == shares + 30
            assert positions.get((account_id, 1, "USD"), 0) == money + 3000
