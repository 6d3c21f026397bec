"""Every store that keeps the `EventStore` contract, under one name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from kernel.clock import SystemClock
from kernel.events.memory import MemoryEventStore
from kernel.events.postgres import PostgresEventStore
from kernel.ports import EventStore
from kernel.postgres import KERNEL_MIGRATIONS, Database, migrate
from mesh.local.provision import ServiceDatabase
from tests.fakes.postgres.driver import MemoryDatabase
from tests.fakes.postgres.kernel_statements import STATEMENTS, TABLES
from tests.fakes.postgres.server import MemoryPostgres


@pytest.fixture(params=["memory", "double", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield MemoryEventStore(SystemClock())
        return
    if request.param == "double":
        server = MemoryPostgres(TABLES, STATEMENTS, lambda: datetime.now(UTC), lambda: 0.0)
        double = PostgresEventStore(MemoryDatabase(server))
        yield double
        await double.close()
        return
    # Asked for here, so that the memory half needs no server.
    service: ServiceDatabase = request.getfixturevalue("service_database")
    await migrate(service.owner_dsn, service.role, [KERNEL_MIGRATIONS])
    database = await Database.open(service.dsn)
    store = PostgresEventStore(database)
    yield store
    await store.close()
    await database.close()
