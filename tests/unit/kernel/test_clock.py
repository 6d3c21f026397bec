from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kernel.clock import ManualClock, SystemClock


def test_system_clock_agrees_with_itself() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert abs(clock.now().timestamp() - clock.now_ns() / 1e9) < 5
    assert clock.monotonic() <= clock.monotonic()


def test_manual_clock_moves_only_by_hand() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    clock = ManualClock(start)
    before = clock.monotonic()
    clock.advance(1.5)
    clock.step(-60)
    assert clock.now() == start + timedelta(seconds=-58.5)
    assert clock.monotonic() == before + 1.5
    assert clock.now_ns() == int(clock.now().timestamp() * 1e9)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="time zone"):
        ManualClock(datetime(2026, 3, 1))  # noqa: DTZ001 (that is what is refused)
