"""The event log in PostgreSQL. The SQL half is `kernel/migrations/0001_events.sql`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import asyncpg

from kernel.errors import StaleVersionError, TrademeshError
from kernel.events.batch import check_batch, group_by_stream
from kernel.events.tail import POLL_SECONDS_MAX, Wakeup, follow
from kernel.ports import READ_LIMIT_MAX, Commit, CommitOutcome, LogPosition, RecordedEvent
from kernel.postgres.database import Connection, Database, Record, Transaction
from kernel.postgres.driver_errors import mapped_errors

RECONNECT_SECONDS = 0.5
NOTIFY_PAUSE_SECONDS = 0.02
"""At most 50 notifications a second and process, each a commit that wakes every replica. The first after a pause goes out at once, and
readers in the same process are woken without one."""

_COLUMNS = "tx, position, stream_id, version, type, payload, metadata, recorded_at"
_APPEND = """
SELECT tx, own_tx, positions, met, refused
FROM event_append($1::text[], $2, $3::int[], $4::int[], $5::int[], $6::int[], $7::int[],
                  $8::int[], $9::text[], $10::int[], $11::text[], $12::bytea[], $13::bytea[])
"""
_LOCK = "SELECT event_lock($1::text[])"
_READ_STREAM = f"SELECT {_COLUMNS} FROM event WHERE stream_id = $1 AND version > $2 ORDER BY version LIMIT $3"  # noqa: S608 (constants)
_READ_STREAMS = f"SELECT {_COLUMNS} FROM event WHERE stream_id = ANY ($1::text[]) ORDER BY stream_id, version"  # noqa: S608 (constants)
_HEADS = "SELECT stream_id, version FROM event_stream WHERE stream_id = ANY ($1::text[])"
# Nothing can appear below the oldest transaction that still runs, so what lies below it is settled.
_READ_AFTER = f"""
SELECT {_COLUMNS} FROM event
WHERE (tx, position) > ($1::text::xid8, $2) AND tx < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY tx, position LIMIT $3
"""  # noqa: S608 (constants)
_HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot()) AS tx"
# Nobody asks whether a notification was durable, so it waits for no disk.
_NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify('event.' || current_schema(), '')"
_LAG = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0)::float8
FROM event WHERE tx >= pg_snapshot_xmin(pg_current_snapshot())
"""


