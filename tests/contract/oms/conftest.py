"""Two replicas of the order service's stores on one database: PostgreSQL, and the double that simulations run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

import svc_oms
from kernel.events.postgres import PostgresEventStore
from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource
from tests.contract.replicas import two_databases
from tests.fakes.postgres.oms_statements import oms_server
from tests.integration.oms.world import FakeRisk, Replica

MIGRATIONS = [KERNEL_MIGRATIONS, MigrationSource("svc_oms", Path(svc_oms.__file__).parent / "migrations")]


class Pair(NamedTuple):
    """Two replicas, and the risk service that both ask."""

    one: Replica
    other: Replica
    risk: FakeRisk


@pytest.fixture(params=["double", "postgres"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Return both replicas."""
    risk = FakeRisk()
    async with AsyncExitStack() as stack:
        replicas = []
        for database in await two_databases(request, oms_server(lambda: datetime.now(UTC), lambda: 0.0), MIGRATIONS):
            log = PostgresEventStore(database)
            replicas.append(Replica(database, log, risk))
            stack.push_async_callback(database.close)
            stack.push_async_callback(log.close)
            stack.push_async_callback(replicas[-1].lanes.close)
        yield Pair(replicas[0], replicas[1], risk)
