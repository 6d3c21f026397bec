"""Two databases that two replicas stand on: both on PostgreSQL, or both on the double that simulations run on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kernel.postgres import Database, MigrationSource, migrate
from mesh.local.provision import ServiceDatabase
from tests.fakes.postgres.driver import MemoryDatabase
from tests.fakes.postgres.server import MemoryPostgres


async def two_databases(request: pytest.FixtureRequest, double: MemoryPostgres, migrations: Sequence[MigrationSource]) -> list[Database]:
    """Return connections to one server of the kind that the fixture's parameter names; the caller closes them."""
    if request.param == "double":
        return [MemoryDatabase(double), MemoryDatabase(double)]
    # Asked for here, so that the double's half needs no server.
    service: ServiceDatabase = request.getfixturevalue("service_database")
    await migrate(service.owner_dsn, service.role, migrations)
    return [await Database.open(service.dsn), await Database.open(service.dsn)]
