"""A migrated schema of market data on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kernel.postgres import Database, migrate
from mesh.local.provision import ServiceDatabase
from svc_marketdata.store import MIGRATIONS


@pytest.fixture
async def market_database(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a fresh schema with everything that market data needs in it."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


@pytest.fixture
async def database(market_database: ServiceDatabase) -> AsyncIterator[Database]:
    """Return a pool of one replica."""
    database = await Database.open(market_database.dsn)
    yield database
    await database.close()