class PostgresEventStore:
    """A service's log in its own schema. Many replicas may write and read it at once."""

    def __init__(self, database: Database, *, poll_seconds_max: float = POLL_SECONDS_MAX) -> None:
        self._database = database
        self._poll_seconds_max = poll_seconds_max
        self._wakeup = Wakeup()
        self._listener: asyncio.Task[None] | None = None
        self._notifier = _Notifier(database)

    async def close(self) -> None:
        """Stop listening and notifying; the pool stays with its owner."""
        await self._notifier.close()
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
            self._listener = None

    async def lock(self, transaction: Transaction, stream_ids: Sequence[str]) -> dict[str, int]:
        """Lock the heads of these streams until the transaction ends and return their versions, to decide again on certain state.

        Lock once, before the service's own rows, and append in the same transaction: any other order can deadlock.
        """
        ordered = sorted(set(stream_ids))
        return dict(zip(ordered, await transaction.fetchval(_LOCK, ordered), strict=True)) if ordered else {}

    async def append(self, transaction: Transaction, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """Record a batch inside the caller's transaction, in one round trip; see `EventStore.commit` for what the outcomes mean.

        The caller adds its own rows for the commits that hold, afterwards and in the same transaction. Once per transaction, and before
        the service's own rows are locked: heads are locked in stream id order, and that order is what excludes deadlocks.
        """
        if not commits:
            return []
        check_batch(commits)
        with mapped_errors():
            row = await _call(transaction.connection, commits)
        transaction.own_tx = row["own_tx"]
        transaction.after_commit(self._appended)
        return _outcomes(commits, row)

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """See `EventStore.commit`; one statement that commits by itself."""
        if not commits:
            return []
        check_batch(commits)
        async with self._database.write_connection() as connection:
            row = await _call(connection, commits)
        self._appended()
        return _outcomes(commits, row)

    def announce(self) -> None:
        """Wake the log's followers, here and in other processes: events were committed by a statement of the service's own that calls
        `event_append` or `event_extend`.
        """
        self._appended()

    async def read_stream(self, stream_id: str, *, after_version: int = 0, limit: int = READ_LIMIT_MAX) -> list[RecordedEvent]:
        """See `EventReader.read_stream`."""
        return [_recorded(row) for row in await self._database.fetch(_READ_STREAM, stream_id, after_version, limit)]

    async def read_streams(self, stream_ids: Sequence[str]) -> dict[str, list[RecordedEvent]]:
        """See `EventReader.read_streams`."""
        rows = await self._database.fetch(_READ_STREAMS, list(stream_ids))
        return dict(group_by_stream([_recorded(row) for row in rows]))

    async def heads(self, stream_ids: Sequence[str]) -> dict[str, int]:
        """See `EventReader.heads`."""
        found = {row["stream_id"]: row["version"] for row in await self._database.fetch(_HEADS, list(stream_ids))}
        return {stream_id: found.get(stream_id, 0) for stream_id in stream_ids}

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """See `EventReader.read_after`."""
        if not 1 <= limit <= READ_LIMIT_MAX:
            raise ValueError(f"limit must be 1 to {READ_LIMIT_MAX}: {limit}")
        return [_recorded(row) for row in await self._database.fetch(_READ_AFTER, str(cursor.tx), cursor.position, limit)]

    async def horizon(self) -> LogPosition:
        """See `EventReader.horizon`."""
        # Positions start at 1, so this lies before every event of the oldest running transaction and after all settled ones.
        return LogPosition(await self._database.fetchval(_HORIZON), 0)

    async def lag_seconds(self) -> float:
        """Return the age of the oldest event that readers cannot see yet, 0 if there is none. A long one means an idle writer: an alarm."""
        lag: float = await self._database.fetchval(_LAG)
        return max(lag, 0.0)

    def subscribe(self, cursor: LogPosition, *, limit: int = 512) -> AsyncGenerator[list[RecordedEvent], None]:
        """See `EventReader.subscribe`."""
        if self._listener is None or self._listener.done():
            self._listener = asyncio.get_running_loop().create_task(self._listen(), name="event-log-listener")
        return follow(self, self._wakeup, cursor, limit=limit, poll_seconds_max=self._poll_seconds_max)

    def _appended(self) -> None:
        self._wakeup.wake()
        self._notifier.notify()

    async def _listen(self) -> None:
        """Turn other processes' notifications into wake-ups. While the connection is down, subscribers live on polling."""
        while True:
            with contextlib.suppress(TrademeshError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await self._listen_once()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        connection = await self._database.dedicated()
        ended = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: ended.set())
            channel = await connection.fetchval("SELECT 'event.' || current_schema()")
            await connection.add_listener(channel, lambda *_: self._wakeup.wake())
            self._wakeup.wake()
            await ended.wait()
        finally:
            connection.terminate()


class _Notifier:
    """Tells other processes that the log grew: after the commit, at most one NOTIFY under way, and then a pause.

    A NOTIFY inside the writing transaction would hold a lock of the whole cluster during its commit, so that no two commits share an fsync.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def notify(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="event-log-notifier")
        else:
            self._again = True

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            # Readers poll, so a lost notification costs them a fraction of a second and nothing else.
            with contextlib.suppress(TrademeshError):
                await self._database.fetchval(_NOTIFY)
            await asyncio.sleep(NOTIFY_PAUSE_SECONDS)


async def _call(connection: Connection, commits: Sequence[Commit]) -> Record:
    final: dict[str, int] = {}
    fresh: set[str] = set()
    for commit in commits:
        for append in commit.appends:
            if append.expected_version == 0:
                fresh.add(append.stream_id)
            final[append.stream_id] = append.expected_version + len(append.events)
    streams = sorted(fresh) + sorted(final.keys() - fresh)
    slots = {stream_id: slot for slot, stream_id in enumerate(streams, start=1)}
    rows = [(number, append) for number, commit in enumerate(commits, start=1) for append in commit.appends]
    events = [
        (row, append.stream_id, append.expected_version + offset, event)
        for row, (_, append) in enumerate(rows, start=1)
        for offset, event in enumerate(append.events, start=1)
    ]
    record = await connection.fetchrow(
        _APPEND,
        streams,
        len(fresh),
        [final[stream_id] for stream_id in streams],
        [number for number, _ in rows],
        [slots[append.stream_id] for _, append in rows],
        [append.expected_version for _, append in rows],
        [len(append.events) for _, append in rows],
        [event[0] for event in events],
        [event[1] for event in events],
        [event[2] for event in events],
        [event[3].type for event in events],
        [event[3].payload for event in events],
        [event[3].metadata for event in events],
    )
    assert record is not None
    return record


def _outcomes(commits: Sequence[Commit], row: Record) -> list[CommitOutcome]:
    tx, positions, met = row["tx"], iter(row["positions"]), iter(row["met"])
    outcomes: list[CommitOutcome] = []
    for commit in commits:
        seen = [(append, next(met)) for append in commit.appends]
        stale = next(((append, actual) for append, actual in seen if actual not in (None, append.expected_version)), None)
        if stale is not None:
            outcomes.append(StaleVersionError(stale[0].stream_id, stale[0].expected_version, stale[1]))
        else:
            last = [next(positions) for append in commit.appends for _ in append.events][-1]
            outcomes.append(LogPosition(tx, last))
    assert next(positions, None) is None, "the store recorded another number of events than it was given"
    return outcomes


def _recorded(row: Record) -> RecordedEvent:
    tx, position, stream_id, version, kind, payload, metadata, recorded_at = row
    return RecordedEvent(LogPosition(tx, position), stream_id, version, kind, payload, metadata, recorded_at)
