"""A client of the session's mesh for each test."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from mesh.local.harness import LocalMesh
from tests.e2e.edge.client import Client


@pytest.fixture(autouse=True)
def goodbyes() -> Iterator[None]:
    """Let connections that the loop's end has cut in their TLS goodbye be noticed here, where that is expected, and not in a later test."""
    yield
    gc.collect()


@pytest.fixture
async def client(mesh: LocalMesh) -> AsyncIterator[Client]:
    """Return a client at the edge of the running mesh."""
    mesh.await_ready()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Client(mesh, session)
