"""Log files of bounded size for processes that keep theirs open."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rotation:
    """A log above `bytes_max` becomes `<name>.log.1`, its predecessors move up, and at most `files_kept` of them stay.

    The process holds the file open for appending, so its content is copied and the file is cut to nothing: what it writes next goes to the
    beginning. A line written between copy and cut, some microseconds, is lost; a pipe through the supervisor would lose none, but would
    stop the service whenever the supervisor is stopped.
    """

    bytes_max: int = 16 * 1024 * 1024
    files_kept: int = 3

    def apply(self, log: Path) -> bool:
        """Rotate the log if it is too large; return whether it was."""
        try:
            if log.stat().st_size <= self.bytes_max:
                return False
            for number in range(self.files_kept - 1, 0, -1):
                older = self._numbered(log, number)
                if older.exists():
                    older.replace(self._numbered(log, number + 1))
            with log.open("rb") as source, self._numbered(log, 1).open("wb") as target:
                os.fchmod(target.fileno(), 0o600)
                shutil.copyfileobj(source, target, 1024 * 1024)
                os.truncate(log, 0)
        except FileNotFoundError:
            return False
        return True

    def _numbered(self, log: Path, number: int) -> Path:
        return log.with_name(f"{log.name}.{number}")


def tail(log: Path, *, lines_max: int = 20, bytes_max: int = 8_192, offset: int = 0) -> list[str]:
    """Return the last lines of a log, of what stands behind `offset` bytes; none when there is no log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(offset, size - bytes_max))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    # The first line of a cut block is half a line.
    return (lines[1:] if size - bytes_max > offset else lines)[-lines_max:]
