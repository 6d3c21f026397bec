"""One mesh for the clients of all languages; the client that is built here is compiled while the mesh starts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mesh.local.harness import LocalMesh
from mesh.local.options import TRADING, Options
from tests.clients.toolchains import ALWAYS, TOOLCHAINS
from tests.clients.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a mesh of what an order needs, two replicas each, as seen from outside."""
    folder: Path = tmp_path_factory.mktemp("clients")
    with ThreadPoolExecutor() as builders:
        building = [builders.submit(TOOLCHAINS[name].build) for name in ALWAYS]
        with LocalMesh(Options(ephemeral_ports=True, services=TRADING)) as mesh:
            for build in building:
                build.result()
            yield World(mesh, folder)
