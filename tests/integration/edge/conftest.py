"""Fixtures of the edge: one Envoy and one backend for each test module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.edge.backend import Backend, Orders
from tests.integration.edge.world import Edge, running


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    """Return a private directory with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="tmb-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def backend(sockets: Path) -> Iterator[Backend]:
    """Return a running order service."""
    server = Backend(sockets / "oms.sock", Orders())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def edge(backend: Backend) -> Iterator[Edge]:
    """Return a running edge in front of the order service; the other services cannot be reached."""
    with running({"svc-oms": backend.socket}) as found:
        yield found


@pytest.fixture
def orders(backend: Backend) -> Orders:
    """Return the order service's servicer, without the traces of other tests."""
    backend.orders.__init__()  # type: ignore[misc]  # the server keeps the object
    return backend.orders
