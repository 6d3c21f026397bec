"""What a replica with a schema of its own stands on besides `kernel.foundation`: the database, the bus, the relay, projections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from kernel.bus.port import BusPublisher
from kernel.bus.redis_streams import RedisStreamsBus
from kernel.config import Dsn
from kernel.consumer import Projection, ProjectionStoppedError
from kernel.foundation import Foundation
from kernel.lease import PostgresLeases
from kernel.ports import EventReader
from kernel.postgres import Database, MigrationSource, PoolSettings, verify
from kernel.relay import PostgresRelayMemory, Relay


async def open_database(base: Foundation, dsn: Dsn, migrations: Sequence[MigrationSource]) -> Database:
    """Return the replica's pool, once the schema is what its code expects; it is closed at the end.

    Raises:
        MigrationError: the schema is not there, or another.
        UnavailableError: the server does not answer or does not let us in.
    """
    await verify(dsn, migrations)
    database = await Database.open(dsn, PoolSettings(application_name=base.config.instance))
    base.closing(database.close)
    base.telemetry.metrics.source(database.breaker.samples)
    return database


def database_answers(database: Database) -> Callable[[], Awaitable[bool]]:
    """Return the readiness of a service that needs its own database and nobody else."""

    async def ready() -> bool:
        return bool(await database.fetchval("SELECT true"))

    return ready


def open_bus(base: Foundation, url: Dsn | None) -> RedisStreamsBus | None:
    """Return the bus, closed at the end; None where none is configured, and readers of logs poll."""
    if url is None:
        return None
    bus = RedisStreamsBus(url)
    base.closing(bus.close)
    return bus


def followed(base: Foundation, projection: Projection) -> Coroutine[Any, Any, None]:
    """Return the work of a projection, and show its metrics.

    One that met an event that it cannot apply stays stopped, and says so by metric and log. The service goes on, on what is applied.
    """
    base.telemetry.metrics.source(projection.samples)
    return _until_cancelled(projection)


async def _until_cancelled(projection: Projection) -> None:
    with contextlib.suppress(ProjectionStoppedError):
        await projection.run()
    await asyncio.Event().wait()


def told(
    base: Foundation, topic: str, log: EventReader, bus: BusPublisher | None, database: Database, leases: PostgresLeases
) -> list[Coroutine[Any, Any, None]]:
    """Return the work of telling the service's own log to the bus, in one replica at a time, and show its metrics; none without a bus."""
    if bus is None:
        return []
    relay = Relay(topic, log, bus, PostgresRelayMemory(database, leases), leases, base.clock)
    base.telemetry.metrics.source(relay.samples)
    return [relay.run()]
