"""`docs/reference/reports.md` lists what the rules write, in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from svc_reporting.domain.cells import CellKind
from svc_reporting.domain.rules import RULES

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "reports.md"
_ROW = re.compile(r"\| `([a-z_]+)`( T)? \|")


@pytest.mark.parametrize("version", sorted(RULES))
def test_every_column_is_documented(version: str) -> None:
    section = _PAGE.read_text(encoding="utf-8").split(f"## `{version}`\n")[1].split("\n## ")[0]
    documented = [(name, mark == " T") for name, mark in _ROW.findall(section)]
    assert documented == [(column.name, column.kind is CellKind.TEXT) for column in RULES[version].columns]
