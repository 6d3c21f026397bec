"""Business days: when a trade settles, and which day comes next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

from svc_custody.domain.vocabulary import AssetClass

DayOpen = Callable[[date], bool]
"""Says whether a day is a business day."""

SEARCH_DAYS_MAX = 60
_DAY = timedelta(days=1)
_SATURDAY = 5


def weekday(day: date) -> bool:
    """Say whether a day is a Monday to Friday."""
    return day.weekday() < _SATURDAY


def next_business_day(day: date, is_open: DayOpen) -> date:
    """Return the first business day after a day.

    Raises:
        ValueError: there is none within 60 days; the calendar is broken.
    """
    return _first_open(day + _DAY, _DAY, is_open)


def business_day_at_or_before(day: date, is_open: DayOpen) -> date:
    """Return the day itself if it is a business day, else the last one before it.

    Raises:
        ValueError: there is none within 60 days; the calendar is broken.
    """
    return _first_open(day, -_DAY, is_open)


def cycle_days(asset_class: AssetClass) -> int:
    """Return the business days from trade to settlement: 0 for crypto assets, else 1 (SEC Rule 15c6-1, as of 28 May 2024)."""
    return 0 if asset_class is AssetClass.CRYPTO else 1


def settlement_date(trade_date: date, cycle: int, is_open: DayOpen) -> date:
    """Return the day on which a trade is to settle: `cycle` business days after its trade date, which itself may be none. T+0 is that day.

    Raises:
        ValueError: the calendar has no business day within 60 days.
    """
    day = trade_date
    for _ in range(cycle):
        day = next_business_day(day, is_open)
    return day


def _first_open(day: date, step: timedelta, is_open: DayOpen) -> date:
    for _ in range(SEARCH_DAYS_MAX):
        if is_open(day):
            return day
        day += step
    raise ValueError(f"no business day within {SEARCH_DAYS_MAX} days of {day}")
