"""A client of the session's mesh for each test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from mesh.local.harness import LocalMesh
from tests.e2e.edge.client import Client

_CLOSE_SECONDS_MAX = 10.0


@asynccontextmanager
async def _hanging_up() -> AsyncIterator[aiohttp.TCPConnector]:
    """Give connections that end with the block: closing one in TLS waits for a goodbye that comes after all the edge has left to say."""
    opened: list[socket.socket] = []

    def open_one(address: aiohttp.AddrInfoType) -> socket.socket:
        opened.append(socket.socket(*address[:3]))
        return opened[-1]

    yield aiohttp.TCPConnector(socket_factory=open_one)
    for one in opened:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    async with asyncio.timeout(_CLOSE_SECONDS_MAX):
        while any(one.fileno() != -1 for one in opened):
            await asyncio.sleep(0.01)


@pytest.fixture
async def client(mesh: LocalMesh) -> AsyncIterator[Client]:
    """Return a client at the edge of the running mesh."""
    mesh.await_ready()
    limit = aiohttp.ClientTimeout(total=30)
    async with _hanging_up() as connector, aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        yield Client(mesh, session)
