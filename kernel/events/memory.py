"""The event log in memory, for tests and simulation; it passes the contract suite that PostgreSQL passes."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal

from kernel.events.batch import check_batch, fold_commit
from kernel.events.tail import Wakeup, follow
from kernel.ports import LOG_START, READ_LIMIT_MAX, Clock, Commit, CommitOutcome, LogPosition, RecordedEvent

Fault = Callable[[Literal["before", "after"]], None]


class MemoryEventStore:
    """A log that lives as long as the object. `append` is synchronous, so a memory store of a service can add its own rows atomically.

    Args:
        clock: source of `recorded_at`.
        fault: called around the recording of each batch; what it raises the caller gets. Raised "before", nothing was recorded;
            raised "after", everything was and only the answer is lost.
    """

    def __init__(self, clock: Clock, *, fault: Fault | None = None) -> None:
        self._clock = clock
        self._fault = fault
        self._log: list[RecordedEvent] = []
        self._streams: dict[str, list[RecordedEvent]] = {}
        self._tx = 0
        self._wakeup = Wakeup()

    def append(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """Record a batch now; see `EventStore.commit`."""
        check_batch(commits)
        if self._fault is not None:
            self._fault("before")
        self._tx += 1
        heads = {append.stream_id: self._head(append.stream_id) for commit in commits for append in commit.appends}
        outcomes = [fold_commit(heads, commit) or self._record(commit) for commit in commits]
        self._wakeup.wake()
        if self._fault is not None:
            self._fault("after")
        return outcomes

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """See `EventStore.commit`."""
        await asyncio.sleep(0)
        return self.append(commits)

    async def read_stream(self, stream_id: str, *, after_version: int = 0, limit: int = READ_LIMIT_MAX) -> list[RecordedEvent]:
        """See `EventReader.read_stream`."""
        return self._streams.get(stream_id, [])[after_version : after_version + limit]

    async def read_streams(self, stream_ids: Sequence[str]) -> dict[str, list[RecordedEvent]]:
        """See `EventReader.read_streams`."""
        return {stream_id: list(self._streams[stream_id]) for stream_id in stream_ids if stream_id in self._streams}

    async def heads(self, stream_ids: Sequence[str]) -> dict[str, int]:
        """See `EventReader.heads`."""
        return {stream_id: self._head(stream_id) for stream_id in stream_ids}

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """See `EventReader.read_after`."""
        if not 1 <= limit <= READ_LIMIT_MAX:
            raise ValueError(f"limit must be 1 to {READ_LIMIT_MAX}: {limit}")
        start = bisect.bisect_right(self._log, cursor, key=lambda event: event.position)
        return self._log[start : start + limit]

    async def horizon(self) -> LogPosition:
        """See `EventReader.horizon`."""
        return self._log[-1].position if self._log else LOG_START

    def subscribe(self, cursor: LogPosition, *, limit: int = 512) -> AsyncGenerator[list[RecordedEvent], None]:
        """See `EventReader.subscribe`."""
        return follow(self, self._wakeup, cursor, limit=limit)

    def _head(self, stream_id: str) -> int:
        return len(self._streams.get(stream_id, ()))

    def _record(self, commit: Commit) -> LogPosition:
        recorded_at = self._clock.now()
        for append in commit.appends:
            stream = self._streams.setdefault(append.stream_id, [])
            assert len(stream) == append.expected_version
            for event in append.events:
                position = LogPosition(self._tx, len(self._log) + 1)
                recorded = RecordedEvent(
                    position, append.stream_id, len(stream) + 1, event.type, event.payload, event.metadata, recorded_at
                )
                stream.append(recorded)
                self._log.append(recorded)
        return self._log[-1].position
