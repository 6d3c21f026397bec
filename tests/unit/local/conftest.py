"""A layout of its own for each test, with its sockets' directory removed afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.local.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    created = Layout(tmp_path / "mesh")
    created.create()
    yield created
    shutil.rmtree(created.runtime)
