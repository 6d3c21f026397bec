"""Reports, their parameters, operations and events as messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from google.longrunning import operations_proto_pb2 as operations_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, status_pb2

from kernel.errors import FieldViolation, InvalidArgumentError, Reason
from kernel.event_records import from_position, to_position
from kernel.ports import LogPosition, NewEvent
from svc_reporting.codec.scalars import moment, timestamp
from svc_reporting.domain.report import SOURCES, DataVector, DateSpan, Parameters, TimeSpan, content_type, file_name
from svc_reporting.domain.vocabulary import ENDED, ReportFormat, ReportKind, ReportState
from trademesh.reporting.v1 import events_pb2, report_pb2, reporting_service_pb2

PREFIX = "reporting.v1."
OPERATION_PREFIX = "operations/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report as it stands. `error` is a serialized google.rpc.Status, empty without one."""

    report_id: str
    tenant: str
    principal: str
    parameters: Parameters
    state: ReportState
    epoch: int
    row_count: int
    content_bytes: int
    sha256: str
    error: bytes
    create_time: datetime
    end_time: datetime | None
    expire_time: datetime | None


def report_stream(report_id: str) -> str:
    """Return the stream of a report."""
    return f"report-{report_id}"


def operation_name(report_id: str) -> str:
    """Return the name of the operation that makes a report."""
    return OPERATION_PREFIX + report_id


def command_hash(request: reporting_service_pb2.CreateReportRequest) -> bytes:
    """Return what a request id stands for: the whole command, accounts in any order."""
    command = reporting_service_pb2.CreateReportRequest()
    command.CopyFrom(request)
    command.request_id = ""
    accounts = sorted(set(request.account_ids))
    del command.account_ids[:]
    command.account_ids.extend(accounts)
    return hashlib.sha256(command.SerializeToString(deterministic=True)).digest()


def stated_positions(message: report_pb2.DataPositions) -> Mapping[str, LogPosition]:
    """Return the positions that a message states, by source."""
    return {source: from_position(getattr(message, source)) for source in SOURCES if message.HasField(source)}  # type: ignore[arg-type]  # a field's name


def read_span(message: reporting_service_pb2.CreateReportRequest | report_pb2.ReportParameters) -> TimeSpan | DateSpan | None:
    """Return which rows a message selects.

    Raises:
        InvalidArgumentError: FIELD_INVALID, a day that no calendar has.
    """
    match message.WhichOneof("range"):
        case "time_range":
            span = message.time_range
            return TimeSpan(
                moment(span.start_time) if span.HasField("start_time") else None,
                moment(span.end_time) if span.HasField("end_time") else None,
            )
        case "date_range":
            days = message.date_range
            return DateSpan(_day(days.start_date, "date_range.start_date"), _day(days.end_date, "date_range.end_date"))
    return None


def _day(text: str, field: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        violation = FieldViolation(field, "date.exists", "is not a day of the calendar")
        raise InvalidArgumentError(Reason.FIELD_INVALID, f"{field}: is not a day of the calendar", field_violations=(violation,)) from None


def write_parameters(parameters: Parameters) -> report_pb2.ReportParameters:
    """Return parameters as a message."""
    positions = {source: to_position(parameters.positions.of(source)) for source in SOURCES}
    message = report_pb2.ReportParameters(
        kind=parameters.kind.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        format=parameters.format.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        rule_version=parameters.rule_version,
        account_ids=parameters.account_ids,
        data_positions=report_pb2.DataPositions(**positions),
    )
    span = parameters.span
    if isinstance(span, TimeSpan):
        message.time_range.CopyFrom(report_pb2.TimeRange(start_time=_optional(span.start), end_time=_optional(span.end)))
    elif span is not None:
        start, end = ("" if day is None else day.isoformat() for day in (span.start, span.end))
        message.date_range.CopyFrom(report_pb2.DateRange(start_date=start, end_date=end))
    return message


def read_parameters(data: bytes) -> Parameters:
    """Return parameters that were kept as a serialized message."""
    message = report_pb2.ReportParameters.FromString(data)
    return Parameters(
        kind=ReportKind(message.kind),
        format=ReportFormat(message.format),
        rule_version=message.rule_version,
        account_ids=tuple(message.account_ids),
        span=read_span(message),
        positions=DataVector(**stated_positions(message.data_positions)),
    )


def _optional(at: datetime | None) -> Timestamp | None:
    return None if at is None else timestamp(at)


def write_report(report: Report) -> report_pb2.Report:
    """Return a report as clients see it."""
    parameters = report.parameters
    return report_pb2.Report(
        report_id=report.report_id,
        parameters=write_parameters(parameters),
        state=report.state.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        principal=report.principal,
        row_count=report.row_count,
        content_bytes=report.content_bytes,
        sha256=report.sha256,
        content_type=content_type(parameters),
        file_name=file_name(parameters, report.report_id),
        error=status_pb2.Status.FromString(report.error) if report.error else None,
        create_time=timestamp(report.create_time),
        end_time=_optional(report.end_time),
        expire_time=_optional(report.expire_time),
    )


def write_operation(report: Report) -> operations_pb2.Operation:
    """Return the operation that makes a report (AIP-151)."""
    operation = operations_pb2.Operation(name=operation_name(report.report_id), done=report.state in ENDED)
    phase = report_pb2.REPORT_PHASE_DONE
    if report.state is ReportState.PENDING:
        phase = report_pb2.REPORT_PHASE_QUEUED
    elif report.state is ReportState.RUNNING:
        phase = report_pb2.REPORT_PHASE_WRITING
    operation.metadata.Pack(
        report_pb2.CreateReportMetadata(
            report_id=report.report_id,
            phase=phase,
            row_count=report.row_count,
            content_bytes=report.content_bytes,
            create_time=timestamp(report.create_time),
        )
    )
    if report.state is ReportState.COMPLETED:
        operation.response.Pack(write_report(report))
    elif operation.done:
        operation.error.CopyFrom(status_pb2.Status.FromString(report.error))
    return operation


def cancelled_status() -> status_pb2.Status:
    """Return the error of an operation that was cancelled, as AIP-151 wants it."""
    return status_pb2.Status(code=code_pb2.CANCELLED, message="the report was cancelled")


def new_event(message: Message) -> NewEvent:
    """Return a message of `events.proto` as an event under its stable name."""
    return NewEvent(PREFIX + message.DESCRIPTOR.name, message.SerializeToString(deterministic=True))


def requested(report: Report) -> NewEvent:
    """Return the first event of a report."""
    return new_event(
        events_pb2.ReportRequested(
            report_id=report.report_id,
            tenant=report.tenant,
            principal=report.principal,
            parameters=write_parameters(report.parameters),
            event_time=timestamp(report.create_time),
        )
    )


def completed(report_id: str, row_count: int, content_bytes: int, sha256: str, at: datetime) -> NewEvent:
    """Return the last event of a complete report."""
    message = events_pb2.ReportCompleted(
        report_id=report_id, row_count=row_count, content_bytes=content_bytes, sha256=sha256, event_time=timestamp(at)
    )
    return new_event(message)


def failed(report_id: str, error: status_pb2.Status, at: datetime) -> NewEvent:
    """Return the last event of a failed report."""
    return new_event(events_pb2.ReportFailed(report_id=report_id, error=error, event_time=timestamp(at)))


def cancelled(report_id: str, principal: str, at: datetime) -> NewEvent:
    """Return the last event of a cancelled report."""
    return new_event(events_pb2.ReportCancelled(report_id=report_id, principal=principal, event_time=timestamp(at)))
