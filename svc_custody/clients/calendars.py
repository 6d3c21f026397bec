"""Bank holidays of currencies, from the package `holidays`, which is loaded when the first one is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Container
from datetime import date
from typing import Protocol

from svc_custody.domain.business_days import DayOpen, weekday

_FINANCIAL = {"USD": "XFED", "EUR": "XECB"}
"""Settlement systems: Fedwire, T2."""

_COUNTRIES = {
    "AUD": ("AU", "NSW"),
    "CAD": ("CA", "ON"),
    "CHF": ("CH", "ZH"),
    "DKK": ("DK", None),
    "GBP": ("GB", "ENG"),
    "HKD": ("HK", None),
    "JPY": ("JP", None),
    "NOK": ("NO", None),
    "SEK": ("SE", None),
    "SGD": ("SG", None),
}
"""Where the central bank sits, for currencies whose settlement system has no calendar of its own there."""


class Calendars(Protocol):
    """Business days by currency and venue."""

    def currency(self, currency: str) -> DayOpen:
        """Return when a currency settles: Monday to Friday without its bank holidays, as far as they are known."""
        ...

    def instrument(self, currency: str, venue_holidays: Collection[date]) -> DayOpen:
        """Return when trades of an instrument settle: on days on which both its venue and its currency do."""
        ...


class HolidayCalendars:
    """Calendars from the package `holidays`. A currency that it does not know settles Monday to Friday."""

    def currency(self, currency: str) -> DayOpen:
        """See `Calendars.currency`."""

        def is_open(day: date) -> bool:
            return weekday(day) and day not in _bank_holidays(currency, day.year)

        return is_open

    def instrument(self, currency: str, venue_holidays: Collection[date]) -> DayOpen:
        """See `Calendars.instrument`."""
        closed, money = frozenset(venue_holidays), self.currency(currency)
        return lambda day: day not in closed and money(day)


@functools.lru_cache(maxsize=128)
def _bank_holidays(currency: str, year: int) -> Container[date]:
    import holidays  # costs a tenth of a second that a replica without trades does not pay

    made: Callable[[], Container[date]] | None = None
    if currency in _FINANCIAL:
        made = functools.partial(holidays.financial_holidays, _FINANCIAL[currency], years=year, expand=False)
    elif currency in _COUNTRIES:
        country, subdivision = _COUNTRIES[currency]
        made = functools.partial(holidays.country_holidays, country, subdiv=subdivision, years=year, expand=False)
    return frozenset() if made is None else frozenset(made())  # type: ignore[call-overload]  # a mapping of days, which iterates them
