"""A sidecar for the generator: the mesh takes users' orders from the service account `edge` alone, and the edge's Envoy is no sidecar."""

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.local.ca import flip
from mesh.local.compiler import Proxy, compile_mesh, load, registry
from mesh.local.control.doors import SERVICE_ACCOUNT
from mesh.local.control.plane import BOOTSTRAP_FILE, MANIFEST_ISSUER
from mesh.local.edge import EDGE
from mesh.local.harness import WAIT_SECONDS_MAX, LocalMesh
from mesh.local.probes import EnvoyReady
from mesh.local.sidecar import CONTROL, MANIFESTS, certificates, envoy_unit
from mesh.local.topology import Topology

_NO_KEYS = json.dumps({"keys": []})
"""It takes no calls from the mesh, so it checks no tokens."""


@dataclass(frozen=True, slots=True)
class ClientSidecar:
    """A running sidecar of the generator: the socket of its outbound calls, and its process."""

    egress_socket: Path
    pid: int


@contextmanager
def client_sidecar(mesh: LocalMesh) -> Iterator[ClientSidecar]:
    """Run one more Envoy as `edge`, by the manifests and the certificate of the mesh."""
    with tempfile.TemporaryDirectory(prefix="tmb-") as name:
        folder = Path(name)
        proxy = Proxy(
            instance="bench-0",
            service_account=SERVICE_ACCOUNT,
            address="127.0.0.1",
            applications={},
            egress_socket=folder / "egress.sock",
            admin_socket=folder / "envoy.sock",
            configuration=folder / "envoy",
            certificates=certificates(mesh.layout, EDGE),
            secret="",
        )
        known = Topology.read(mesh.layout.private(CONTROL) / "topology.json").proxies
        found = compile_mesh(registry(load(MANIFESTS), known), [proxy], {MANIFEST_ISSUER: _NO_KEYS})[proxy.instance]
        flip(proxy.configuration, found.files())
        (proxy.configuration / BOOTSTRAP_FILE).write_text(json.dumps(found.bootstrap))
        unit = envoy_unit(mesh.layout, proxy)
        with subprocess.Popen(unit.command, env=dict(unit.environment), cwd=folder) as process:
            try:
                asyncio.run(_ready(proxy, process.pid))
                yield ClientSidecar(proxy.egress_socket, process.pid)
            finally:
                process.terminate()


async def _ready(proxy: Proxy, pid: int) -> None:
    probe = EnvoyReady(proxy.admin_socket)
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not await probe(pid):
            await asyncio.sleep(0.02)
