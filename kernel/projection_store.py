"""Where a projection keeps its place: a cursor into each source's log and an inbox of stream versions, in the read model's transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from kernel.errors import LeaseLostError
from kernel.lease import PostgresLeases
from kernel.ports import LOG_START, HeldLease, Leases, LogPosition, RecordedEvent
from kernel.postgres.database import Database, Transaction

Handler = Callable[[Any, Sequence[RecordedEvent]], Awaitable[None]]
"""Changes the read model in the given transaction for events in log order; each event is given once, whatever repeats. Raise to refuse."""


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
        self, lease: HeldLease, projection: str, source: str, through: LogPosition, events: Sequence[RecordedEvent], handler: Handler
    ) -> int:
        """Apply those of the events that are new and move the cursor to `through`, all or nothing; return how many were new.

        Raises:
            LeaseLostError: the lease is not held.
            VersionGapError: an event's predecessor is missing.
            Exception: what the handler raised. In each case nothing was changed.
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


class PostgresProjectionStore:
    """In the consuming service's schema (`kernel/migrations/0003_delivery.sql`); handlers get the `Transaction`."""

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
        self, lease: HeldLease, projection: str, source: str, through: LogPosition, events: Sequence[RecordedEvent], handler: Handler
    ) -> int:
        """See `ProjectionStore.apply`."""
        async with self._database.transaction() as transaction:
            # The lease's share lock also keeps a second replica out of the inbox until this transaction has ended.
            await self._leases.assert_held(transaction, lease)
            versions = await _applied(transaction, projection, source, {event.stream_id for event in events})
            new = fresh(events, versions)
            if new:
                await handler(transaction, new)
                await _remember(transaction, projection, source, {event.stream_id: versions[event.stream_id] for event in new})
            await transaction.execute(
                "INSERT INTO projection_cursor (projection, source, tx, position) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (projection, source) DO UPDATE SET tx = excluded.tx, position = excluded.position",
                projection,
                source,
                through.tx,
                through.position,
            )
        return len(new)


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
    """In memory, for tests and simulation; handlers get None. What a handler changes before it raises is its own affair."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._cursors: dict[tuple[str, str], LogPosition] = {}
        self._versions: dict[tuple[str, str], dict[str, int]] = {}

    async def load(self, projection: str, source: str) -> LogPosition:
        """See `ProjectionStore.load`."""
        return self._cursors.get((projection, source), LOG_START)

    async def apply(
        self, lease: HeldLease, projection: str, source: str, through: LogPosition, events: Sequence[RecordedEvent], handler: Handler
    ) -> int:
        """See `ProjectionStore.apply`."""
        if not self._leases.still_mine(lease):
            raise LeaseLostError(lease.name, lease.epoch)
        versions = dict(self._versions.get((projection, source), {}))
        new = fresh(events, versions)
        if new:
            await handler(None, new)
        self._versions[projection, source] = versions
        self._cursors[projection, source] = through
        return len(new)
