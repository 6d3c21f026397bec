"""Skips this folder where QuickFIX is not installed: it compiles for minutes, so `make interop` does that on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.quickfix import engine

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in item.path.parents]
    problem = engine.problem() if here else ""
    for item in here:
        if problem:
            item.add_marker(pytest.mark.skip(reason=f"QuickFIX is not installed ({problem}); `make interop` compiles it"))
