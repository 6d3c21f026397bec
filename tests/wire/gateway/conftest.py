"""A world for each test, and one replica in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.wire.gateway.world import Replica, World, world


@pytest.fixture
async def gateway_world() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
async def replica(gateway_world: World) -> Replica:
    return await gateway_world.replica()
