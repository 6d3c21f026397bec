"""Requests, parameters and operations as messages; the configuration."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from google.rpc import code_pb2

from kernel.config import ConfigError, load
from kernel.errors import InvalidArgumentError
from kernel.ports import LogPosition
from svc_reporting.codec import reports as codec
from svc_reporting.codec.reports import Report
from svc_reporting.config import ReportingConfig
from svc_reporting.domain.report import DataVector, DateSpan, Parameters, TimeSpan
from svc_reporting.domain.vocabulary import ReportFormat, ReportKind, ReportState
from trademesh.reporting.v1 import report_pb2
from trademesh.reporting.v1 import reporting_service_pb2 as pb

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PARAMETERS = Parameters(
    kind=ReportKind.TRADE_BLOTTER,
    format=ReportFormat.CSV,
    rule_version="blotter/1",
    account_ids=("ACC-1", "ACC-2"),
    span=None,
    positions=DataVector(LogPosition(7, 1), LogPosition(8, 2), LogPosition(0, 0)),
)
REPORT = Report(
    report_id="0199a1b2-0000-7000-8000-000000000001", tenant="north", principal="carol", parameters=PARAMETERS, state=ReportState.PENDING,
    epoch=0, row_count=0, content_bytes=0, sha256="", error=b"", create_time=NOON, end_time=None, expire_time=None,
)  # fmt: skip
REQUIRED = {
    "TRADEMESH_INSTANCE": "svc_reporting-0",
    "TRADEMESH_SOCKET_PATH": "r.sock",
    "TRADEMESH_SIDECAR_SECRET": "s" * 32,
    "TRADEMESH_DATABASE_DSN": "postgresql://u:p@localhost/t",
    "TRADEMESH_TOKEN_KEY": "k" * 32,
    "TRADEMESH_OMS_TARGETS": "unix:a.sock,unix:b.sock",
    "TRADEMESH_RISK_TARGETS": "unix:c.sock",
}


@pytest.mark.parametrize(
    "span",
    [
        None,
        TimeSpan(NOON, None),
        TimeSpan(None, NOON),
        TimeSpan(None, None),
        DateSpan(date(2026, 3, 2), None),
        DateSpan(None, date(2026, 3, 2)),
        DateSpan(None, None),
    ],
)
def test_parameters_survive_being_kept(span: TimeSpan | DateSpan | None) -> None:
    parameters = replace(PARAMETERS, span=span)
    assert codec.read_parameters(codec.write_parameters(parameters).SerializeToString()) == parameters


def test_a_command_is_the_same_whatever_its_key_and_the_order_of_its_accounts() -> None:
    first = pb.CreateReportRequest(request_id="a", account_ids=["ACC-2", "ACC-1"])
    second = pb.CreateReportRequest(request_id="b", account_ids=["ACC-1", "ACC-2"])
    assert codec.command_hash(first) == codec.command_hash(second)
    second.min_positions.oms.tx = 1
    assert codec.command_hash(first) != codec.command_hash(second)


def test_a_day_that_no_calendar_has_is_refused() -> None:
    request = pb.CreateReportRequest(date_range=report_pb2.DateRange(end_date="2026-02-30"))
    with pytest.raises(InvalidArgumentError) as caught:
        codec.read_span(request)
    assert [violation.field for violation in caught.value.field_violations] == ["date_range.end_date"]


@pytest.mark.parametrize(
    ("state", "done", "result", "phase"),
    [
        (ReportState.PENDING, False, None, report_pb2.REPORT_PHASE_QUEUED),
        (ReportState.RUNNING, False, None, report_pb2.REPORT_PHASE_WRITING),
        (ReportState.COMPLETED, True, "response", report_pb2.REPORT_PHASE_DONE),
        (ReportState.FAILED, True, "error", report_pb2.REPORT_PHASE_DONE),
        (ReportState.CANCELLED, True, "error", report_pb2.REPORT_PHASE_DONE),
    ],
)
def test_an_operation_says_where_its_report_stands(state: ReportState, done: bool, result: str | None, phase: int) -> None:
    error = codec.cancelled_status().SerializeToString() if result == "error" else b""
    operation = codec.write_operation(replace(REPORT, state=state, error=error))
    metadata = report_pb2.CreateReportMetadata()
    assert operation.metadata.Unpack(metadata)
    assert (operation.done, operation.WhichOneof("result"), metadata.phase) == (done, result, phase)
    assert operation.name == f"operations/{REPORT.report_id}"
    if result == "error":
        assert operation.error.code == code_pb2.CANCELLED


def test_custody_is_followed_where_it_is_named() -> None:
    config = load(ReportingConfig, REQUIRED)
    assert (config.custody_targets, config.report_rows_max) == ((), 1_000_000)
    assert load(ReportingConfig, REQUIRED | {"TRADEMESH_CUSTODY_TARGETS": "unix:d.sock"}).custody_targets == ("unix:d.sock",)


def test_every_wrong_key_is_named() -> None:
    wrong = {key: words for key, words in REQUIRED.items() if key != "TRADEMESH_OMS_TARGETS"} | {
        "TRADEMESH_REPORT_ROWS_MAX": "0",
        "TRADEMESH_REPORT_COLOUR": "red",
    }
    with pytest.raises(ConfigError) as caught:
        load(ReportingConfig, wrong)
    named = {problem.split(":")[0] for problem in caught.value.problems}
    assert named == {"TRADEMESH_OMS_TARGETS", "TRADEMESH_REPORT_ROWS_MAX", "TRADEMESH_REPORT_COLOUR"}
