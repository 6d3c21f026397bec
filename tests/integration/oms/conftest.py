from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import svc_oms
from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource, migrate
from mesh.local.provision import ServiceDatabase
from tests.integration.oms.world import FakeRisk, Replica

MIGRATIONS = [KERNEL_MIGRATIONS, MigrationSource("svc_oms", Path(svc_oms.__file__).parent / "migrations")]


@pytest.fixture
async def migrated(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a schema with the order service's tables."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


@pytest.fixture
def risk() -> FakeRisk:
    """Return a risk service that approves everything until it is told otherwise."""
    return FakeRisk()


@pytest.fixture
async def replica(migrated: ServiceDatabase, risk: FakeRisk) -> AsyncIterator[Replica]:
    """Return one replica's insides."""
    async with Replica.open(migrated.dsn, risk) as opened:
        yield opened


@pytest.fixture
async def other(migrated: ServiceDatabase, risk: FakeRisk) -> AsyncIterator[Replica]:
    """Return a second replica on the same schema."""
    async with Replica.open(migrated.dsn, risk) as opened:
        yield opened
