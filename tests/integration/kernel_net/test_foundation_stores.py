"""What a replica with a schema stands on, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from kernel.bus.memory import MemoryBus
from kernel.config import Dsn
from kernel.errors import UnavailableError
from kernel.events.postgres import PostgresEventStore
from kernel.foundation import foundation
from kernel.foundation_stores import database_answers, open_database, told
from kernel.lease import PostgresLeases
from kernel.postgres import KERNEL_MIGRATIONS, MigrationError, migrate
from kernel.telemetry import Sample
from mesh.local.provision import ServiceDatabase
from tests.contract.kernel_net.worlds import record, until
from tests.unit.kernel_net.replicas import Replica
from tests.wire.serving import kept_logging

MIGRATIONS = (KERNEL_MIGRATIONS,)
BREAKER = {"breaker_state", "breaker_openings_total", "breaker_refusals_total"}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Replica]:
    """Return a replica; the process's logging is as it was at the end."""
    with kept_logging():
        yield Replica(tmp_path / "x.sock")


async def test_a_schema_that_is_not_there_refuses_the_start(service_database: ServiceDatabase, config: Replica) -> None:
    with pytest.raises(MigrationError):
        async with foundation("svc-x", config) as base:
            await open_database(base, service_database.dsn, MIGRATIONS)


async def test_a_server_that_is_not_there_is_unavailable(config: Replica) -> None:
    with pytest.raises(UnavailableError):
        async with foundation("svc-x", config) as base:
            await open_database(base, Dsn("postgresql://nobody:x@127.0.0.1:1/none"), MIGRATIONS)


async def test_a_pool_answers_under_the_replicas_name_until_the_end(service_database: ServiceDatabase, config: Replica) -> None:
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    async with foundation("svc-x", config) as base:
        database = await open_database(base, service_database.dsn, MIGRATIONS)
        ready = database_answers(database)
        assert await ready()
        assert await database.fetchval("SELECT current_setting('application_name')") == config.instance
    with pytest.raises(UnavailableError):
        await ready()


async def test_the_log_is_told_to_the_bus_where_there_is_one(service_database: ServiceDatabase, config: Replica) -> None:
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    bus = MemoryBus()
    async with foundation("svc-x", config) as base:
        database = await open_database(base, service_database.dsn, MIGRATIONS)
        log = PostgresEventStore(database)
        base.closing(log.close)
        leases = PostgresLeases(database, base.clock, base.ids.new_id())
        assert told(base, "x", log, None, database, leases) == []
        assert {sample.name for sample in base.telemetry.metrics.collect()} == BREAKER
        (work,) = told(base, "x", log, bus, database, leases)
        relaying = asyncio.create_task(work)
        await record(log, 3)
        await until(lambda: _published(base.telemetry.metrics.collect()) == 6)
        relaying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await relaying
        assert await bus.last_sequence("x") >= 1


def _published(samples: Iterable[Sample]) -> float:
    return next(sample.value for sample in samples if sample.name == "relay_published_events_total")
