"""A server of market data for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kernel.postgres import Database
from tests.integration.marketdata.conftest import database, market_database
from tests.wire.marketdata.serving import World, serving

__all__ = ["database", "market_database"]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """Return a running server, its feed and a client."""
    async with serving(database) as world:
        yield world
