"""What the supervisor says about itself: one JSON document, replaced whole at every change, read by everybody else."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

FORMAT = 1


class Phase(StrEnum):
    """Where the mesh as a whole stands."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class State(StrEnum):
    """Where one instance stands."""

    WAITING = "waiting"  # for another unit
    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not-ready"  # it was, and its probe fails now
    BACKOFF = "backoff"  # ended; starts again soon
    CRASH_LOOP = "crash-loop"  # ended several times in a row; starts again later
    GIVEN_UP = "given-up"
    DONE = "done"  # a one-shot that succeeded
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class InstanceReport:
    """One instance. Times are Unix seconds; `pid`, `started_at` and `retry_at` are None when there is none."""

    name: str
    service: str
    state: State
    address: str
    log: str
    pid: int | None = None
    restarts: int = 0
    started_at: float | None = None
    retry_at: float | None = None
    last_end: str = ""


@dataclass(frozen=True)
class MeshReport:
    """The whole mesh. `failure` says in a sentence or more why it failed, with the end of a log where that helps."""

    phase: Phase
    supervisor_pid: int
    started_at: float
    instances: tuple[InstanceReport, ...]
    ready_seconds: float | None = None
    failure: str = ""
    facts: dict[str, str] = dataclasses.field(default_factory=dict)

    def instance(self, name: str) -> InstanceReport:
        """Return one instance's part.

        Raises:
            KeyError: there is none of that name.
        """
        for item in self.instances:
            if item.name == name:
                return item
        raise KeyError(name)

    def write(self, path: Path) -> None:
        """Replace the document at `path`, so that a reader sees the old or the new one whole."""
        scratch = path.with_suffix(".new")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"format": FORMAT, **dataclasses.asdict(self)}, file)
        scratch.replace(path)


def read(path: Path) -> MeshReport | None:
    """Return the last document, whoever wrote it; None when there is none that can be read."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        if document.pop("format") != FORMAT:
            return None
        document["phase"] = Phase(document["phase"])
        document["instances"] = tuple(InstanceReport(**{**item, "state": State(item["state"])}) for item in document["instances"])
        return MeshReport(**document)
    except (OSError, ValueError, KeyError, TypeError):
        return None
