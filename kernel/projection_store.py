"""Where a projection keeps its place, in the read model's transaction: a cursor into each source's log, and each stream's applied version.

An applied version stands in the inbox, or with the read model, which then needs no second row for every stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from kernel.errors import LeaseLostError
from kernel.lease import PostgresLeases
from kernel.ports import LOG_START, HeldLease, Leases, LogPosition, RecordedEvent
from kernel.postgres.database import Database, Transaction

TRANSACTION_EVENTS_MAX = 200
"""Events, plain ones aside, that one transaction applies: what it locks, calls wait for."""

Handler = Callable[[Any, Sequence[RecordedEvent]], Awaitable[None]]
"""Changes the read model in the given transaction for events in log order; each event is given once, whatever repeats. Raise to refuse."""


class ReadModel(Protocol):
    """What a projection changes. A model without versions of its own is a `Handler` in `Inboxed`."""

    def plain(self, events: Sequence[RecordedEvent]) -> Mapping[str, Any]:
        """Return the streams whose events of this batch `settle` may apply apart from the rest, each with what it needs for that; pure."""
        ...

    async def settle(self, transaction: Any, plain: Mapping[str, Any]) -> Collection[str]:
        """Apply plain streams whose version in the read model is right before their events, in a transaction of their own.

        It is the condition on the version that makes repetitions harmless here, so it must be part of the write.

        Returns:
            The streams that were left as they are: repeated, incomplete, or not plain after all. They go the long way.
        """
        ...

    async def applied(self, transaction: Any, stream_ids: Collection[str]) -> Mapping[str, int]:
        """Return the versions that the model keeps; absent for streams of which it keeps none. The inbox's count where they are above."""
        ...

    async def apply(self, transaction: Any, events: Sequence[RecordedEvent]) -> Collection[str]:
        """Apply events in log order, each given once, whatever repeats. Raise to refuse.

        Returns:
            The streams whose version the model has raised to that of their last event itself; the others' goes to the inbox.
        """
        ...


class Inboxed:
    """A read model that keeps no versions: all are in the inbox."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def plain(self, events: Sequence[RecordedEvent]) -> Mapping[str, Any]:
        """See `ReadModel.plain`."""
        return {}

    async def settle(self, transaction: Any, plain: Mapping[str, Any]) -> Collection[str]:
        """See `ReadModel.settle`."""
        return plain

    async def applied(self, transaction: Any, stream_ids: Collection[str]) -> Mapping[str, int]:
        """See `ReadModel.applied`."""
        return {}

    async def apply(self, transaction: Any, events: Sequence[RecordedEvent]) -> Collection[str]:
        """See `ReadModel.apply`."""
        await self._handler(transaction, events)
        return ()


class VersionGapError(Exception):
    """An event came whose predecessor in its stream was never applied. Between log and read model something is missing."""

    def __init__(self, event: RecordedEvent, applied_version: int) -> None:
        super().__init__(f"{event.event_id} came after version {applied_version} at log position {event.position}")
        self.event = event


class ProjectionStore(Protocol):
    """Applies events to a read model, exactly once."""

    async def load(self, projection: str, source: str) -> LogPosition:
        """Return the cursor: every event up to it has been applied. The log's beginning for a new projection."""
        ...

    async def apply(
        self, lease: HeldLease, projection: str, source: str, through: LogPosition, events: Sequence[RecordedEvent], model: ReadModel
    ) -> int:
        """Apply those of the events that are new and move the cursor to `through`; return how many were new.

        Raises:
            LeaseLostError: the lease is not held.
            VersionGapError: an event's predecessor is missing.
            Exception: what the model raised. In each case the cursor stands. Some of the events may have been applied; telling all again
                applies the others.
        """
        ...


def fresh(events: Sequence[RecordedEvent], versions: dict[str, int]) -> list[RecordedEvent]:
    """Return the events above the applied versions, and raise `versions` to them.

    Raises:
        VersionGapError: a version is missing in between.
    """
    new = []
    for event in events:
        applied = versions.get(event.stream_id, 0)
        if event.version > applied + 1:
            raise VersionGapError(event, applied)
        if event.version == applied + 1:
            versions[event.stream_id] = event.version
            new.append(event)
    return new


def remaining(events: Sequence[RecordedEvent], plain: Collection[str], left: Collection[str]) -> list[RecordedEvent]:
    """Return the events that are not settled, in order: of streams that are not plain, or were left."""
    return [event for event in events if event.stream_id not in plain or event.stream_id in left]


def highest(inbox: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, int]:
    """Return the applied version of each stream, whichever of the two knows more."""
    return {stream_id: max(inbox.get(stream_id, 0), kept.get(stream_id, 0)) for stream_id in inbox.keys() | kept.keys()}


