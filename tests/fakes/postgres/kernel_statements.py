"""The kernel's statements: log, leases, delivery, and what `Database` asks itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from kernel import lease
from kernel.events import postgres as events
from kernel.ports import LogPosition, RecordedEvent
from tests.fakes.postgres.rows import Row, columns, rows
from tests.fakes.postgres.server import Handler, Tx

TABLES = ("event_stream", "lease", "relay_progress", "projection_cursor", "projection_inbox")

_HEAD = columns("stream_id", "version", "tx")
_LEASE = columns("name", "owner", "epoch", "expires_at")
_EVENT = ("tx", "position", "stream_id", "version", "type", "payload", "metadata", "recorded_at")


def one(value: Any, name: str = "value") -> list[Row]:
    """Return a single value as the server does."""
    return rows((name,), [(value,)])


def event_rows(found: Iterable[RecordedEvent]) -> list[Row]:
    """Return events as rows of the table."""
    return rows(
        _EVENT,
        [(e.position.tx, e.position.position, e.stream_id, e.version, e.type, e.payload, e.metadata, e.recorded_at) for e in found],
    )


def stream_events(tx: Tx, stream_id: str) -> list[RecordedEvent]:
    """Return a stream as a transaction sees it."""
    own = [event for event in tx.events if event.stream_id == stream_id]
    return [*tx.server.log.streams.get(stream_id, ()), *own]


# The log.


async def lock_heads(tx: Tx, streams: Sequence[str]) -> list[Row]:
    """`event_lock`."""
    for stream_id in streams:
        await tx.lock("event_stream", stream_id)
        if tx.get("event_stream", stream_id) is None:
            tx.put("event_stream", stream_id, Row(_HEAD, (stream_id, 0, tx.own_xid())))
    return one([_head(tx, stream_id)["version"] for stream_id in streams])


def _head(tx: Tx, stream_id: str) -> Row:
    head = tx.get("event_stream", stream_id)
    return Row(_HEAD, (stream_id, 0, 0)) if head is None else head


async def append(
    tx: Tx,
    streams: Sequence[str],
    fresh: int,
    final: Sequence[int],
    row_commit: Sequence[int],
    row_stream: Sequence[int],
    row_expected: Sequence[int],
    row_count: Sequence[int],
    event_row: Sequence[int],
    event_stream: Sequence[str],
    event_version: Sequence[int],
    event_type: Sequence[str],
    event_payload: Sequence[bytes],
    event_metadata: Sequence[bytes],
) -> list[Row]:
    """`event_append`: fresh heads are inserted first, then all that exist are locked in one ascending pass."""
    own_tx = tx.own_xid()
    inserted = set()
    for stream_id in streams[:fresh]:
        if await tx.claim("event_stream", stream_id):
            inserted.add(stream_id)
    await tx.lock_all("event_stream", sorted(set(streams) - inserted))
    heads = {stream_id: _head(tx, stream_id) for stream_id in streams}
    log_tx = max([own_tx, *(head["tx"] for head in heads.values())])
    versions = {stream_id: head["version"] for stream_id, head in heads.items()}
    met: list[int | None] = [None] * len(row_commit)
    for places in _by_commit(row_commit):
        at = {place: versions[streams[row_stream[place] - 1]] for place in places}
        if any(at[place] != row_expected[place] for place in places):
            for place in places:
                met[place] = at[place]
        else:
            for place in places:
                versions[streams[row_stream[place] - 1]] = row_expected[place] + row_count[place]
    positions = []
    for place, stream_id, version, kind, payload, metadata in zip(
        event_row, event_stream, event_version, event_type, event_payload, event_metadata, strict=True
    ):
        if met[place - 1] is None:
            position = LogPosition(log_tx, tx.next_number("event"))
            tx.events.append(RecordedEvent(position, stream_id, version, kind, payload, metadata, tx.now()))
            positions.append(position.position)
    for stream_id, version in versions.items():
        tx.put("event_stream", stream_id, Row(_HEAD, (stream_id, version, max(log_tx, heads[stream_id]["tx"]))))
    refused = sum(version is not None for version in met)
    return rows(("tx", "own_tx", "positions", "met", "refused"), [(log_tx, own_tx, positions, met, refused)])


async def extend(
    tx: Tx,
    streams: Sequence[str],
    expected: Sequence[int],
    count: Sequence[int],
    event_stream: Sequence[str],
    event_version: Sequence[int],
    event_type: Sequence[str],
    payloads: bytes,
    event_start: Sequence[int],
    event_length: Sequence[int],
) -> tuple[int, int, int]:
    """`event_extend`: the log order's tx, the transaction's own id, the position of the last event.

    Raises:
        asyncpg.SerializationError: a head is not where its writer expects it.
    """
    own_tx = tx.own_xid()
    await tx.lock_all("event_stream", streams)
    heads = [_head(tx, stream_id) for stream_id in streams]
    if [head["version"] for head in heads] != list(expected):
        raise asyncpg.SerializationError("the head of a stream is not where its writer expects it")
    log_tx = max([own_tx, *(head["tx"] for head in heads)])
    for stream_id, version, added in zip(streams, expected, count, strict=True):
        tx.put("event_stream", stream_id, Row(_HEAD, (stream_id, version + added, log_tx)))
    last = 0
    for stream_id, version, kind, start, length in zip(event_stream, event_version, event_type, event_start, event_length, strict=True):
        last = tx.next_number("event")
        payload = payloads[start - 1 : start - 1 + length]
        tx.events.append(RecordedEvent(LogPosition(log_tx, last), stream_id, version, kind, payload, b"", tx.now()))
    return log_tx, own_tx, last


def _by_commit(row_commit: Sequence[int]) -> list[list[int]]:
    grouped: dict[int, list[int]] = {}
    for place, commit in enumerate(row_commit):
        grouped.setdefault(commit, []).append(place)
    return list(grouped.values())


async def _read_stream(tx: Tx, stream_id: str, after: int, limit: int) -> list[Row]:
    return event_rows(stream_events(tx, stream_id)[after : after + limit])


async def _read_streams(tx: Tx, streams: Sequence[str]) -> list[Row]:
    return event_rows(event for stream_id in sorted(set(streams)) for event in stream_events(tx, stream_id))


async def _heads(tx: Tx, streams: Sequence[str]) -> list[Row]:
    found = [(stream_id, head["version"]) for stream_id in streams if (head := tx.get("event_stream", stream_id)) is not None]
    return rows(("stream_id", "version"), found)


async def _read_after(tx: Tx, after_tx: str, after_position: int, limit: int) -> list[Row]:
    return event_rows(tx.server.log.after(LogPosition(int(after_tx), after_position), limit, below_tx=tx.server.xmin()))


async def _horizon(tx: Tx) -> list[Row]:
    return one(tx.server.xmin(), "tx")


async def _channel(tx: Tx) -> list[Row]:
    return one("event.memory")


async def _notify(tx: Tx) -> list[Row]:
    tx.notifications.append("event.memory")
    return one("")


# Leases.


async def _acquire(tx: Tx, name: str, owner: str, ttl_seconds: float) -> list[Row]:
    known = tx.get("lease", name)
    if known is not None and known["owner"] != owner and known["expires_at"] > tx.now():
        return []
    await tx.lock("lease", name)
    held = tx.get("lease", name)
    now = tx.now()
    if held is not None and held["owner"] != owner and held["expires_at"] > now:
        return []
    epoch = 1 if held is None else held["epoch"] + 1
    tx.put("lease", name, Row(_LEASE, (name, owner, epoch, now + timedelta(seconds=ttl_seconds))))
    return one(epoch, "epoch")


async def _held(tx: Tx, name: str, owner: str, epoch: int, *, exclusive: bool) -> Row | None:
    """The lease if it is this owner's, locked; looked at again once the lock is there, as PostgreSQL does."""
    if not _is_held(tx, tx.get("lease", name), owner, epoch):
        return None
    await tx.lock("lease", name, exclusive=exclusive)
    row = tx.get("lease", name)
    return row if _is_held(tx, row, owner, epoch) else None


