import pytest

from sandbox.exchange.calendar import Calendar, CalendarError, parse_calendar
from tests.unit.exchange.venues import EVERY_DAY, instant_ns

NEW_YORK = parse_calendar(
    "new-york",
    {"timezone": "America/New_York", "days": EVERY_DAY[:5], "open": "09:30", "close": "16:00", "holidays": ["2026-01-19"]},
)
ALWAYS = parse_calendar("always", {"timezone": "UTC", "days": EVERY_DAY, "open": "00:00", "close": "24:00"})


@pytest.mark.parametrize(
    ("calendar", "moment", "is_open", "trade_date", "ends"),
    [
        (NEW_YORK, "2026-01-05 14:29", False, "2026-01-02", "2026-01-05 14:30"),
        (NEW_YORK, "2026-01-05 14:30", True, "2026-01-05", "2026-01-05 21:00"),
        (NEW_YORK, "2026-01-05 21:00", False, "2026-01-05", "2026-01-06 14:30"),
        (NEW_YORK, "2026-01-16 22:00", False, "2026-01-16", "2026-01-20 14:30"),  # a weekend and a holiday
        (NEW_YORK, "2026-07-01 13:30", True, "2026-07-01", "2026-07-01 20:00"),  # summer time
        (ALWAYS, "2026-01-05 23:59", True, "2026-01-05", "2026-01-06 00:00"),
        (ALWAYS, "2026-01-06 00:00", True, "2026-01-06", "2026-01-07 00:00"),
    ],
)
def test_phases(calendar: Calendar, moment: str, is_open: bool, trade_date: str, ends: str) -> None:
    phase = calendar.phase_at(instant_ns(moment))
    assert (phase.is_open, phase.trade_date, phase.ends_ns) == (is_open, trade_date, instant_ns(ends))
    assert phase.starts_ns <= instant_ns(moment) < phase.ends_ns


def test_phases_follow_each_other_without_a_gap() -> None:
    moment = instant_ns("2026-02-27 12:00")
    for _ in range(40):
        phase = NEW_YORK.phase_at(moment)
        following = NEW_YORK.phase_at(phase.ends_ns)
        assert following.starts_ns == phase.ends_ns
        assert following.is_open is not phase.is_open
        moment = phase.ends_ns


def test_the_trade_date_before_skips_holidays() -> None:
    assert NEW_YORK.trade_date_before("2026-01-20") == "2026-01-16"


def test_a_calendar_without_sessions_nearby_is_refused() -> None:
    holidays = [f"2026-{month:02d}-{day:02d}" for month in (1, 2) for day in range(1, 29)]
    closed = parse_calendar("closed", {"timezone": "UTC", "days": EVERY_DAY, "open": "00:00", "close": "24:00", "holidays": holidays})
    with pytest.raises(CalendarError, match="no session"):
        closed.phase_at(instant_ns("2026-01-20 12:00"))
