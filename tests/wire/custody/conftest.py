"""A server of custody for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.custody.conftest import custody as custodian
from tests.integration.custody.conftest import custody_database, orders, reference
from tests.integration.custody.world import Custodian
from tests.wire.custody.serving import Custody, serving
from tests.wire.serving import private_folder

__all__ = ["custodian", "custody_database", "orders", "reference"]


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Return a private directory with a short path."""
    with private_folder() as folder:
        yield folder


@pytest.fixture
async def custody(custodian: Custodian, sockets: Path) -> AsyncIterator[Custody]:
    """Return a client of a server in a sandbox."""
    async with serving(custodian, sockets, sandbox=True) as client:
        yield client