def _is_held(tx: Tx, row: Row | None, owner: str, epoch: int) -> bool:
    return row is not None and (row["owner"], row["epoch"]) == (owner, epoch) and row["expires_at"] > tx.now()


async def _renew(tx: Tx, name: str, owner: str, epoch: int, ttl_seconds: float) -> list[Row]:
    row = await _held(tx, name, owner, epoch, exclusive=True)
    if row is None:
        return []
    tx.put("lease", name, row.replace(expires_at=tx.now() + timedelta(seconds=ttl_seconds)))
    return one(epoch, "epoch")


async def _release(tx: Tx, name: str, owner: str, epoch: int) -> list[Row]:
    row = await _held(tx, name, owner, epoch, exclusive=True)
    if row is not None:
        tx.put("lease", name, row.replace(expires_at=tx.now()))
    return []


async def _assert(tx: Tx, name: str, owner: str, epoch: int) -> list[Row]:
    return [] if await _held(tx, name, owner, epoch, exclusive=False) is None else one(1)


# Delivery.


def _upsert(table: str, names: tuple[str, ...], keys: int) -> Handler:
    async def write(tx: Tx, *values: Any) -> list[Row]:
        key = values[:keys]
        await tx.lock(table, key)
        tx.put(table, key, Row(columns(*names), values))
        return []

    return write


