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
    """The counts of the tenth `tick` (since 1970) and the ten before it, newest first."""

    tick: int
    counts: tuple[int, ...]


NO_MESSAGES = RateWindow(0, (0,) * TENTHS)


def tick_of(now: datetime) -> int:
    """Return the number of the tenth of a second, since 1970, that a moment lies in."""
    return (now - _EPOCH) // _TENTH


def advanced(window: RateWindow, tick: int) -> RateWindow:
    """Return the window as it stands at a tenth. A clock that stepped back does not bring old messages back."""
    passed = tick - window.tick
    if passed <= 0:
        return window
    if passed >= TENTHS:
        return RateWindow(tick, NO_MESSAGES.counts)
    return RateWindow(tick, (0,) * passed + window.counts[:-passed])


def counted(window: RateWindow, tick: int) -> RateWindow:
    """Return the window with one more message at a tenth."""
    current = advanced(window, tick)
    return RateWindow(current.tick, (current.counts[0] + 1, *current.counts[1:]))


def messages(window: RateWindow, tick: int) -> int:
    """Return how many messages count at a tenth."""
    return sum(advanced(window, tick).counts)
