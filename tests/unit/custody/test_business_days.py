"""Settlement dates, against days that were."""

from __future__ import annotations

from datetime import date

import pytest

from svc_custody.clients.calendars import HolidayCalendars
from svc_custody.domain.business_days import business_day_at_or_before, cycle_days, next_business_day, settlement_date
from svc_custody.domain.vocabulary import AssetClass

CALENDARS = HolidayCalendars()


@pytest.mark.parametrize(
    ("trade_date", "expected"),
    [
        ("2026-11-20", "2026-11-23"),  # over a weekend
        ("2026-11-25", "2026-11-27"),  # over Thanksgiving
        ("2026-10-09", "2026-10-13"),  # Columbus Day: New York trades, Fedwire is closed
        ("2026-11-10", "2026-11-12"),  # Veterans Day, likewise
        ("2026-12-24", "2026-12-28"),  # Christmas and a weekend
        ("2026-11-22", "2026-11-23"),  # traded on a Sunday, as sandboxes do
    ],
)
def test_dollars_settle_on_fedwire_days(trade_date: str, expected: str) -> None:
    is_open = CALENDARS.currency("USD")
    assert settlement_date(date.fromisoformat(trade_date), 1, is_open).isoformat() == expected


@pytest.mark.parametrize(
    ("currency", "closed"),
    [("EUR", "2026-05-01"), ("GBP", "2026-12-28"), ("JPY", "2026-05-04"), ("CHF", "2026-08-01"), ("USD", "2026-06-19")],
)
def test_currencies_know_their_bank_holidays(currency: str, closed: str) -> None:
    assert not CALENDARS.currency(currency)(date.fromisoformat(closed))


def test_a_currency_without_a_calendar_settles_monday_to_friday() -> None:
    is_open = CALENDARS.currency("USDT")
    assert next_business_day(date(2026, 12, 24), is_open) == date(2026, 12, 25)


def test_a_trade_settles_when_both_venue_and_currency_do() -> None:
    is_open = CALENDARS.instrument("USD", [date(2026, 11, 27)])
    assert settlement_date(date(2026, 11, 25), 1, is_open) == date(2026, 11, 30)


def test_crypto_settles_on_its_trade_date_whatever_day_that_is() -> None:
    sunday = date(2026, 11, 22)
    assert settlement_date(sunday, cycle_days(AssetClass.CRYPTO), CALENDARS.currency("USD")) == sunday


def test_the_wall_clock_of_a_sunday_says_friday() -> None:
    assert business_day_at_or_before(date(2026, 11, 22), CALENDARS.currency("USD")) == date(2026, 11, 20)


def test_a_calendar_without_days_is_broken() -> None:
    with pytest.raises(ValueError, match="no business day"):
        next_business_day(date(2026, 11, 20), lambda day: False)