def _select(table: str) -> Handler:
    async def read(tx: Tx, *key: Any) -> list[Row]:
        row = tx.get(table, key)
        return [] if row is None else [row]

    return read


async def _applied(tx: Tx, projection: str, source: str, streams: Sequence[str]) -> list[Row]:
    found = (tx.get("projection_inbox", (projection, source, stream_id)) for stream_id in streams)
    return [row for row in found if row is not None]


async def _remember(tx: Tx, projection: str, source: str, streams: Sequence[str], versions: Sequence[int]) -> list[Row]:
    places = columns("projection", "source", "stream_id", "version")
    for stream_id, version in zip(streams, versions, strict=True):
        key = (projection, source, stream_id)
        await tx.lock("projection_inbox", key)
        tx.put("projection_inbox", key, Row(places, (*key, version)))
    return []


async def _nothing(tx: Tx) -> list[Row]:
    return []


async def _freeze(tx: Tx) -> list[Row]:
    tx.freeze()
    return []


async def _clock(tx: Tx) -> list[Row]:
    now: datetime = tx.now()
    return one(now)


async def _own_xid(tx: Tx) -> list[Row]:
    return one(tx.own_xid())


async def _status(tx: Tx, xid: str) -> list[Row]:
    return one(tx.server.status_of(int(xid)))


async def _true(tx: Tx) -> list[Row]:
    return one(True)


STATEMENTS: dict[str, Handler] = {
    events._APPEND: append,
    events._LOCK: lock_heads,
    events._READ_STREAM: _read_stream,
    events._READ_STREAMS: _read_streams,
    events._HEADS: _heads,
    events._READ_AFTER: _read_after,
    events._HORIZON: _horizon,
    "SELECT 'event.' || current_schema()": _channel,
    events._NOTIFY: _notify,
    lease._ACQUIRE: _acquire,
    lease._RENEW: _renew,
    lease._RELEASE: _release,
    lease._ASSERT: _assert,
    "SELECT tx, position, sequence FROM relay_progress WHERE topic = $1": _select("relay_progress"),
    "INSERT INTO relay_progress (topic, tx, position, sequence) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (topic) DO UPDATE SET tx = excluded.tx, position = excluded.position, sequence = excluded.sequence": _upsert(
        "relay_progress", ("topic", "tx", "position", "sequence"), 1
    ),
    "SELECT tx, position FROM projection_cursor WHERE projection = $1 AND source = $2": _select("projection_cursor"),
    "INSERT INTO projection_cursor (projection, source, tx, position) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (projection, source) DO UPDATE SET tx = excluded.tx, position = excluded.position": _upsert(
        "projection_cursor", ("projection", "source", "tx", "position"), 2
    ),
    "SELECT stream_id, version FROM projection_inbox WHERE projection = $1 AND source = $2 AND stream_id = ANY ($3::text[])": _applied,
    "INSERT INTO projection_inbox (projection, source, stream_id, version)"
    " SELECT $1, $2, u.stream_id, u.version FROM unnest($3::text[], $4::bigint[]) AS u (stream_id, version)"
    " ON CONFLICT (projection, source, stream_id) DO UPDATE SET version = excluded.version": _remember,
    "SET LOCAL synchronous_commit = off": _nothing,
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY": _freeze,
    "SELECT clock_timestamp()": _clock,
    "SELECT pg_current_xact_id()": _own_xid,
    "SELECT pg_xact_status($1::text::xid8)": _status,
    "SELECT true": _true,
}
