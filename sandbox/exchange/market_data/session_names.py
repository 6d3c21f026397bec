"""Names of MoldUDP64 sessions: the UTC date and a number that only grows, on disk before the first packet carries it."""

import json
import os
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER_CHARACTERS = 4
_NUMBER_MAX = 36**_NUMBER_CHARACTERS - 1
# The number of a day's first session follows the time of day, so that a venue whose directory was emptied does not begin at 1 again.
_NUMBERS_PER_SECOND = 19
_NANOSECONDS = 1_000_000_000
_SECONDS_PER_DAY = 86_400
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class SessionFileError(ValueError):
    """The file that remembers the last session cannot be read or written."""


class SessionName(NamedTuple):
    """A MoldUDP64 session. `text` sorts after that of every session before.

    Attributes:
        midnight_ns: 00:00 UTC of its date, which its timestamps count from, in nanoseconds since the epoch.
    """

    text: str
    midnight_ns: int


class SessionNames:
    """Gives out names such as `2611220K3F`: 22 November 2026 and a number in base 36.

    Args:
        path: remembers the last one; its directory exists and has one venue at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def next(self, now_ns: int) -> SessionName:
        """Name a session that begins now. A clock that went back to an earlier day keeps the later date.

        Raises:
            SessionFileError: the last name cannot be read, or the new one not be made durable.
        """
        last_day, last_number = self._last()
        seconds = now_ns // _NANOSECONDS
        day = max(datetime.fromtimestamp(seconds, UTC).date(), last_day)
        number = (seconds % _SECONDS_PER_DAY) * _NUMBERS_PER_SECOND
        if day == last_day:
            number = max(number, last_number + 1)
        if number > _NUMBER_MAX:
            raise SessionFileError(f"{self._path}: no session number is left for {day.isoformat()}")
        self._remember(day, number)
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return SessionName(f"{day:%y%m%d}{_base36(number)}", int(midnight.timestamp()) * _NANOSECONDS)

    def _last(self) -> tuple[date, int]:
        try:
            document = json.loads(self._path.read_text(encoding="ascii"))
            day, number = document["date"], document["number"]
            if not isinstance(number, int) or not _ISO_DATE.fullmatch(day):
                raise ValueError("expected date and number")
            return date.fromisoformat(day), number
        except FileNotFoundError:
            return date.min, 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SessionFileError(f"{self._path}: {error}; without it a session could come twice") from error

    def _remember(self, day: date, number: int) -> None:
        aside = self._path.with_name(f"{self._path.name}.new")
        try:
            with aside.open("w", encoding="ascii") as file:
                json.dump({"date": day.isoformat(), "number": number}, file)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise SessionFileError(f"{self._path}: {error}") from error


def _base36(number: int) -> str:
    text = ""
    for _ in range(_NUMBER_CHARACTERS):
        number, rest = divmod(number, 36)
        text = _DIGITS[rest] + text
    return text
