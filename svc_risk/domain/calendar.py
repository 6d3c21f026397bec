"""When a market is open: sessions in the market's own time zone (IANA), so that daylight saving moves them as it moves the market."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kernel.errors import FieldViolation, InvalidArgumentError, Reason

HOLIDAYS_MAX = 1000
_SATURDAY = 5
_CLOCK = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TradingCalendar:
    """One session a day, Monday to Friday, from `open_time` to just before `close_time`; without times, around the clock on every day
    that is no holiday.
    """

    time_zone: str
    open_time: time | None
    close_time: time | None
    holidays: frozenset[date]

    def is_open(self, now: datetime) -> bool:
        """Say whether the market is open at a moment (aware)."""
        local = now.astimezone(_zone(self.time_zone))
        if local.date() in self.holidays:
            return False
        if self.open_time is None or self.close_time is None:
            return True
        return local.weekday() < _SATURDAY and self.open_time <= local.time().replace(tzinfo=None) < self.close_time


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def parse_calendar(
    time_zone: str, open_time: str, close_time: str, holidays: tuple[str, ...], *, field: str = "calendar"
) -> TradingCalendar:
    """Read a calendar: an IANA zone, `HH:MM` times that are both given (opening before closing) or both empty, `YYYY-MM-DD` holidays.

    Raises:
        InvalidArgumentError: names every bad field at once.
    """
    violations: list[FieldViolation] = []
    try:
        _zone(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        violations.append(FieldViolation(f"{field}.time_zone", "calendar.time_zone", "must be an IANA time zone"))
    opens, closes = _clock(open_time), _clock(close_time)
    if bool(open_time) != bool(close_time) or (open_time and (opens is None or closes is None or opens >= closes)):
        violations.append(FieldViolation(f"{field}.open_time", "calendar.session", "must be HH:MM before close_time, or both empty"))
    days: set[date] = set()
    if len(holidays) > HOLIDAYS_MAX:
        violations.append(FieldViolation(f"{field}.holidays", "calendar.holidays", f"must be at most {HOLIDAYS_MAX} days"))
    for index, text in enumerate(holidays[:HOLIDAYS_MAX]):
        day = _day(text)
        if day is None:
            violations.append(FieldViolation(f"{field}.holidays[{index}]", "calendar.holiday", "must be a date YYYY-MM-DD"))
        else:
            days.add(day)
    if violations:
        raise InvalidArgumentError(Reason.FIELD_INVALID, "the calendar is malformed", field_violations=violations)
    return TradingCalendar(time_zone, opens, closes, frozenset(days))


def _clock(text: str) -> time | None:
    return time(int(text[:2]), int(text[3:])) if _CLOCK.fullmatch(text) else None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None
