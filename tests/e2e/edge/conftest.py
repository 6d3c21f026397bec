"""A client of the session's mesh for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from mesh.local.harness import LocalMesh
from tests.e2e.edge.client import Client


@pytest.fixture
async def client(mesh: LocalMesh) -> AsyncIterator[Client]:
    """Return a client at the edge of the running mesh."""
    mesh.await_ready()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Client(mesh, session)
