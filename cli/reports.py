"""Reports: asked for, waited for, downloaded."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from cli import rpcs
from cli.exits import Exit
from cli.output import enum_name
from cli.session import Group, Session, new_key, with_session
from kernel.errors import InternalError, Reason
from kernel.status import from_status
from trademesh.reporting.v1 import report_pb2, reporting_service_pb2

KINDS = {"blotter": report_pb2.REPORT_KIND_TRADE_BLOTTER, "audit-trail": report_pb2.REPORT_KIND_ORDER_AUDIT_TRAIL}
FORMATS = {"csv": report_pb2.REPORT_FORMAT_CSV, "json": report_pb2.REPORT_FORMAT_JSON}
_UNDER_WAY = (report_pb2.REPORT_STATE_PENDING, report_pb2.REPORT_STATE_RUNNING)
_POLL_SECONDS = 0.1


@click.group(cls=Group)
def report() -> None:
    """Make, list and download reports."""


@report.command("create")
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--account", "account_ids", multiple=True, required=True, metavar="ACCOUNT", help="May be repeated.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="csv", show_default=True)
@click.option("--wait", "wait_seconds", type=click.FloatRange(0, 300), default=30.0, show_default=True, metavar="SECONDS")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write the content here (standard output).")
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def create(session: Session, kind: str, account_ids: Sequence[str], form: str, wait_seconds: float, **more: Path | str | None) -> int:
    """Make a report, wait for it, and write its content: `trademesh report create blotter --account ACC-1`."""
    request = reporting_service_pb2.CreateReportRequest(
        request_id=str(more["request_id"] or new_key()), kind=KINDS[kind], format=FORMATS[form], account_ids=account_ids
    )
    operation = session.call(rpcs.CREATE_REPORT, request, *account_ids).message
    made = await_report(session, operation.name.rpartition("/")[2], account_ids, wait_seconds)
    if made.state in _UNDER_WAY:
        session.output.note(f"Not complete yet: `trademesh report download {made.report_id}` later.")
        return Exit.UNAVAILABLE
    return _write(session, made, account_ids, more["output"])


@report.command("list")
@click.option("--account", "account_ids", multiple=True, metavar="ACCOUNT", help="Whose reports; as they were asked for.")
@with_session
def list_reports(session: Session, account_ids: Sequence[str]) -> int:
    """List reports, newest first."""
    message = session.call(rpcs.LIST_REPORTS, reporting_service_pb2.ListReportsRequest(), *account_ids).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    rows = [
        (
            item.report_id,
            item.parameters.rule_version,
            " ".join(item.parameters.account_ids),
            enum_name(report_pb2.ReportState, item.state, "REPORT_STATE_"),
            item.row_count,
            item.content_bytes,
            item.sha256[:16],
        )
        for item in message.reports
    ]
    session.output.table(("report", "rules", "accounts", "state", "rows", "bytes", "sha256"), rows, empty="No reports.")
    return Exit.DONE


@report.command("download")
@click.argument("report_id")
@click.option("--account", "account_ids", multiple=True, metavar="ACCOUNT", help="As the report was asked for.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write the content here (standard output).")
@with_session
def download(session: Session, report_id: str, account_ids: Sequence[str], output: Path | None) -> int:
    """Write a report's content."""
    found = session.call(rpcs.GET_REPORT, reporting_service_pb2.GetReportRequest(report_id=report_id), *account_ids).message.report
    return _write(session, found, account_ids, output)


def content(session: Session, report_id: str, accounts: Sequence[str]) -> Iterator[bytes]:
    """Yield a complete report's content."""
    request = reporting_service_pb2.DownloadReportRequest(report_id=report_id)
    for part in session.transport(*accounts).stream(rpcs.DOWNLOAD_REPORT, request):
        yield part.data


def await_report(session: Session, report_id: str, accounts: Sequence[str], wait_seconds: float) -> report_pb2.Report:
    """Return a report once it is complete, failed or cancelled, or as it stands when the time is over."""
    deadline = time.monotonic() + wait_seconds
    while True:
        request = reporting_service_pb2.GetReportRequest(report_id=report_id)
        found = session.call(rpcs.GET_REPORT, request, *accounts).message.report
        if found.state not in _UNDER_WAY or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_SECONDS)


def _write(session: Session, item: report_pb2.Report, accounts: Sequence[str], output: Path | str | None) -> int:
    if item.state != report_pb2.REPORT_STATE_COMPLETED:
        raise from_status(item.error) or InternalError(Reason.INTERNAL, f"the report ended as {item.state} without an error")
    parts = content(session, item.report_id, accounts)
    digest = hashlib.sha256()
    if output is not None:
        with Path(output).open("wb") as file:
            for part in parts:
                digest.update(part)
                file.write(part)
    elif session.output.as_json:
        for part in parts:
            digest.update(part)
        session.output.document(item)
    else:
        for part in parts:
            digest.update(part)
            sys.stdout.buffer.write(part)
        sys.stdout.flush()
    if digest.hexdigest() != item.sha256:
        raise InternalError(Reason.INTERNAL, "the content's SHA-256 is not the report's")
    session.output.note(f"{item.row_count} rows, {item.content_bytes} bytes, sha256 {item.sha256}")
    return Exit.DONE
