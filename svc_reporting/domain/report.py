"""A report: what it is made from, where it stands, and what may happen to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from kernel.ports import LOG_START, LogPosition
from svc_reporting.domain.vocabulary import ReportFormat, ReportKind

SOURCES = ("oms", "risk", "custody")
"""The logs whose events reports are made of."""


@dataclass(frozen=True, slots=True)
class DataVector:
    """A position in the log of each source."""

    oms: LogPosition = LOG_START
    risk: LogPosition = LOG_START
    custody: LogPosition = LOG_START

    def of(self, source: str) -> LogPosition:
        """Return the position of one source."""
        position: LogPosition = getattr(self, source)
        return position

    def behind(self, wanted: Mapping[str, LogPosition]) -> list[str]:
        """Return the sources that have not come as far as is wanted."""
        return [source for source, position in wanted.items() if self.of(source) < position]


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """Moments from `start` on and before `end`; None leaves a side open."""

    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class DateSpan:
    """Days from `start` to `end`, both included; None leaves a side open."""

    start: date | None
    end: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the bytes of a report follow from, beside the data. `account_ids` ascend without repetition."""

    kind: ReportKind
    format: ReportFormat
    rule_version: str
    account_ids: tuple[str, ...]
    span: TimeSpan | DateSpan | None
    positions: DataVector


_FORMATS = {
    ReportFormat.CSV: ("text/csv; charset=utf-8; header=present", "csv"),
    ReportFormat.JSON: ("application/x-ndjson", "ndjson"),
}


def content_type(parameters: Parameters) -> str:
    """Return the media type of a report's content (RFC 7111 for CSV)."""
    return _FORMATS[parameters.format][0]


def file_name(parameters: Parameters, report_id: str) -> str:
    """Return a name for the content's file: letters, digits, hyphens and one dot."""
    kind = parameters.kind.name.lower().replace("_", "-")
    return f"{kind}-{report_id}.{_FORMATS[parameters.format][1]}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one report, and one caller, may have.

    Attributes:
        rows_max: rows of a report.
        content_bytes_max: bytes of its content.
        pending_max: reports of one principal that are not ended.
        attempts_max: times that it is begun; each further one follows the death of a replica.
    """

    rows_max: int = 1_000_000
    content_bytes_max: int = 512 * 1024 * 1024
    pending_max: int = 5
    attempts_max: int = 5
