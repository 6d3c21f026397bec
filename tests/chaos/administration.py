"""The administration of the mesh's Envoys: HTTP over a UNIX socket in the private directory of whoever has one."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from typing import Any

from mesh.local.harness import LocalMesh

ANSWER_SECONDS_MAX = 5.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=ANSWER_SECONDS_MAX)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_SECONDS_MAX)
        self.sock.connect(str(self._path))


async def asked(mesh: LocalMesh, name: str, path: str) -> Any:
    """Return what the Envoy of a workload, an instance or the edge, answers for a path: a JSON value.

    Raises:
        OSError, http.client.HTTPException: it does not answer.
        ValueError: what it answers is no JSON.
    """
    return await asyncio.to_thread(answered, mesh.layout.private(name) / "envoy.sock", path)


def answered(administration: Path, path: str) -> Any:
    """Ask at a socket; see `asked`."""
    connection = _Connection(administration)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"{path}: status {response.status}: {content[:200]!r}")
        return json.loads(content)
    finally:
        connection.close()
