"""A server of risk for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mesh.local.provision import ServiceDatabase
from tests.integration.risk.conftest import replica, risk_database, sql
from tests.integration.risk.world import populate
from tests.wire.risk.serving import Risk, serving

__all__ = ["risk_database", "sql"]


@pytest.fixture
async def risk(risk_database: ServiceDatabase) -> AsyncIterator[Risk]:
    """Return a client of a server over a small world."""
    await populate(risk_database.owner_dsn)
    async with replica(risk_database) as stores, serving(stores) as risk:
        yield risk