class PostgresProjectionStore:
    """In the consuming service's schema (`kernel/migrations/0003_delivery.sql`); models get the `Transaction`."""

    def __init__(self, database: Database, leases: PostgresLeases) -> None:
        self._database = database
        self._leases = leases

    async def load(self, projection: str, source: str) -> LogPosition:
        """See `ProjectionStore.load`."""
        row = await self._database.fetchrow(
            "SELECT tx, position FROM projection_cursor WHERE projection = $1 AND source = $2", projection, source
        )
        return LOG_START if row is None else LogPosition(row["tx"], row["position"])

    async def apply(
        self, lease: HeldLease, projection: str, source: str, through: LogPosition, events: Sequence[RecordedEvent], model: ReadModel
    ) -> int:
        """See `ProjectionStore.apply`.

        Plain streams are a transaction of their own: what the rest reads and locks comes before rows that plain streams write. The rest is
        one or several; the last one moves the cursor.
        """
        plain = model.plain(events)
        if plain:
            async with self._database.transaction() as transaction:
                await self._leases.assert_held(transaction, lease)
                left = await model.settle(transaction, plain)
                rest: Sequence[RecordedEvent] = remaining(events, plain, left)
                if not rest:
                    await _move(transaction, projection, source, through)
            if not rest:
                return len(events)
        else:
            rest = events
        new = 0
        for start in range(0, max(len(rest), 1), TRANSACTION_EVENTS_MAX):
            part = rest[start : start + TRANSACTION_EVENTS_MAX]
            async with self._database.transaction() as transaction:
                # The lease's share lock also keeps a second replica from applying anything until this transaction has ended.
                await self._leases.assert_held(transaction, lease)
                new += await self._apply(transaction, projection, source, part, model)
                if start + len(part) == len(rest):
                    await _move(transaction, projection, source, through)
        return len(events) - len(rest) + new

    async def _apply(
        self, transaction: Transaction, projection: str, source: str, events: Sequence[RecordedEvent], model: ReadModel
    ) -> int:
        streams = {event.stream_id for event in events}
        versions = highest(await _applied(transaction, projection, source, streams), await model.applied(transaction, streams))
        new = fresh(events, versions)
        if new:
            kept = await model.apply(transaction, new)
            unkept = {event.stream_id for event in new}.difference(kept)
            if unkept:
                await _remember(transaction, projection, source, {stream_id: versions[stream_id] for stream_id in sorted(unkept)})
        return len(new)


async def _move(transaction: Transaction, projection: str, source: str, through: LogPosition) -> None:
    await transaction.execute(
        "INSERT INTO projection_cursor (projection, source, tx, position) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (projection, source) DO UPDATE SET tx = excluded.tx, position = excluded.position",
        projection,
        source,
        through.tx,
        through.position,
    )


async def _applied(transaction: Transaction, projection: str, source: str, stream_ids: set[str]) -> dict[str, int]:
    rows = await transaction.fetch(
        "SELECT stream_id, version FROM projection_inbox WHERE projection = $1 AND source = $2 AND stream_id = ANY ($3::text[])",
        projection,
        source,
        list(stream_ids),
    )
    return {row["stream_id"]: row["version"] for row in rows}


async def _remember(transaction: Transaction, projection: str, source: str, versions: dict[str, int]) -> None:
    await transaction.execute(
        "INSERT INTO projection_inbox (projection, source, stream_id, version)"
        " SELECT $1, $2, u.stream_id, u.version FROM unnest($3::text[], $4::bigint[]) AS u (stream_id, version)"
        " ON CONFLICT (projection, source, stream_id) DO UPDATE SET version = excluded.version",
        projection,
        source,
        list(versions),
        list(versions.values()),
    )


class MemoryProjectionStore:
    """In memory, for tests and simulation; models get None. What one changes before it raises is its own affair."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._cursors: dict[tuple[str, str], LogPosition] = {}
        self._versions: dict[tuple[str, str], dict[str, int]] = {}

    async def load(self, projection: str, source: str) -> LogPosition:
        """See `ProjectionStore.load`."""
        return self._cursors.get((projection, source), LOG_START)

    async def apply(
        self, lease: HeldLease, projection: str, source: str, through: LogPosition, events: Sequence[RecordedEvent], model: ReadModel
    ) -> int:
        """See `ProjectionStore.apply`."""
        if not self._leases.still_mine(lease):
            raise LeaseLostError(lease.name, lease.epoch)
        plain = model.plain(events)
        rest = remaining(events, plain, await model.settle(None, plain)) if plain else events
        inbox = self._versions.get((projection, source), {})
        versions = highest(inbox, await model.applied(None, {event.stream_id for event in rest}))
        new = fresh(rest, versions)
        if new:
            kept = await model.apply(None, new)
            inbox = inbox | {event.stream_id: event.version for event in new if event.stream_id not in kept}
        self._versions[projection, source] = inbox
        self._cursors[projection, source] = through
        return len(events) - len(rest) + len(new)
