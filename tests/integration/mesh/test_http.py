"""The port beside gRPC's: HTTP/1.1 to the gateway service, for the edge alone, sockets included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kernel.identity import PEER_HEADER, SECRET_HEADER
from tests.integration.mesh.world import World, running

AUTHORITY = "svc-gateway.trading.svc.cluster.local:8080"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "m", {"svc_gateway": ["svc_gateway-0"], "svc_oms": ["svc_oms-0"], "edge": ["edge-0"]}) as started:
        yield started


@asynccontextmanager
async def echo(socket: Path) -> AsyncIterator[list[str]]:
    """Serve sockets that send back what they get; yield the heads of the requests."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        while data := await reader.read(1_000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_unix_server(serve, socket)
    try:
        yield heads
    finally:
        server.close()


async def ask(world: World, instance: str, *, more: str = "") -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request through an instance's sidecar; return the status line and the connection."""
    reader, writer = await asyncio.open_unix_connection(str(world.proxy(instance).egress_socket))
    writer.write(f"GET /v1/stream HTTP/1.1\r\nhost: {AUTHORITY}\r\n{more}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    return head.splitlines()[0], reader, writer


async def test_the_edge_opens_a_socket_at_the_gateway(world: World) -> None:
    async with echo(world.proxy("svc_gateway-0").applications[8080]) as heads:
        status, reader, writer = await ask(world, "edge-0", more="connection: upgrade\r\nupgrade: websocket\r\n")
        assert status == "HTTP/1.1 101 Switching Protocols"
        writer.write(b"frame")
        assert await reader.readexactly(5) == b"frame"
        writer.close()
        await writer.wait_closed()
    [head] = [item.lower() for item in heads]
    assert f"{SECRET_HEADER}: {world.proxy('svc_gateway-0').secret}".lower() in head
    assert head.count(f"{PEER_HEADER}:") == 1
    assert "sa/edge" in head


async def test_no_service_gets_to_the_gateways_port(world: World) -> None:
    async with echo(world.proxy("svc_gateway-0").applications[8080]) as heads:
        status, _, writer = await ask(world, "svc_oms-0")
        assert status.startswith("HTTP/1.1 502")
        writer.close()
        await writer.wait_closed()
    assert not heads
