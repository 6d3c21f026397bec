"""Reports over real gRPC: who may ask, how an operation is followed, what a download brings."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_proto_pb2 as operations_pb2

from kernel.errors import Reason
from mesh.local.provision import ServiceDatabase
from tests.integration.reporting.replica import AUDIT_TRAIL, BLOTTER, CSV, JSON, asking, positions
from tests.integration.reporting.world import BUY, World
from tests.wire.reporting.caller import COMPLIANCE, Caller, headers, refusal, user
from tests.wire.reporting.conftest import config_of, running
from trademesh.reporting.v1 import report_pb2
from trademesh.reporting.v1 import reporting_service_pb2 as pb
from trademesh.type.v1 import event_log_service_pb2

Code = grpc.StatusCode


def shown(world: World, kind: int = BLOTTER, report_format: int = CSV, **more: Any) -> pb.CreateReportRequest:
    """Return a request that waits for everything the logs have now."""
    at = positions(oms=world.oms.end, risk=world.risk.end, custody=world.custody.end)
    return asking(kind, report_format, min_positions=at, **more)


async def refused(call: Awaitable[object], code: grpc.StatusCode, reason: Reason) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), refusal(caught.value).reason) == (code, reason)


async def content_of(call: Any) -> tuple[bytes, dict[str, Any]]:
    data = b"".join([body.data async for body in call])
    return data, dict(await call.initial_metadata())


async def test_a_report_is_asked_for_followed_and_downloaded(reporting: Caller, world: World) -> None:
    asked = await reporting.reports.CreateReport(shown(world), metadata=headers(), timeout=10)
    operation = await reporting.done(asked.name)
    report, metadata = report_pb2.Report(), report_pb2.CreateReportMetadata()
    assert operation.response.Unpack(report)
    assert operation.metadata.Unpack(metadata)
    assert (report.row_count, metadata.row_count, metadata.phase) == (7, 7, report_pb2.REPORT_PHASE_DONE)
    request = pb.DownloadReportRequest(report_id=report.report_id)
    call = reporting.reports.DownloadReport(request, metadata=headers(), timeout=10)
    data, initial = await content_of(call)
    assert hashlib.sha256(data).hexdigest() == report.sha256
    assert initial["content-disposition"] == f'attachment; filename="{report.file_name}"'
    assert initial["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
    bodies = [body async for body in reporting.reports.DownloadReport(request, metadata=headers(), timeout=10)]
    assert {body.content_type for body in bodies} == {"text/csv; charset=utf-8; header=present"}
    got = await reporting.reports.GetReport(pb.GetReportRequest(report_id=report.report_id), metadata=headers(), timeout=10)
    assert got.report == report
    listed = await reporting.reports.ListReports(pb.ListReportsRequest(kind=BLOTTER), metadata=headers(), timeout=10)
    assert list(listed.reports) == [report]


async def test_a_report_without_rows_has_a_content_all_the_same(reporting: Caller, world: World) -> None:
    request = shown(world, BLOTTER, JSON, date_range=report_pb2.DateRange(start_date="2030-01-01"))
    operation = await reporting.done((await reporting.reports.CreateReport(request, metadata=headers(), timeout=10)).name)
    report_id = operation.name.removeprefix("operations/")
    call = reporting.reports.DownloadReport(pb.DownloadReportRequest(report_id=report_id), metadata=headers(), timeout=10)
    bodies = [body async for body in call]
    assert [(body.content_type, body.data) for body in bodies] == [("application/x-ndjson", b"")]


async def test_the_other_replica_gives_the_same_bytes_after_more_trading(
    reporting: Caller, world: World, reporting_database: ServiceDatabase, sockets: Path, targets: dict[str, str]
) -> None:
    at = positions(oms=world.oms.end, risk=world.risk.end, custody=world.custody.end)
    digests = []
    async with running(config_of("svc_reporting-1", reporting_database, sockets, targets)) as second:
        for caller in (reporting, second):
            request = shown(world, AUDIT_TRAIL, JSON, data_positions=at)
            operation = await caller.done((await caller.reports.CreateReport(request, metadata=headers(), timeout=10)).name)
            report = report_pb2.Report()
            assert operation.response.Unpack(report)
            digests.append(report.sha256)
            world.order(BUY, "5").fill(f"E-{len(digests)}0", "5", "100", state=4)
    assert digests[0] == digests[1]


async def test_who_may_ask(reporting: Caller, world: World) -> None:
    create = reporting.reports.CreateReport
    for role in ("viewer", "trader", "compliance"):
        await create(shown(world), metadata=headers(user(role, principal=role)), timeout=10)
    await refused(create(shown(world), metadata=headers(user("operations")), timeout=10), Code.PERMISSION_DENIED, Reason.ROLE_REQUIRED)
    await refused(create(shown(world), metadata=headers(None), timeout=10), Code.UNAUTHENTICATED, Reason.USER_UNAUTHENTICATED)
    await refused(create(shown(world), metadata=headers(peer="svc-oms"), timeout=10), Code.PERMISSION_DENIED, Reason.PEER_NOT_ALLOWED)
    foreign = shown(world, account_ids=["ACC-1", "ACC-9"])
    await refused(create(foreign, metadata=headers(), timeout=10), Code.PERMISSION_DENIED, Reason.ACCOUNT_NOT_ALLOWED)
    south = user("compliance", tenant="south")
    await refused(create(shown(world), metadata=headers(south), timeout=10), Code.PERMISSION_DENIED, Reason.ACCOUNT_NOT_ALLOWED)
    wrong = shown(world, account_ids=["acc"])
    await refused(create(wrong, metadata=headers(), timeout=10), Code.INVALID_ARGUMENT, Reason.FIELD_INVALID)


async def test_nobody_else_finds_a_report_or_its_operation(reporting: Caller, world: World) -> None:
    name = (await reporting.reports.CreateReport(shown(world), metadata=headers(), timeout=10)).name
    await reporting.done(name)
    report_id = name.removeprefix("operations/")
    operations = reporting.operations
    for stranger in (user("compliance", tenant="south"), user("compliance", principal="dan")):
        attached = headers(stranger)
        get = reporting.reports.GetReport(pb.GetReportRequest(report_id=report_id), metadata=attached, timeout=10)
        await refused(get, Code.NOT_FOUND, Reason.REPORT_NOT_FOUND)
        download = reporting.reports.DownloadReport(pb.DownloadReportRequest(report_id=report_id), metadata=attached, timeout=10)
        await refused(content_of(download), Code.NOT_FOUND, Reason.REPORT_NOT_FOUND)
        for call in (
            operations.GetOperation(operations_pb2.GetOperationRequest(name=name), metadata=attached, timeout=10),
            operations.WaitOperation(operations_pb2.WaitOperationRequest(name=name), metadata=attached, timeout=10),
            operations.CancelOperation(operations_pb2.CancelOperationRequest(name=name), metadata=attached, timeout=10),
            operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name), metadata=attached, timeout=10),
        ):
            await refused(call, Code.NOT_FOUND, Reason.OPERATION_NOT_FOUND)
        listed = await operations.ListOperations(operations_pb2.ListOperationsRequest(name="operations"), metadata=attached, timeout=10)
        assert not listed.operations
    for odd in ("operations/none", report_id, f"operations/{uuid.uuid4()}", ""):
        get = operations.GetOperation(operations_pb2.GetOperationRequest(name=odd), metadata=headers(), timeout=10)
        await refused(get, Code.NOT_FOUND, Reason.OPERATION_NOT_FOUND)


async def test_a_token_that_lost_an_account_opens_its_reports_no_more(reporting: Caller, world: World) -> None:
    name = (await reporting.reports.CreateReport(shown(world), metadata=headers(), timeout=10)).name
    narrowed = headers(user("compliance", accounts=["ACC-1"]))
    get = reporting.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), metadata=narrowed, timeout=10)
    await refused(get, Code.PERMISSION_DENIED, Reason.ACCOUNT_NOT_ALLOWED)
    listed = await reporting.reports.ListReports(pb.ListReportsRequest(), metadata=narrowed, timeout=10)
    assert not listed.reports


async def test_lists_refuse_what_they_do_not_know(reporting: Caller) -> None:
    for request in (
        operations_pb2.ListOperationsRequest(name="reports"),
        operations_pb2.ListOperationsRequest(name="operations", filter="done = perhaps"),
        operations_pb2.ListOperationsRequest(name="operations", page_size=-1),
        operations_pb2.ListOperationsRequest(name="operations", return_partial_success=True),
    ):
        call = reporting.operations.ListOperations(request, metadata=headers(), timeout=10)
        await refused(call, Code.INVALID_ARGUMENT, Reason.FIELD_INVALID)
    token = operations_pb2.ListOperationsRequest(name="operations", page_token="AAAA")
    await refused(
        reporting.operations.ListOperations(token, metadata=headers(), timeout=10), Code.INVALID_ARGUMENT, Reason.PAGE_TOKEN_INVALID
    )


async def test_a_replay_says_so_and_other_words_under_the_key_are_refused(reporting: Caller, world: World) -> None:
    request = shown(world)
    first = await reporting.reports.CreateReport(request, metadata=headers(), timeout=10)
    call = reporting.reports.CreateReport(request, metadata=headers(), timeout=10)
    assert (await call).name == first.name
    assert dict(await call.initial_metadata())["idempotency-replayed"] == "true"
    request.format = JSON
    await refused(
        reporting.reports.CreateReport(request, metadata=headers(), timeout=10), Code.ALREADY_EXISTS, Reason.IDEMPOTENCY_KEY_REUSED
    )


async def test_a_wait_is_bounded_by_its_timeout(reporting: Caller, world: World) -> None:
    name = (await reporting.reports.CreateReport(shown(world), metadata=headers(), timeout=10)).name
    request = operations_pb2.WaitOperationRequest(name=name)
    request.timeout.FromNanoseconds(1)
    assert (await reporting.operations.WaitOperation(request, metadata=headers(), timeout=10)).name == name


async def test_the_log_of_reports_is_for_the_gateway(reporting: Caller, world: World) -> None:
    name = (await reporting.reports.CreateReport(shown(world), metadata=headers(), timeout=10)).name
    await reporting.done(name)
    read = event_log_service_pb2.ReadEventsRequest()
    answer = await reporting.log.ReadEvents(read, metadata=headers(None, "svc-gateway"), timeout=10)
    assert [event.type for event in answer.events] == ["reporting.v1.ReportRequested", "reporting.v1.ReportCompleted"]
    await refused(
        reporting.log.ReadEvents(read, metadata=headers(COMPLIANCE, "edge"), timeout=10), Code.PERMISSION_DENIED, Reason.PEER_NOT_ALLOWED
    )
