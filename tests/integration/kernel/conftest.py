from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from kernel.events.postgres import PostgresEventStore
from kernel.postgres import KERNEL_MIGRATIONS, Database, migrate
from mesh.local.provision import ServiceDatabase


@pytest.fixture
async def migrated(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a schema with the kernel's tables."""
    await migrate(service_database.owner_dsn, service_database.role, [KERNEL_MIGRATIONS])
    return service_database


@pytest.fixture
async def database(migrated: ServiceDatabase) -> AsyncIterator[Database]:
    database = await Database.open(migrated.dsn)
    yield database
    await database.close()


@pytest.fixture
async def event_store(database: Database) -> AsyncIterator[PostgresEventStore]:
    store = PostgresEventStore(database)
    yield store
    await store.close()


@pytest.fixture
async def session(migrated: ServiceDatabase) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Return a bare connection as the runtime role."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(migrated.dsn.reveal())
    yield connection
    connection.terminate()
