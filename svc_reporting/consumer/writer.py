"""Writes reports, one at a time in each replica, in bounded memory.

A report whose replica dies is begun anew by another, with equal bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence

from kernel.errors import InternalError, LeaseLostError, Reason, ResourceExhaustedError, TrademeshError
from kernel.leadership import TRANSIENT_ERRORS
from kernel.status import to_status
from kernel.telemetry import Sample
from svc_reporting.codec.reports import Report
from svc_reporting.domain import audit_trail, blotter, cells
from svc_reporting.domain.report import Bounds, Parameters
from svc_reporting.domain.rules import RULES
from svc_reporting.domain.vocabulary import ReportKind
from svc_reporting.store.data import DataStore
from svc_reporting.store.reports import ReportStore

_logger = logging.getLogger(__name__)

PART_BYTES = 64 * 1024
POLL_SECONDS = 0.25
RETRY_SECONDS = 1.0
EXPIRY_POLLS = 40
"""Every tenth second or so, content whose time is over is looked for."""


class Content:
    """The bytes of a report as they come: cut into parts, counted and hashed."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._hash = hashlib.sha256()
        self.parts_written = 0
        self.row_count = 0
        self.content_bytes = 0

    def add(self, data: bytes) -> None:
        """Take bytes."""
        self._rest += data
        self._hash.update(data)
        self.content_bytes += len(data)

    def full_parts(self) -> list[bytes]:
        """Return and forget the parts that are full."""
        count = len(self._rest) // PART_BYTES
        parts = [bytes(self._rest[number * PART_BYTES : (number + 1) * PART_BYTES]) for number in range(count)]
        del self._rest[: count * PART_BYTES]
        return parts

    def last_part(self) -> list[bytes]:
        """Return what is left, if anything is."""
        return [bytes(self._rest)] if self._rest else []

    @property
    def sha256(self) -> str:
        """Return the digest of all bytes so far, in hex."""
        return self._hash.hexdigest()


class ReportWriter:
    """Takes reports that wait and writes them.

    Args:
        reports: the queue, and where the content goes.
        data: what reports are made of.
        bounds: what one report may have.
    """

    def __init__(self, reports: ReportStore, data: DataStore, bounds: Bounds) -> None:
        self._reports = reports
        self._data = data
        self._bounds = bounds
        self._wanted = asyncio.Event()
        self._polls = 0
        self.written = 0
        self.failed = 0
        self.abandoned = 0

    def wake(self) -> None:
        """Say that a report waits; without it, it is found at the next poll."""
        self._wanted.set()

    def samples(self) -> list[Sample]:
        """Return the writer's metrics."""
        return [
            Sample("reports_written_total", self.written, ()),
            Sample("reports_failed_total", self.failed, ()),
            Sample("reports_abandoned_total", self.abandoned, ()),
        ]

    async def run(self) -> None:
        """Write reports until cancelled; one that is under way then is left to other replicas."""
        while True:
            try:
                if await self.write_one():
                    continue
                await self._expire()
            except TRANSIENT_ERRORS as error:
                _logger.warning("reports wait: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), POLL_SECONDS)
            self._wanted.clear()

    async def write_one(self) -> bool:
        """Write the oldest report that waits; False if none does.

        Raises:
            TrademeshError: for a passing reason, such as a database that does not answer; the report waits.
        """
        report = await self._reports.claim()
        if report is None:
            return False
        try:
            await self._write(report)
        except LeaseLostError:
            # Cancelled, or another replica took it for dead: what is written of this epoch shows nowhere.
            self.abandoned += 1
            _logger.info("report %s is no longer ours", report.report_id)
        except (*TRANSIENT_ERRORS, asyncio.CancelledError):
            with contextlib.suppress(TrademeshError):
                await self._reports.release(report)
            raise
        except _RefusedError as refused:
            await self._fail(report, refused.reason)
        except Exception:
            _logger.exception("report %s failed", report.report_id)
            text = "the report could not be written"
            await self._fail(report, InternalError(Reason.INTERNAL, text, metadata={"report_id": report.report_id}))
        return True

    async def _write(self, report: Report) -> None:
        if report.epoch > self._bounds.attempts_max:
            text = f"the report was begun {self._bounds.attempts_max} times and never ended"
            raise _RefusedError(InternalError(Reason.INTERNAL, text, metadata={"report_id": report.report_id}))
        rule, content = RULES[report.parameters.rule_version], Content()
        content.add(cells.head(rule.columns, report.parameters.format))
        async for rows in self._rows(report.parameters):
            for row in rows:
                content.add(cells.row(rule.columns, row, report.parameters.format))
            content.row_count += len(rows)
            self._check(content)
            await self._store(report, content, content.full_parts())
        await self._store(report, content, content.last_part())
        await self._reports.complete(report, content.row_count, content.content_bytes, content.sha256)
        self.written += 1

    async def _rows(self, parameters: Parameters) -> AsyncIterator[list[Sequence[cells.Cell]]]:
        if parameters.kind is ReportKind.TRADE_BLOTTER:
            async for executions in self._data.blotter(parameters):
                yield [blotter.cells(entry) for entry in executions]
        else:
            async for events in self._data.audit_trail(parameters):
                yield [audit_trail.cells(entry) for entry in events]

    async def _store(self, report: Report, content: Content, parts: list[bytes]) -> None:
        await self._reports.write(report, content.parts_written, parts, content.row_count, content.content_bytes)
        content.parts_written += len(parts)

    def _check(self, content: Content) -> None:
        """Check the bounds of one report.

        Raises:
            _RefusedError: QUOTA_EXCEEDED.
        """
        for what, count, most in (
            ("rows", content.row_count, self._bounds.rows_max),
            ("bytes", content.content_bytes, self._bounds.content_bytes_max),
        ):
            if count > most:
                text = f"the report has more than {most} {what}; ask for fewer days or accounts"
                metadata = {"subject": "report", f"{what}_max": str(most)}
                raise _RefusedError(ResourceExhaustedError(Reason.QUOTA_EXCEEDED, text, metadata=metadata))

    async def _fail(self, report: Report, reason: TrademeshError) -> None:
        with contextlib.suppress(LeaseLostError):
            await self._reports.fail(report, to_status(reason))
            self.failed += 1

    async def _expire(self) -> None:
        self._polls += 1
        if self._polls % EXPIRY_POLLS == 0:
            while await self._reports.expire() is not None:
                continue


class _RefusedError(Exception):
    """A report that will never be written, and why. Apart from its reason, which by itself may say of a database that it is busy."""

    def __init__(self, reason: TrademeshError) -> None:
        super().__init__(reason.message)
        self.reason = reason
