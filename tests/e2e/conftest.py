"""One mesh for all end-to-end tests that leave it whole; tests that break more than they mend start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.local.harness import LocalMesh


@pytest.fixture(scope="session")
def mesh() -> Iterator[LocalMesh]:
    """Return a running mesh of two replicas each, seeded, with an exchange that trades, on ports of its own."""
    with LocalMesh() as running:
        yield running
