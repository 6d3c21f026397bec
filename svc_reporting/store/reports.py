"""Reports: asked for once per key, written by one replica at a time, ended once, each with its event in the same transaction.

Order of locks: the head of the report's stream, then its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from google.rpc import status_pb2

from kernel.errors import AlreadyExistsError, LeaseLostError, Reason, ResourceExhaustedError, StaleVersionError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, NewEvent
from kernel.postgres import Database, Record, Transaction
from svc_reporting.codec import reports as codec
from svc_reporting.codec.reports import Report
from svc_reporting.domain.report import Bounds, Parameters
from svc_reporting.domain.vocabulary import ReportState

LEASE_SECONDS = 10.0
"""How long a replica holds a report without writing; twice the longest statement."""

_COLUMNS = (
    "report_id::text AS report_id, tenant, principal, parameters, state, epoch, row_count, content_bytes, sha256, error, create_time,"
    " end_time, expire_time"
)
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, hashtextextended($2, 0)))"
_BY_KEY = f"SELECT {_COLUMNS}, command_hash, deleted FROM report WHERE tenant = $1 AND principal = $2 AND request_id = $3::text::uuid"  # noqa: S608 (constants)
_OPEN = "SELECT count(*), clock_timestamp() FROM report WHERE tenant = $1 AND principal = $2 AND state IN (1, 2)"
_INSERT = """
INSERT INTO report (report_id, tenant, principal, request_id, command_hash, kind, parameters, state, create_time)
VALUES ($1::text::uuid, $2, $3, $4::text::uuid, $5, $6, $7, 1, $8)
"""
_OWN = f"""
SELECT {_COLUMNS} FROM report WHERE report_id = $1::text::uuid AND tenant = $2 AND principal = $3 AND NOT deleted
"""  # noqa: S608 (constants)
_LIST = f"""
SELECT {_COLUMNS} FROM report
WHERE tenant = $1 AND principal = $2 AND NOT deleted AND ($3::text IS NULL OR report_id < $3::text::uuid)
    AND ($4::smallint = 0 OR kind = $4) AND ($5::boolean IS NULL OR (state >= 3) = $5)
