"""The reviewed table of what may differ (`differences.yaml`), and the matching of differences with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mesh.conformance.compare import ABSENT, Difference

TABLE = Path(__file__).parent / "differences.yaml"
PRESENT = "<present>"
"""Stands for any value, as long as there is one."""

_ANY_DEPTH = "**"
_ANY_TEXT = "[^\x00]*"
_REGEX = "regex "
_FIELDS = {"path", "istiod", "ours", "reason", "runs"}
RUNS = ("sockets", "redirect")
"""The two runs: sockets that sidecars bind, and sockets redirected to sidecars."""


class TableError(Exception):
    """The table is not of its form. The text names the entry."""


@dataclass(frozen=True)
class Entry:
    """One accepted difference.

    Attributes:
        path: segments of a normal form's path; `*` stands for any text within one, `**` for any number of segments; one that
            begins with `regex ` is a regular expression.
        istiod: Istio's value; `<absent>` for none, `<present>` for any.
        ours: the compiler's, likewise.
        reason: why the difference is right, for reviewers.
        runs: in which runs it is expected.
    """

    path: tuple[str, ...]
    istiod: Any
    ours: Any
    reason: str
    runs: tuple[str, ...] = RUNS

    def explains(self, found: Difference) -> bool:
        """Say whether this is the difference that was meant."""
        return (
            _fits(self.istiod, found.istiod) and _fits(self.ours, found.ours) and self._pattern.fullmatch(_joined(found.path)) is not None
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = []
        for segment in self.path:
            if segment == _ANY_DEPTH:
                parts.append(f"(?:\x00{_ANY_TEXT})*")
            elif segment.startswith(_REGEX):
                parts.append(f"\x00(?:{segment.removeprefix(_REGEX)})")
            else:
                parts.append("\x00" + _ANY_TEXT.join(re.escape(text) for text in segment.split("*")))
        return re.compile("".join(parts), re.DOTALL)

    def __str__(self) -> str:
        return f"{' / '.join(self.path)}: istiod {self.istiod!r}, ours {self.ours!r}"


def table(path: Path = TABLE) -> tuple[Entry, ...]:
    """Read the table.

    Raises:
        TableError: an entry has no reason, no path, or says nothing.
    """
    found = []
    for number, item in enumerate(yaml.safe_load(path.read_text())):
        where = f"{path.name}, entry {number + 1}"
        if not isinstance(item, dict) or not {"path", "istiod", "ours", "reason"} <= set(item) or set(item) - _FIELDS:
            raise TableError(f"{where}: must have path, istiod, ours and reason, and may have runs")
        runs = tuple(item.get("runs", RUNS))
        if not runs or not set(runs) <= set(RUNS):
            raise TableError(f"{where}: runs must be some of {', '.join(RUNS)}")
        if not item["reason"] or not all(isinstance(segment, str) for segment in item["path"]) or item["path"][0] == _ANY_DEPTH:
            raise TableError(f"{where}: must have a reason, and a path of texts that says where it begins")
        if item["istiod"] == item["ours"] != PRESENT:
            raise TableError(f"{where}: does not differ")
        found.append(Entry(tuple(item["path"]), item["istiod"], item["ours"], item["reason"], runs))
    return tuple(found)


@dataclass(frozen=True)
class Judgement:
    """What is left of differences beside the table.

    Attributes:
        unexplained: no entry explains them.
        explained: how many an entry explains.
        unused: entries that explained nothing.
    """

    unexplained: tuple[Difference, ...]
    explained: int
    unused: tuple[Entry, ...]


def judge(found: Mapping[str, Iterable[Difference]], entries: Sequence[Entry]) -> Judgement:
    """Match the differences, by run, with the table; the first entry that explains one counts."""
    used: set[int] = set()
    unexplained = []
    explained = 0
    for run, items in found.items():
        chosen = [(number, entry) for number, entry in enumerate(entries) if run in entry.runs]
        for item in items:
            number = next((number for number, entry in chosen if entry.explains(item)), None)
            if number is None:
                unexplained.append(item)
            else:
                used.add(number)
                explained += 1
    return Judgement(tuple(unexplained), explained, tuple(entry for number, entry in enumerate(entries) if number not in used))


def _joined(path: Sequence[str]) -> str:
    return "".join(f"\x00{segment}" for segment in path)


def _fits(expected: Any, value: Any) -> bool:
    if expected == PRESENT:
        return bool(value != ABSENT)
    return type(expected) is type(value) and bool(expected == value)
