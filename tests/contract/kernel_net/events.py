"""Events for tests of what carries them."""

from __future__ import annotations

from datetime import UTC, datetime

from kernel.ports import Commit, LogPosition, NewEvent, RecordedEvent

RECORDED_AT = datetime(2026, 1, 2, 14, 30, 0, 123456, tzinfo=UTC)


def recorded(number: int, *, stream_id: str = "", version: int = 1) -> RecordedEvent:
    """Return the event at log position (number, number)."""
    stream = stream_id or f"order-{number}"
    return RecordedEvent(LogPosition(number, number), stream, version, "test.v1.Happened", b"payload-%d" % number, b"", RECORDED_AT)


def commit(stream_id: str, expected_version: int, count: int = 1) -> Commit:
    """Return a commit of some events on one stream."""
    return Commit.single(stream_id, expected_version, *[NewEvent("test.v1.Happened", b"x") for _ in range(count)])
