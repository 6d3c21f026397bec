"""Clocks: the machine's, and one that a test moves by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The machine's clocks. Wall time is for records; only `monotonic` measures intervals."""

    def now(self) -> datetime:
        """Return the wall time, UTC, to the microsecond. It may step back: never order by it."""
        return datetime.now(UTC)

    def now_ns(self) -> int:
        """Return the wall time in nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds since an arbitrary origin, including time the machine was suspended (CLOCK_BOOTTIME).

        CLOCK_MONOTONIC stops in suspend, and a laptop that slept through its lease would think that it still holds it.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class ManualClock:
    """A clock that stands still until `advance`; wall and monotonic time move together unless `step` moves the wall alone."""

    def __init__(self, start: datetime = datetime(2026, 1, 2, 14, 30, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError("start must carry a time zone")
        self._now = start.astimezone(UTC)
        self._monotonic = 1_000.0

    def now(self) -> datetime:
        """Return the wall time, UTC."""
        return self._now

    def now_ns(self) -> int:
        """Return the wall time in nanoseconds since 1970."""
        return (self._now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        if seconds < 0:
            raise ValueError("time does not pass backwards; use step for the wall clock")
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Correct the wall clock alone, either way, as NTP does."""
        self._now += timedelta(seconds=seconds)
