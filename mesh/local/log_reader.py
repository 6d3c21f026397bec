"""Reading the logs of several instances as one."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from mesh.local.layout import Layout, LocalMeshError
from mesh.local.rotation import tail

POLL_SECONDS = 0.2
_TAIL_BYTES = 256 * 1024
_BLOCK_BYTES_MAX = 1024 * 1024


def matching_logs(layout: Layout, names: Sequence[str]) -> dict[str, Path]:
    """Return the logs of the named services and instances by instance; of all of them for no name.

    Raises:
        LocalMeshError: a name fits nothing.
    """
    logs = {path.stem: path for path in sorted(layout.logs.glob("*.log"))}
    if not names:
        return logs
    chosen = {stem: path for stem, path in logs.items() for name in names if stem == name or stem.rpartition("-")[0] == name}
    unknown = [name for name in names if not any(stem == name or stem.rpartition("-")[0] == name for stem in logs)]
    if unknown:
        known = ", ".join(logs) or "none yet; start the mesh with `make up`"
        raise LocalMeshError(f"There is no log of {', '.join(unknown)} in {layout.logs}. Logs: {known}.")
    return chosen


class Follower:
    """What a growing log gains, also across its rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def lines(self) -> list[str]:
        """Return the whole lines written since the last call, at most a megabyte of them."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    # Rotation cut the file to nothing.
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                block = file.read(_BLOCK_BYTES_MAX)
        except OSError:
            return []
        self._offset += len(block)
        *whole, self._rest = (self._rest + block).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


def show(
    logs: dict[str, Path], *, lines_max: int, follow: bool, out: TextIO | None = None, go_on: Callable[[], bool] = lambda: True
) -> None:
    """Write the last lines of all logs in the order of their time, then what comes, each line after its instance's name."""
    out = out or sys.stdout
    width = max((len(name) for name in logs), default=0)
    followers = {name: Follower(path) for name, path in logs.items()}
    earlier = merged({name: tail(path, lines_max=lines_max, bytes_max=_TAIL_BYTES) for name, path in logs.items()})
    for name, line in earlier[-lines_max:] if lines_max else []:
        out.write(f"{name:{width}} | {line}\n")
    out.flush()
    while follow and go_on():
        for name, line in merged({name: follower.lines() for name, follower in followers.items()}):
            out.write(f"{name:{width}} | {line}\n")
        out.flush()
        time.sleep(POLL_SECONDS)


def merged(lines: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return the lines of many logs in the order of their time. One without a time, as in a traceback, stays behind the one before it."""
    timed: list[tuple[str, str, str]] = []
    for name, own in lines.items():
        latest = ""
        for line in own:
            latest = max(latest, time_of(line))
            timed.append((latest, name, line))
    return [(name, line) for _, name, line in sorted(timed, key=lambda item: item[0])]


def time_of(line: str) -> str:
    """Return the time that a line of ours or of PostgreSQL's says, as text that sorts; empty for others."""
    if line.startswith("{"):
        try:
            return str(json.loads(line).get("time", ""))
        except (ValueError, AttributeError):
            return ""
    stamp = line[:23].replace(" ", "T")
    return stamp if stamp[:4].isdigit() and stamp[10:11] == "T" else ""
