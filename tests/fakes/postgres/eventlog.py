"""The table `event`, kept so that streams and log order are at hand."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from kernel.ports import LogPosition, RecordedEvent


class EventLog:
    """Committed events."""

    def __init__(self) -> None:
        self.ordered: list[RecordedEvent] = []
        self.streams: dict[str, list[RecordedEvent]] = {}

    def add(self, events: Sequence[RecordedEvent]) -> None:
        """Add the events of a transaction that has committed.

        Raises:
            AssertionError: a version of a stream is missing or taken; the heads were not locked.
        """
        for event in events:
            stream = self.streams.setdefault(event.stream_id, [])
            assert event.version == len(stream) + 1, f"{event.event_id} follows version {len(stream)}"
            stream.append(event)
            bisect.insort(self.ordered, event, key=lambda item: item.position)

    def after(self, cursor: LogPosition, limit: int, *, below_tx: int) -> list[RecordedEvent]:
        """Return events after a cursor, of transactions below an id."""
        start = bisect.bisect_right(self.ordered, cursor, key=lambda item: item.position)
        page = self.ordered[start : start + limit]
        return [event for event in page if event.position.tx < below_tx]
