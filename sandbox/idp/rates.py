"""A cap on how often each client may try: a token bucket per name."""

import math
from typing import Protocol

NAMES_MAX = 10_000


class MonotonicClock(Protocol):
    """Measures intervals."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary origin."""


class RateCap:
    """Lets each name pass `per_minute` times a minute, and as many at once after a pause.

    At most 10,000 names are remembered; a name that was forgotten starts with a full bucket.
    """

    def __init__(self, per_minute: int, clock: MonotonicClock) -> None:
        self._size = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_seconds(self, name: str) -> int:
        """Count one try and return 0, or return after how many seconds the next one will pass, at least 1."""
        now = self._clock.monotonic()
        level, since = self._buckets.pop(name, (self._size, now))
        level = min(self._size, level + (now - since) * self._per_second)
        passes = level >= 1
        if len(self._buckets) >= NAMES_MAX:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[name] = (level - 1 if passes else level, now)
        return 0 if passes else max(1, math.ceil((1 - level) / self._per_second))