ORDER BY report_id DESC LIMIT $6
"""  # noqa: S608 (constants)
# Whoever is about to write its next part holds the row, and is not dead.
_CLAIM = f"""
UPDATE report SET state = 2, epoch = epoch + 1, leased_until = clock_timestamp() + $1, row_count = 0, content_bytes = 0
WHERE report_id = (
    SELECT report_id FROM report WHERE state IN (1, 2) AND (leased_until IS NULL OR leased_until < clock_timestamp())
    ORDER BY create_time LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING {_COLUMNS}
"""  # noqa: S608 (constants)
_FORGET = "DELETE FROM report_content WHERE report_id = $1::text::uuid AND epoch <> $2"
_HELD = "report_id = $1::text::uuid AND epoch = $2 AND state = 2 AND leased_until > clock_timestamp()"
_ADVANCE = f"UPDATE report SET row_count = $3, content_bytes = $4, leased_until = clock_timestamp() + $5 WHERE {_HELD} RETURNING true"  # noqa: S608 (constants)
_WRITE = (
    "INSERT INTO report_content (report_id, epoch, number, data)"
    " SELECT $1::text::uuid, $2, $3 + n - 1, data FROM unnest($4::bytea[]) WITH ORDINALITY AS u (data, n)"
)
_COMPLETE = f"UPDATE report SET state = 3, sha256 = $3, end_time = $4, expire_time = $5 WHERE {_HELD} RETURNING true"  # noqa: S608 (constants)
_FAIL = f"UPDATE report SET state = 4, error = $3, end_time = $4 WHERE {_HELD} RETURNING true"  # noqa: S608 (constants)
_CANCEL = "UPDATE report SET state = 5, error = $2, end_time = $3 WHERE report_id = $1::text::uuid AND state IN (1, 2) RETURNING true"
_RELEASE = f"UPDATE report SET leased_until = NULL WHERE {_HELD}"  # noqa: S608 (constants)
_DELETE = "UPDATE report SET deleted = true, removed = true WHERE report_id = $1::text::uuid AND state >= 3 RETURNING true"
_EXPIRED = """
UPDATE report SET removed = true
WHERE report_id = (
    SELECT report_id FROM report WHERE NOT removed AND expire_time < clock_timestamp() ORDER BY expire_time LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING report_id::text
"""
_REMOVE = "DELETE FROM report_content WHERE report_id = $1::text::uuid"
_PARTS = "SELECT data FROM report_content WHERE report_id = $1::text::uuid AND epoch = $2 AND number >= $3 ORDER BY number LIMIT $4"
_NOW = "SELECT clock_timestamp()"


class Owner(NamedTuple):
    """Whose a report is."""

    tenant: str
    principal: str


class Asked(NamedTuple):
    """A report that was asked for; `replayed` when it was before, `deleted` when its owner has deleted it since."""

    report: Report
    replayed: bool
    deleted: bool = False


class ReportStore:
    """Reports and their content.

    Args:
        retention: how long the content of a complete report is kept.
    """

    def __init__(self, database: Database, events: PostgresEventStore, bounds: Bounds, retention: timedelta) -> None:
        self._database = database
        self._events = events
        self._bounds = bounds
        self._retention = retention

    async def asked(self, owner: Owner, request_id: str, command_hash: bytes) -> Asked | None:
        """Return what a request id has asked for; None if it is new.

        Raises:
            AlreadyExistsError: it was used for another command.
        """
        return _asked(await self._database.fetchrow(_BY_KEY, *owner, request_id), command_hash)

    async def ask(self, owner: Owner, report_id: str, request_id: str, command_hash: bytes, parameters: Parameters) -> Asked:
        """Ask for a report, once per request id.

        Raises:
            AlreadyExistsError: the request id was used for another command.
            ResourceExhaustedError: QUOTA_EXCEEDED, as many of the principal's reports are open as may be.
        """
        async with self._database.transaction() as transaction:
            # One request of a principal at a time, so that no two count the same open reports.
            await transaction.execute(_LOCK, *owner)
            known = _asked(await transaction.fetchrow(_BY_KEY, *owner, request_id), command_hash)
            if known is not None:
                return known
            row = await transaction.fetchrow(_OPEN, *owner)
            assert row is not None
            if row[0] >= self._bounds.pending_max:
                text = f"{row[0]} reports of this principal are not ended; at most {self._bounds.pending_max} may be"
                raise ResourceExhaustedError(
                    Reason.QUOTA_EXCEEDED, text, metadata={"subject": f"principal/{owner.principal}"}, retry_after_seconds=1.0
                )
            message = codec.write_parameters(parameters).SerializeToString(deterministic=True)
            report = _new(owner, report_id, parameters, row[1])
            await self._record(transaction, report_id, 0, codec.requested(report))
            await transaction.execute(_INSERT, report_id, *owner, request_id, command_hash, parameters.kind, message, row[1])
        return Asked(report, replayed=False)

    async def own(self, owner: Owner, report_id: str) -> Report | None:
        """Return a report of the owner's; None for an unknown, foreign or deleted one."""
        row = await self._database.fetchrow(_OWN, report_id, *owner)
        return None if row is None else _report(row)

    async def owned(self, owner: Owner, *, kind: int, ended: bool | None, before: str | None, limit: int) -> list[Report]:
        """Return the owner's reports, newest first."""
        return [_report(row) for row in await self._database.fetch(_LIST, *owner, before, kind, ended, limit)]

    async def claim(self) -> Report | None:
        """Take the oldest report that nobody works on, to begin it anew; None if there is none."""
        async with self._database.transaction() as transaction:
            row = await transaction.fetchrow(_CLAIM, timedelta(seconds=LEASE_SECONDS))
            if row is None:
                return None
            await transaction.execute(_FORGET, row["report_id"], row["epoch"])
        return _report(row)

    async def write(self, report: Report, number: int, parts: Sequence[bytes], row_count: int, content_bytes: int) -> None:
        """Write parts of the content, of at most 64 KiB each, from a number on, and say how far it has come; which renews the lease.

        Raises:
            LeaseLostError: the report is no longer this replica's: cancelled, or taken over.
        """
        async with self._database.transaction() as transaction:
            held = await transaction.fetchval(
                _ADVANCE, report.report_id, report.epoch, row_count, content_bytes, timedelta(seconds=LEASE_SECONDS)
            )
            _require(report, held)
            if parts:
                await transaction.execute(_WRITE, report.report_id, report.epoch, number, list(parts))

    async def complete(self, report: Report, row_count: int, content_bytes: int, sha256: str) -> None:
        """End a report whose content is written.

        Raises:
            LeaseLostError: as in `write`.
        """
        async with self._database.transaction() as transaction:
            now: datetime = await transaction.fetchval(_NOW)
            await self._end(transaction, report, codec.completed(report.report_id, row_count, content_bytes, sha256, now))
            held = await transaction.fetchval(_COMPLETE, report.report_id, report.epoch, sha256, now, now + self._retention)
            _require(report, held)

    async def fail(self, report: Report, error: status_pb2.Status) -> None:
        """End a report that cannot be written, and remove what was.

        Raises:
            LeaseLostError: as in `write`.
        """
        async with self._database.transaction() as transaction:
            now: datetime = await transaction.fetchval(_NOW)
            await self._end(transaction, report, codec.failed(report.report_id, error, now))
            held = await transaction.fetchval(_FAIL, report.report_id, report.epoch, error.SerializeToString(), now)
            _require(report, held)
            await transaction.execute(_REMOVE, report.report_id)

    async def release(self, report: Report) -> None:
        """Let another replica begin the report at once; nothing happens if it is no longer this one's."""
        async with self._database.write_connection() as connection:
            await connection.execute(_RELEASE, report.report_id, report.epoch)

    async def cancel(self, report: Report, principal: str) -> None:
        """Cancel a report that is not ended, and remove what was written; an ended one stays as it is."""
        async with self._database.transaction() as transaction:
            now: datetime = await transaction.fetchval(_NOW)
            event = codec.cancelled(report.report_id, principal, now)
            if await self._record(transaction, report.report_id, 1, event) is not None:
                return
            error = codec.cancelled_status().SerializeToString()
            done = await transaction.fetchval(_CANCEL, report.report_id, error, now)
            assert done, "a report without a last event is not ended"
            await transaction.execute(_REMOVE, report.report_id)

    async def delete(self, report: Report) -> bool:
        """Forget an ended report, but for its key; False for one that is not ended."""
        async with self._database.transaction() as transaction:
            if not await transaction.fetchval(_DELETE, report.report_id):
                return False
            await transaction.execute(_REMOVE, report.report_id)
        return True

    async def expire(self) -> str | None:
        """Remove the content of one report whose time is over; return its id, None if there is none."""
        async with self._database.transaction() as transaction:
            report_id: str | None = await transaction.fetchval(_EXPIRED)
            if report_id is not None:
                await transaction.execute(_REMOVE, report_id)
        return report_id

    async def parts(self, report: Report, number: int, limit: int) -> list[bytes]:
        """Return parts of the content, in order."""
        return [row["data"] for row in await self._database.fetch(_PARTS, report.report_id, report.epoch, number, limit)]

    async def _end(self, transaction: Transaction, report: Report, event: NewEvent) -> None:
        if await self._record(transaction, report.report_id, 1, event) is not None:
            raise LeaseLostError(codec.report_stream(report.report_id), report.epoch)

    async def _record(self, transaction: Transaction, report_id: str, version: int, event: NewEvent) -> StaleVersionError | None:
        outcome = (await self._events.append(transaction, [Commit.single(codec.report_stream(report_id), version, event)]))[0]
        return outcome if isinstance(outcome, StaleVersionError) else None


def _require(report: Report, held: bool | None) -> None:
    if not held:
        raise LeaseLostError(codec.report_stream(report.report_id), report.epoch)


def _asked(row: Record | None, command_hash: bytes) -> Asked | None:
    if row is None:
        return None
    if row["command_hash"] != command_hash:
        raise AlreadyExistsError(Reason.IDEMPOTENCY_KEY_REUSED, "request_id was used for another report")
    return Asked(_report(row), replayed=True, deleted=row["deleted"])


def _new(owner: Owner, report_id: str, parameters: Parameters, now: datetime) -> Report:
    return Report(
        report_id=report_id, tenant=owner.tenant, principal=owner.principal, parameters=parameters, state=ReportState.PENDING, epoch=0,
        row_count=0, content_bytes=0, sha256="", error=b"", create_time=now, end_time=None, expire_time=None,
    )  # fmt: skip


def _report(row: Record) -> Report:
    return Report(
        report_id=row["report_id"],
        tenant=row["tenant"],
        principal=row["principal"],
        parameters=codec.read_parameters(row["parameters"]),
        state=ReportState(row["state"]),
        epoch=row["epoch"],
        row_count=row["row_count"],
        content_bytes=row["content_bytes"],
        sha256=row["sha256"],
        error=row["error"],
        create_time=row["create_time"],
        end_time=row["end_time"],
        expire_time=row["expire_time"],
    )
