"""The mesh that a fault needs: its shape, and the ground that it stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.local.options import Options

FREE_PORTS = Options(ephemeral_ports=True, own_manifests=True)


@contextmanager
def anywhere() -> Iterator[Path | None]:
    """Let the mesh make a temporary directory of its own."""
    yield None


@dataclass(frozen=True)
class Stage:
    """A kind of mesh. Faults of one stage share a mesh, one after the other, until one of them is not outlived.

    Attributes:
        name: for the progress.
        options: the mesh's.
        ground: makes the state directory and removes it; None stands for a temporary one.
        for_each: every fault gets a mesh of its own.
    """

    name: str
    options: Options = FREE_PORTS
    ground: Callable[[], AbstractContextManager[Path | None]] = anywhere
    for_each: bool = False


PLAIN = Stage("plain")
