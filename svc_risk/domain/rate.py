"""Message rates: at most so many in any one second.

Messages are counted in tenths of a second, and the last eleven tenths count. Those cover any second that ends now wherever in a tenth it
begins, so the bound holds for every second, not only for calendar ones; a sender at the limit may be held back by up to a tenth.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

TENTHS = 11
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TENTH = timedelta(milliseconds=100)


class RateWindow(NamedTuple):
    """The count of the tenth `tick` (since 1970), and those of the ten before it, newest first."""

    tick: int
    latest: int
    earlier: tuple[int, ...]


NO_MESSAGES = RateWindow(0, 0, (0,) * (TENTHS - 1))


def tick_of(now: datetime) -> int:
    """Return the number of the tenth of a second, since 1970, that a moment lies in."""
    return (now - _EPOCH) // _TENTH


def advanced(window: RateWindow, tick: int) -> RateWindow:
    """Return the window as it stands at a tenth. A clock that stepped back does not bring old messages back."""
    passed = tick - window.tick
    if passed <= 0:
        return window
    if passed >= TENTHS:
        return RateWindow(tick, 0, NO_MESSAGES.earlier)
    return RateWindow(tick, 0, ((0,) * (passed - 1) + (window.latest, *window.earlier))[: TENTHS - 1])


def counted(window: RateWindow, tick: int) -> RateWindow:
    """Return the window with one more message at a tenth."""
    tick, latest, earlier = window if window.tick >= tick else advanced(window, tick)
    return RateWindow(tick, latest + 1, earlier)


def messages(window: RateWindow, tick: int) -> int:
    """Return how many messages count at a tenth."""
    _, latest, earlier = window if window.tick >= tick else advanced(window, tick)
    return latest + sum(earlier)
