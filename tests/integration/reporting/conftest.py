"""A migrated schema of reporting on a real PostgreSQL, and two replicas on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from kernel.postgres import migrate
from mesh.local.provision import ServiceDatabase
from svc_reporting.store import MIGRATIONS
from tests.integration.reporting.replica import Replica, replica


@pytest.fixture
async def reporting_database(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a fresh schema with everything that reporting needs in it."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


@pytest.fixture
async def one(reporting_database: ServiceDatabase) -> AsyncIterator[Replica]:
    """Return one replica."""
    async with replica(reporting_database.dsn) as found:
        yield found


@pytest.fixture
async def other(reporting_database: ServiceDatabase) -> AsyncIterator[Replica]:
    """Return another replica on the same schema."""
    async with replica(reporting_database.dsn) as found:
        yield found


@pytest.fixture
async def sql(reporting_database: ServiceDatabase) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Return a connection of the schema's owner, to look and to meddle."""
    connection = await asyncpg.connect(reporting_database.owner_dsn.reveal())
    yield connection
    await connection.close()
