"""Envoys of the mesh, seen through their administration, and the configuration and certificates that lie in front of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cryptography import x509

from mesh.local.compiler.tls import CURRENT, IDENTITY_FILE
from mesh.local.edge import EDGE
from mesh.local.sidecar import certificates
from tests.chaos import administration
from tests.chaos.scene import Scene

CONFIGURED_SECONDS_MAX = 15.0
LOOK_SECONDS = 0.05


def everybody(scene: Scene) -> tuple[str, ...]:
    """Return the names of all workloads that have an Envoy: all instances, and the edge."""
    return (*sorted(item.name for item in scene.world.mesh.report.instances if item.service.startswith("svc_")), EDGE)


def generation(scene: Scene, name: str) -> str:
    """Return which configuration is in front of a workload's Envoy."""
    return str((scene.world.mesh.layout.private(name) / "envoy" / CURRENT).readlink())


def generations(scene: Scene) -> dict[str, str]:
    """Return which configuration is in front of every Envoy."""
    return {name: generation(scene, name) for name in everybody(scene)}


async def asked(scene: Scene, name: str, path: str) -> Any:
    """Return what the administration of a workload's Envoy answers, a JSON value."""
    return await administration.asked(scene.world.mesh, name, path)


async def configured(scene: Scene, names: Iterable[str], condition: Callable[[str], bool]) -> None:
    """Return once a condition holds of what each of these Envoys works with, as JSON text.

    Raises:
        TimeoutError: not in time; says whose does not.
    """
    for name in names:
        deadline = time.monotonic() + CONFIGURED_SECONDS_MAX
        while not condition(json.dumps(await asked(scene, name, "/config_dump"))):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Envoy of {name} is not configured after {CONFIGURED_SECONDS_MAX:g} s")
            await asyncio.sleep(LOOK_SECONDS)


def identity(scene: Scene, name: str) -> tuple[x509.Certificate, str, str]:
    """Return a workload's certificate, and certificate and key as PEM."""
    document = json.loads((directory(scene, name) / CURRENT / IDENTITY_FILE).read_text())
    pair = document["resources"][0]["tls_certificate"]
    chain, key = pair["certificate_chain"]["inline_string"], pair["private_key"]["inline_string"]
    return x509.load_pem_x509_certificate(chain.encode()), chain, key


def directory(scene: Scene, name: str) -> Path:
    """Return where a workload's certificate is."""
    return certificates(scene.world.mesh.layout, name)


def log_since(path: Path, offset: int) -> str:
    """Return what a log holds beyond an offset."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")
