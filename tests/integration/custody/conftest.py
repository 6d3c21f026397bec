"""A migrated schema of custody on a real PostgreSQL, and replicas on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from kernel.postgres import Database, migrate
from mesh.local.provision import ServiceDatabase
from svc_custody.store import MIGRATIONS
from tests.integration.custody.world import Custodian, Orders, Reference


@pytest.fixture
async def custody_database(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a fresh schema with everything that custody needs in it."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


@asynccontextmanager
async def replica(
    database: ServiceDatabase, orders: Orders, reference: Reference, *, affirm_seconds: float = 0
) -> AsyncIterator[Custodian]:
    """Run one replica's stores, with a pool of its own."""
    pool = await Database.open(database.dsn)
    custodian = Custodian(pool, orders, reference, affirm_seconds=affirm_seconds)
    try:
        await custodian.begin()
        yield custodian
    finally:
        await custodian.stores.log.close()
        await pool.close()


@pytest.fixture
def orders() -> Orders:
    """Return svc_oms's log, empty."""
    return Orders()


@pytest.fixture
def reference() -> Reference:
    """Return svc_risk's log, with two accounts, a share and a crypto asset."""
    log = Reference()
    for account_id in ("ACC-1", "ACC-2"):
        log.account(account_id)
    log.instrument("AAPL")
    log.instrument("BTC-USD", crypto=True)
    return log


@pytest.fixture
async def custody(custody_database: ServiceDatabase, orders: Orders, reference: Reference) -> AsyncIterator[Custodian]:
    """Return one replica that knows accounts and instruments."""
    async with replica(custody_database, orders, reference) as custodian:
        await custodian.learn()
        yield custodian


@pytest.fixture
async def other(custody_database: ServiceDatabase, orders: Orders, reference: Reference) -> AsyncIterator[Custodian]:
    """Return another replica on the same schema."""
    async with replica(custody_database, orders, reference) as custodian:
        yield custodian


@pytest.fixture
async def sql(custody_database: ServiceDatabase) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Return a connection of the runtime role, to look and to meddle as the service could."""
    connection = await asyncpg.connect(custody_database.dsn.reveal())
    yield connection
    await connection.close()
