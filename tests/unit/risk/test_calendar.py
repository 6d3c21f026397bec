"""Sessions in the market's own time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kernel.errors import InvalidArgumentError
from svc_risk.domain.calendar import parse_calendar

NEW_YORK = parse_calendar("America/New_York", "09:30", "16:00", ("2026-07-03",))
ALWAYS = parse_calendar("UTC", "", "", ("2026-12-25",))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-03-06T14:29:59.999999", False),
        ("2026-03-06T14:30:00", True),
        ("2026-03-06T20:59:59.999999", True),
        ("2026-03-06T21:00:00", False),
        # Two days later New York's clocks have moved: the same session is an hour earlier in UTC.
        ("2026-03-09T13:29:59", False),
        ("2026-03-09T13:30:00", True),
        ("2026-03-09T20:00:00", False),
        ("2026-03-07T15:00:00", False),  # Saturday
        ("2026-07-03T15:00:00", False),  # holiday
        ("2026-07-02T15:00:00", True),
    ],
)
def test_a_session_follows_the_market_s_clock(moment: str, is_open: bool) -> None:
    assert NEW_YORK.is_open(at(moment)) is is_open


def test_around_the_clock_is_open_on_every_day_but_holidays() -> None:
    assert ALWAYS.is_open(at("2026-03-07T03:00:00"))
    assert not ALWAYS.is_open(at("2026-12-25T12:00:00"))


@pytest.mark.parametrize(
    ("zone", "opens", "closes", "holidays", "fields"),
    [
        ("Mars/Olympus", "", "", (), ["calendar.time_zone"]),
        ("../etc/passwd", "", "", (), ["calendar.time_zone"]),
        ("", "", "", (), ["calendar.time_zone"]),
        ("UTC", "09:30", "", (), ["calendar.open_time"]),
        ("UTC", "", "16:00", (), ["calendar.open_time"]),
        ("UTC", "16:00", "09:30", (), ["calendar.open_time"]),
        ("UTC", "09:30", "09:30", (), ["calendar.open_time"]),
        ("UTC", "9:30", "16:00", (), ["calendar.open_time"]),
        ("UTC", "09:30", "24:00", (), ["calendar.open_time"]),
        ("UTC", "", "", ("2026-02-30", "2026-12-25", "tomorrow"), ["calendar.holidays[0]", "calendar.holidays[2]"]),
        ("nowhere", "x", "y", ("z",), ["calendar.time_zone", "calendar.open_time", "calendar.holidays[0]"]),
    ],
)
def test_a_malformed_calendar_names_every_field(zone: str, opens: str, closes: str, holidays: tuple[str, ...], fields: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_calendar(zone, opens, closes, holidays)
    assert [violation.field for violation in caught.value.field_violations] == fields
