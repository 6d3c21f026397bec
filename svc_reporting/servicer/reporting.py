"""ReportingService: asking for reports, and what comes of them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from google.api import httpbody_pb2
from google.longrunning import operations_proto_pb2 as operations_pb2

from kernel.errors import FailedPreconditionError, NotFoundError, Reason
from kernel.ids import IdSource
from kernel.paging import PageTokens, page_size
from kernel.ports import LogPosition
from kernel.server_context import CallContext
from svc_reporting.codec import reports as codec
from svc_reporting.codec.reports import Report
from svc_reporting.domain.report import SOURCES, DataVector, Parameters, content_type, file_name
from svc_reporting.domain.rules import rule_of
from svc_reporting.domain.vocabulary import ReportFormat, ReportKind, ReportState
from svc_reporting.servicer.access import own_accounts, owner_of, require_accounts, require_report
from svc_reporting.store.data import DataStore
from svc_reporting.store.reports import Asked, ReportStore
from trademesh.reporting.v1 import reporting_service_pb2 as pb

REACH_SECONDS = 5.0
PAGE_SIZE_MAX = 500
PARTS_AT_ONCE = 8


class Folded(Protocol):
    """Up to where the sources are copied."""

    async def reach(self, wanted: Mapping[str, LogPosition], within_seconds: float) -> DataVector:
        """Return the positions, once they are at least those that are wanted; UnavailableError when they are not in that time."""
        ...


class ReportingServicer:
    """Takes requests for reports and shows them.

    Args:
        wake: called when a report waits to be written.
    """

    def __init__(
        self, reports: ReportStore, data: DataStore, folded: Folded, tokens: PageTokens, ids: IdSource, wake: Callable[[], None]
    ) -> None:
        self._reports = reports
        self._data = data
        self._folded = folded
        self._tokens = tokens
        self._ids = ids
        self._wake = wake

    async def CreateReport(self, request: pb.CreateReportRequest, context: CallContext) -> operations_pb2.Operation:  # noqa: N802 (the contract's name)
        """See the contract."""
        user = context.user
        require_accounts(user, request.account_ids)
        owner, request_id, command = owner_of(user), request.request_id.lower(), codec.command_hash(request)
        asked = await self._reports.asked(owner, request_id, command)
        if asked is None:
            parameters = await self._parameters(request, context)
            asked = await self._reports.ask(owner, self._ids.new_id(), request_id, command, parameters)
        if asked.replayed:
            return _replayed(asked, context)
        self._wake()
        return codec.write_operation(asked.report)

    async def GetReport(self, request: pb.GetReportRequest, context: CallContext) -> pb.GetReportResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return pb.GetReportResponse(report=codec.write_report(await self._report(request.report_id, context)))

    async def ListReports(self, request: pb.ListReportsRequest, context: CallContext) -> pb.ListReportsResponse:  # noqa: N802 (the contract's name)
        """See the contract. A report of which the token no longer lists every account is left out."""
        user = context.user
        filters = (user.tenant, user.principal, str(request.kind))
        before = self._tokens.read("reports", filters, request.page_token)
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        found = await self._reports.owned(owner_of(user), kind=request.kind, ended=None, before=before, limit=size + 1)
        return pb.ListReportsResponse(
            reports=[codec.write_report(report) for report in found[:size] if user.accounts.issuperset(report.parameters.account_ids)],
            next_page_token=self._tokens.issue("reports", filters, found[size - 1].report_id) if len(found) > size else "",
        )

    async def DownloadReport(self, request: pb.DownloadReportRequest, context: CallContext) -> AsyncIterator[httpbody_pb2.HttpBody]:  # noqa: N802 (the contract's name)
        """See the contract."""
        report = _complete(await self._report(request.report_id, context))
        kind, sent, number = content_type(report.parameters), 0, 0
        context.set_initial_metadata("content-disposition", f'attachment; filename="{file_name(report.parameters, report.report_id)}"')
        context.set_initial_metadata("repr-digest", f"sha-256=:{base64.b64encode(bytes.fromhex(report.sha256)).decode()}:")
        if not report.content_bytes:
            yield httpbody_pb2.HttpBody(content_type=kind)
        while sent < report.content_bytes:
            parts = await self._reports.parts(report, number, PARTS_AT_ONCE)
            if not parts:
                raise _not_ready(report, "its content is removed; the same parameters give the same bytes again")
            for part in parts:
                yield httpbody_pb2.HttpBody(content_type=kind, data=part)
                sent += len(part)
            number += len(parts)
        assert sent == report.content_bytes, "the parts are the whole content"

    async def _report(self, report_id: str, context: CallContext) -> Report:
        report_id, user = report_id.lower(), context.user
        return require_report(user, report_id, await self._reports.own(owner_of(user), report_id))

    async def _parameters(self, request: pb.CreateReportRequest, context: CallContext) -> Parameters:
        """What a report is made from. Positions that are not stated are those that are folded in now, all at least those to wait for."""
        kind, user = ReportKind(request.kind), context.user
        rule, span = rule_of(kind, request.rule_version), codec.read_span(request)
        stated, least = codec.stated_positions(request.data_positions), codec.stated_positions(request.min_positions)
        wanted = {source: max(position for position in (stated.get(source), least.get(source)) if position) for source in {*stated, *least}}
        folded = await self._folded.reach(wanted, min(REACH_SECONDS, context.remaining_seconds() / 2))
        accounts = own_accounts(user, request.account_ids, await self._data.tenants(request.account_ids or user.accounts))
        return Parameters(
            kind=kind,
            format=ReportFormat(request.format),
            rule_version=rule.version,
            account_ids=accounts,
            span=span,
            positions=DataVector(**{source: stated.get(source, folded.of(source)) for source in SOURCES}),
        )


def _replayed(asked: Asked, context: CallContext) -> operations_pb2.Operation:
    require_accounts(context.user, asked.report.parameters.account_ids)
    if asked.deleted:
        name = codec.operation_name(asked.report.report_id)
        raise NotFoundError(
            Reason.OPERATION_NOT_FOUND,
            "the operation of this request was deleted; ask again under another request_id",
            metadata={"resource_type": "operation", "resource_name": name},
        )
    context.mark_replayed()
    return codec.write_operation(asked.report)


def _complete(report: Report) -> Report:
    if report.state is not ReportState.COMPLETED:
        raise _not_ready(report, f"it is {report.state.name}")
    return report


def _not_ready(report: Report, why: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        Reason.REPORT_NOT_READY,
        f"the report cannot be downloaded: {why}",
        metadata={"resource_type": "report", "resource_name": report.report_id, "state": report.state.name},
    )
