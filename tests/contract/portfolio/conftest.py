"""Two replicas of portfolio's stores on one PostgreSQL, and a svc_oms and a svc_risk made of events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest

from kernel.clock import SystemClock
from kernel.ids import Uuid7Source
from kernel.ports import HeldLease, RecordedEvent
from kernel.postgres import Database, migrate
from mesh.local.provision import ServiceDatabase
from svc_portfolio.consumer.executions import execution_model
from svc_portfolio.consumer.reference import NAME, SOURCE, reference_model
from svc_portfolio.main import Stores, open_stores
from svc_portfolio.store import MIGRATIONS
from svc_portfolio.store import reads as names


class Replica(NamedTuple):
    """One replica's stores, and its way to be told."""

    stores: Stores

    async def lead(self, projection: str = names.PROJECTION, source: str = names.SOURCE) -> HeldLease:
        """Take the lease of a projection."""
        lease = await self.stores.leases.acquire(f"projection:{projection}:{source}")
        assert lease is not None
        return lease

    async def follow(self, lease: HeldLease, *events: RecordedEvent) -> int:
        """Apply a round of svc_oms's log."""
        model = execution_model(self.stores.positions)
        return await self.stores.projections.apply(lease, names.PROJECTION, names.SOURCE, events[-1].position, events, model)

    async def refer(self, *events: RecordedEvent) -> int:
        """Apply a round of svc_risk's log."""
        lease = await self.lead(NAME, SOURCE)
        applied = await self.stores.projections.apply(
            lease, NAME, SOURCE, events[-1].position, events, reference_model(self.stores.reference)
        )
        await self.stores.leases.release(lease)
        return applied


class Pair(NamedTuple):
    """Two replicas on one schema."""

    one: Replica
    other: Replica


@pytest.fixture
async def portfolio_database(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a fresh schema with everything that portfolio needs in it."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


@pytest.fixture
async def pair(portfolio_database: ServiceDatabase) -> AsyncIterator[Pair]:
    """Return both replicas."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(2):
            database = await Database.open(portfolio_database.dsn)
            stack.push_async_callback(database.close)
            replicas.append(Replica(open_stores(database, clock, Uuid7Source(clock).new_id())))
            stack.push_async_callback(replicas[-1].stores.log.close)
        yield Pair(*replicas)
