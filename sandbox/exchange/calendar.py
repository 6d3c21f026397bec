"""Trading calendars: which session an instant belongs to, and when that changes."""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

NANOSECONDS_PER_SECOND = 1_000_000_000
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# The longest run of closed days that a calendar may have; beyond it the next session is not found.
SEARCH_DAYS = 15

_TIME_OF_DAY = re.compile(r"(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")


class CalendarError(ValueError):
    """The calendar's definition is wrong; who writes the instruments file should catch it."""


class Phase(NamedTuple):
    """A stretch of time in which a calendar is either open or closed.

    `trade_date` is ISO 8601; while closed it is the date of the session before. `starts_ns` and `ends_ns` are
    nanoseconds since the UNIX epoch, the end exclusive.
    """

    is_open: bool
    trade_date: str
    starts_ns: int
    ends_ns: int


def _nanoseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * NANOSECONDS_PER_SECOND


def _minutes(text: str, name: str) -> int:
    if not _TIME_OF_DAY.fullmatch(text):
        raise CalendarError(f"{name}: {text!r} is not a time of day HH:MM between 00:00 and 24:00")
    return int(text[:2]) * 60 + int(text[3:])


@dataclass(frozen=True, slots=True)
class Calendar:
    """One session a day, on some weekdays, in a time zone, except on holidays.

    Args:
        name: what instruments refer to.
        zone: an IANA time zone.
        weekdays: 0 is Monday.
        open_minute, close_minute: minutes after local midnight, 0 to 1440; a session never crosses midnight.
        holidays: local dates without a session.
    """

    name: str
    zone: ZoneInfo
    weekdays: frozenset[int]
    open_minute: int
    close_minute: int
    holidays: frozenset[date] = field(default_factory=frozenset)

    def phase_at(self, time_ns: int) -> Phase:
        """Return the phase that `time_ns` lies in.

        Raises:
            CalendarError: no session within `SEARCH_DAYS` on either side.
        """
        local_day = datetime.fromtimestamp(time_ns // NANOSECONDS_PER_SECOND, self.zone).date()
        previous: Phase | None = None
        for offset in range(-SEARCH_DAYS, SEARCH_DAYS + 1):
            session = self._session_on(local_day + timedelta(days=offset))
            if session is None:
                continue
            if session.starts_ns <= time_ns < session.ends_ns:
                return session
            if session.starts_ns > time_ns:
                if previous is None:
                    break
                return Phase(False, previous.trade_date, previous.ends_ns, session.starts_ns)
            previous = session
        raise CalendarError(f"calendar {self.name}: no session within {SEARCH_DAYS} days of {local_day.isoformat()}")

    def trade_date_before(self, trade_date: str) -> str:
        """Return the session date that precedes `trade_date` (both ISO 8601)."""
        day = date.fromisoformat(trade_date)
        for offset in range(1, SEARCH_DAYS + 1):
            candidate = day - timedelta(days=offset)
            if self._has_session(candidate):
                return candidate.isoformat()
        raise CalendarError(f"calendar {self.name}: no session within {SEARCH_DAYS} days before {trade_date}")

    def _has_session(self, day: date) -> bool:
        return day.weekday() in self.weekdays and day not in self.holidays

    def _session_on(self, day: date) -> Phase | None:
        if not self._has_session(day):
            return None
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        # Wall-clock arithmetic: 09:30 stays 09:30 on the day the clocks change.
        opens = midnight + timedelta(minutes=self.open_minute)
        closes = midnight + timedelta(minutes=self.close_minute)
        return Phase(True, day.isoformat(), _nanoseconds(opens), _nanoseconds(closes))


def parse_calendar(name: str, fields: dict[str, object]) -> Calendar:
    """Build a calendar from its JSON object: `timezone`, `days`, `open`, `close`, optional `holidays`.

    Raises:
        CalendarError: naming the calendar and the field.
    """
    unknown = sorted(set(fields) - {"timezone", "days", "open", "close", "holidays"})
    if unknown:
        raise CalendarError(f"calendar {name}: unknown field {unknown[0]!r}")
    days, holidays = fields.get("days"), fields.get("holidays", [])
    if not isinstance(days, list) or not days or any(day not in WEEKDAYS for day in days):
        raise CalendarError(f"calendar {name}.days: expected a list out of {', '.join(WEEKDAYS)}")
    if not isinstance(holidays, list):
        raise CalendarError(f"calendar {name}.holidays: expected a list of dates")
    try:
        zone = ZoneInfo(str(fields.get("timezone", "")))
        closed = frozenset(date.fromisoformat(str(day)) for day in holidays)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise CalendarError(f"calendar {name}: {error}") from error
    opens = _minutes(str(fields.get("open")), f"calendar {name}.open")
    closes = _minutes(str(fields.get("close")), f"calendar {name}.close")
    if opens >= closes:
        raise CalendarError(f"calendar {name}: opens at {fields['open']} but closes at {fields['close']}")
    return Calendar(name, zone, frozenset(WEEKDAYS.index(str(day)) for day in days), opens, closes, closed)
