"""A migrated schema of risk on a real PostgreSQL, and pools on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kernel.postgres import Database, migrate
from mesh.local.provision import ServiceDatabase
from svc_risk.store import MIGRATIONS


@pytest.fixture
async def risk_database(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a fresh schema with everything that risk needs in it."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


@pytest.fixture
async def database(risk_database: ServiceDatabase) -> AsyncIterator[Database]:
    """Return one replica's pool."""
    database = await Database.open(risk_database.dsn)
    yield database
    await database.close()
