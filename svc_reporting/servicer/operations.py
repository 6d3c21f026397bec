"""google.longrunning.Operations over reports (AIP-151): the standard service itself, so that any client library's operations work."""

from __future__ import annotations

import asyncio

from google.longrunning import operations_proto_pb2 as operations_pb2
from google.protobuf.empty_pb2 import Empty

from kernel.errors import FailedPreconditionError, FieldViolation, InvalidArgumentError, Reason, TrademeshError
from kernel.ids import check_uuid
from kernel.paging import PageTokens, page_size
from kernel.ports import Clock
from kernel.server_context import CallContext
from svc_reporting.codec import reports as codec
from svc_reporting.codec.reports import Report
from svc_reporting.domain.vocabulary import ENDED
from svc_reporting.servicer.access import owner_of, report_of, require_operation
from svc_reporting.store.reports import ReportStore

PAGE_SIZE_MAX = 500
WAIT_SECONDS_MAX = 8.0
WAIT_POLL_SECONDS = 0.1
_COLLECTION = "operations"
_FILTERS = {"": None, "done=true": True, "done=false": False}


class OperationsServicer:
    """Shows, awaits, cancels and deletes the operations that make reports."""

    def __init__(self, reports: ReportStore, tokens: PageTokens, clock: Clock) -> None:
        self._reports = reports
        self._tokens = tokens
        self._clock = clock

    async def GetOperation(self, request: operations_pb2.GetOperationRequest, context: CallContext) -> operations_pb2.Operation:  # noqa: N802 (the contract's name)
        """Return the operation as it stands."""
        return codec.write_operation(await self._report(request.name, context))

    async def ListOperations(  # noqa: N802 (the contract's name)
        self, request: operations_pb2.ListOperationsRequest, context: CallContext
    ) -> operations_pb2.ListOperationsResponse:
        """Return the caller's operations, newest first. `name` is `operations`; `filter` is empty, `done=true` or `done=false`."""
        user = context.user
        if request.name != _COLLECTION:
            raise _invalid("name", "operations.name", f"must be {_COLLECTION}")
        wanted = request.filter.replace(" ", "")
        if wanted not in _FILTERS:
            raise _invalid("filter", "operations.filter", "must be empty, done=true or done=false")
        if request.return_partial_success:
            raise _invalid("return_partial_success", "operations.partial", "is not supported")
        filters = (user.tenant, user.principal, wanted)
        before = self._tokens.read(_COLLECTION, filters, request.page_token)
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        found = await self._reports.owned(owner_of(user), kind=0, ended=_FILTERS[wanted], before=before, limit=size + 1)
        shown = [report for report in found[:size] if user.accounts.issuperset(report.parameters.account_ids)]
        return operations_pb2.ListOperationsResponse(
            operations=[codec.write_operation(report) for report in shown],
            next_page_token=self._tokens.issue(_COLLECTION, filters, found[size - 1].report_id) if len(found) > size else "",
        )

    async def WaitOperation(self, request: operations_pb2.WaitOperationRequest, context: CallContext) -> operations_pb2.Operation:  # noqa: N802 (the contract's name)
        """Return the operation once it is done, or as it stands when the time is over: that of the request, the caller's deadline less a
        margin, or 8 seconds, whichever is shortest.
        """
        seconds = min(WAIT_SECONDS_MAX, 0.8 * context.remaining_seconds())
        if request.HasField("timeout"):
            seconds = min(seconds, max(request.timeout.ToNanoseconds() / 1e9, 0.0))
        deadline = self._clock.monotonic() + seconds
        report = await self._report(request.name, context)
        while report.state not in ENDED and self._clock.monotonic() < deadline and not _draining(context):
            await asyncio.sleep(min(WAIT_POLL_SECONDS, max(deadline - self._clock.monotonic(), 0.0)))
            report = await self._report(request.name, context)
        return codec.write_operation(report)

    async def CancelOperation(self, request: operations_pb2.CancelOperationRequest, context: CallContext) -> Empty:  # noqa: N802 (the contract's name)
        """Cancel at once: once this has answered, the report will not be complete unless it was before."""
        await self._reports.cancel(await self._report(request.name, context), context.user.principal)
        return Empty()

    async def DeleteOperation(self, request: operations_pb2.DeleteOperationRequest, context: CallContext) -> Empty:  # noqa: N802 (the contract's name)
        """Forget an operation that is done, with its report and content; the request id stays used up."""
        report = await self._report(request.name, context)
        if not await self._reports.delete(report):
            raise FailedPreconditionError(
                Reason.REPORT_NOT_READY,
                "the operation is not done; cancel it first",
                metadata={"resource_type": "operation", "resource_name": codec.operation_name(report.report_id)},
            )
        return Empty()

    async def _report(self, name: str, context: CallContext) -> Report:
        user, report_id = context.user, report_of(name).lower()
        try:
            known = codec.operation_name(check_uuid(report_id)) == name.lower()
        except TrademeshError:
            known = False
        found = await self._reports.own(owner_of(user), report_id) if known else None
        return require_operation(user, report_id[:64], found)


def _draining(context: CallContext) -> bool:
    return context.draining is not None and context.draining.is_set()


def _invalid(field: str, rule: str, text: str) -> InvalidArgumentError:
    return InvalidArgumentError(Reason.FIELD_INVALID, f"{field}: {text}", field_violations=(FieldViolation(field, rule, text),))
