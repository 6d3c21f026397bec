"""One mesh for all end-to-end tests that leave it whole; tests that break more than they mend start their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mesh.local.harness import LocalMesh

ORIGIN = "https://desk.test"
"""Whose pages may open sockets and call."""


@pytest.fixture(scope="session")
def mesh() -> Iterator[LocalMesh]:
    """Return a running mesh of two replicas each, seeded, with an exchange that trades, on ports of its own, for pages of one origin."""
    running = LocalMesh()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRADEMESH_ORIGINS", ORIGIN)
        running.__enter__()
    with ExitStack() as stack:
        stack.push(running)
        yield running
