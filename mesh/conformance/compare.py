"""Compares two normal forms, leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ABSENT = "<absent>"
"""Stands for a leaf that one side does not have."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """One leaf that is not the same on both sides.

    Attributes:
        workload: whose.
        path: where.
        istiod: Istio's value, or `ABSENT`.
        ours: the compiler's value, or `ABSENT`.
    """

    workload: str
    path: Path
    istiod: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.workload}: {' / '.join(self.path)}\n    istiod: {self.istiod!r}\n    ours:   {self.ours!r}"


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Walk over a normal form's leaves. An empty mapping or list is one too: that a message is there can mean something."""
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from leaves(entry, (*path, str(key)))
    elif isinstance(value, list) and value:
        for number, entry in enumerate(value):
            yield from leaves(entry, (*path, str(number)))
    else:
        yield path, value


def differences(workload: str, istiod: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[int, list[Difference]]:
    """Return how many leaves there were on either side, and those that differ."""
    theirs, own = dict(leaves(istiod)), dict(leaves(ours))
    paths = sorted({*theirs, *own})
    found = [
        Difference(workload, path, theirs.get(path, ABSENT), own.get(path, ABSENT))
        for path in paths
        if not _same(theirs.get(path, ABSENT), own.get(path, ABSENT))
    ]
    return len(paths), found


def _same(one: Any, other: Any) -> bool:
    """Python takes True for 1."""
    return type(one) is type(other) and one == other
