"""Counters and gauges of the mesh's Envoys, from their administration sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote

from mesh.local.edge import EDGE
from mesh.local.harness import LocalMesh

ANSWER_SECONDS = 5.0


async def edge_stats(mesh: LocalMesh, pattern: str) -> dict[str, int]:
    """Return the edge's numbers whose names match a pattern of RE2; none while it does not answer."""
    return await _stats(mesh.layout.private(EDGE) / "envoy.sock", pattern)


async def sidecar_stats(mesh: LocalMesh, instance: str, pattern: str) -> dict[str, int]:
    """Return the numbers of an instance's sidecar; none while it does not answer."""
    return await _stats(mesh.layout.private(instance) / "envoy.sock", pattern)


async def _stats(socket: Path, pattern: str) -> dict[str, int]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                filtered = quote(pattern)
                writer.write(f"GET /stats?filter={filtered} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
                answer = (await reader.read()).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return {}
    lines = (line.rpartition(": ") for line in answer.partition("\r\n\r\n")[2].splitlines())
    return {name: int(value) for name, _, value in lines if name and value.strip().isdigit()}
