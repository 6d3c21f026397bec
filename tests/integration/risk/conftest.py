"""A migrated schema of risk on a real PostgreSQL, and replicas on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from kernel.clock import SystemClock
from kernel.ids import Uuid7Source
from kernel.postgres import Database, migrate
from mesh.local.provision import ServiceDatabase
from svc_risk.main import Stores, open_stores
from svc_risk.store import MIGRATIONS


@pytest.fixture
async def risk_database(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a fresh schema with everything that risk needs in it."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


@asynccontextmanager
async def replica(database: ServiceDatabase) -> AsyncIterator[Stores]:
    """Run the stores of one replica, with a pool of its own."""
    clock = SystemClock()
    pool = await Database.open(database.dsn)
    stores = open_stores(pool, clock, Uuid7Source(clock).new_id())
    try:
        yield stores
    finally:
        await stores.log.close()
        await pool.close()


@pytest.fixture
async def stores(risk_database: ServiceDatabase) -> AsyncIterator[Stores]:
    """Return one replica."""
    async with replica(risk_database) as stores:
        yield stores


@pytest.fixture
async def other(risk_database: ServiceDatabase) -> AsyncIterator[Stores]:
    """Return another replica on the same schema."""
    async with replica(risk_database) as stores:
        yield stores


@pytest.fixture
async def sql(risk_database: ServiceDatabase) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Return a connection of the schema's owner, to look and to meddle."""
    connection = await asyncpg.connect(risk_database.owner_dsn.reveal())
    yield connection
    await connection.close()
