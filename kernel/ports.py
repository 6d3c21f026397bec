"""Ports: what the domain and the services need from outside, as Protocols and the plain values that cross them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from kernel.errors import StaleVersionError

EVENT_TYPE_LENGTH_MAX = 128
STREAM_ID_LENGTH_MAX = 128
PAYLOAD_BYTES_MAX = 256 * 1024
METADATA_BYTES_MAX = 16 * 1024
READ_LIMIT_MAX = 10_000


class Clock(Protocol):
    """Time, injected wherever it is needed."""

    def now(self) -> datetime:
        """Return the wall time, UTC and aware. For records; it may step back."""
        ...

    def now_ns(self) -> int:
        """Return the wall time in nanoseconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards, for intervals and deadlines."""
        ...


class IdSource(Protocol):
    """Fresh identifiers, injected wherever they are needed."""

    def new_id(self) -> str:
        """Return a fresh UUIDv7 in lowercase canonical text, above all earlier ones of this source."""
        ...


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be recorded.

    `type` is a stable public name such as `oms.v1.OrderAccepted` (at most 128 characters), `payload` its protobuf (at most 256 KiB),
    `metadata` the encoded context: who, why, trace (at most 16 KiB).
    """

    type: str
    payload: bytes
    metadata: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamAppend:
    """Events for one stream, decided on its state at `expected_version`; 0 means that the stream must not exist yet."""

    stream_id: str
    expected_version: int
    events: tuple[NewEvent, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one command writes to the log: one append per stream, all of them or none. At least one stream, each at most once."""

    appends: tuple[StreamAppend, ...]

    @classmethod
    def single(cls, stream_id: str, expected_version: int, *events: NewEvent) -> Self:
        """Return a commit on one stream."""
        return cls((StreamAppend(stream_id, expected_version, events),))


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A place in one service's log; positions compare in reading order. `LogPosition(0, 0)` is before the first event."""

    tx: int
    position: int

    def __str__(self) -> str:
        return f"{self.tx}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what `str` wrote.

        Raises:
            ValueError: not of the form `<tx>.<position>` with decimal digits, each below 2**63.
        """
        tx, separator, position = text.partition(".")
        if not separator or not (tx.isascii() and tx.isdigit() and position.isascii() and position.isdigit()) or len(text) > 39:
            raise ValueError(f"not a log position: {text[:64]!r}")
        parsed = cls(int(tx), int(position))
        if max(parsed.tx, parsed.position) >= 1 << 63:
            raise ValueError(f"log position out of range: {text}")
        return parsed


LOG_START = LogPosition(0, 0)


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event of the log. `version` counts from 1 in its stream; `recorded_at` is the store's wall time, UTC."""

    position: LogPosition
    stream_id: str
    version: int
    type: str
    payload: bytes
    metadata: bytes
    recorded_at: datetime

    @property
    def event_id(self) -> str:
        """Return the identity by which consumers recognise a repetition: stream and version never change."""
        return f"{self.stream_id}@{self.version}"


CommitOutcome = LogPosition | StaleVersionError
"""What became of one commit of a batch: the position of its last event, or why it contributed nothing."""


class EventReader(Protocol):
    """The reading half of a service's log."""

    async def read_stream(self, stream_id: str, *, after_version: int = 0, limit: int = READ_LIMIT_MAX) -> list[RecordedEvent]:
        """Return the events of one stream above a version, in version order; none for an unknown stream."""
        ...

    async def read_streams(self, stream_ids: Sequence[str]) -> dict[str, list[RecordedEvent]]:
        """Return all events of many streams in one round trip, each in version order; unknown streams are absent."""
        ...

    async def heads(self, stream_ids: Sequence[str]) -> dict[str, int]:
        """Return the current version of each stream; 0 for unknown ones."""
        ...

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """Return at most `limit` (1 to 10,000) settled events after the cursor, in log order.

        Settled means that nothing can still appear before them, and within a stream the order is that of its versions. The cursor
        for the next call is the position of the last event; an empty answer leaves it where it is.
        """
        ...

    async def horizon(self) -> LogPosition:
        """Return a position up to which the log is settled now: every event that any later read returns after it is new."""
        ...

    def subscribe(self, cursor: LogPosition, *, limit: int = 512) -> AsyncGenerator[list[RecordedEvent], None]:
        """Yield batches of 1 to `limit` events after the cursor, then follow the log until closed. Close it with `aclose`."""
        ...


class EventStore(EventReader, Protocol):
    """A service's log. The unit is a commit; a batch is many commits of many callers."""

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """Record a batch durably and return one outcome per commit, in order.

        Commits see each other in batch order: one that appends to a stream expects the version that the earlier ones leave. A commit
        with a stale version contributes nothing and fails alone.

        Raises:
            UnavailableError: nothing of the batch was recorded.
            OutcomeUnknownError: all of it or nothing was recorded; look at the streams.
            ValueError: a commit is malformed (no events, a stream twice, a bound exceeded); a bug of the caller.
        """
        ...


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease as its owner sees it. `epoch` fences: every takeover raises it. `deadline` is on the owner's monotonic clock, in seconds."""

    name: str
    owner: str
    epoch: int
    deadline: float


class Leases(Protocol):
    """Leases on what must have one owner: a FIX session, a venue connection, a feed, a relay partition."""

    async def acquire(self, name: str) -> HeldLease | None:
        """Take the lease if it is free, expired or already ours, with a new epoch; None while somebody else holds it."""
        ...

    async def renew(self, lease: HeldLease) -> HeldLease:
        """Extend the lease, epoch unchanged.

        Raises:
            LeaseLostError: it expired or was taken over.
        """
        ...

    async def release(self, lease: HeldLease) -> None:
        """Let the lease expire now; nothing happens if it is no longer ours."""
        ...

    def still_mine(self, lease: HeldLease) -> bool:
        """Say whether the owner's own deadline is ahead. Ask immediately before each write to a socket."""
        ...
