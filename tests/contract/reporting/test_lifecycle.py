"""Who writes a report, who ends it, and what is left of it: two replicas on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest
from google.longrunning import operations_proto_pb2 as operations_pb2
from google.rpc import code_pb2

from kernel.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    LeaseLostError,
    NotFoundError,
    PermissionDeniedError,
    Reason,
    ResourceExhaustedError,
    UnavailableError,
)
from kernel.identity import User
from kernel.ports import LogPosition
from kernel.status import from_status
from mesh.local.provision import ServiceDatabase
from svc_reporting.consumer.writer import PART_BYTES
from svc_reporting.domain.report import Bounds
from tests.integration.reporting.conftest import one, other, reporting_database, sql
from tests.integration.reporting.replica import (
    AUDIT_TRAIL,
    BLOTTER,
    CAROL,
    JSON,
    Replica,
    asking,
    call,
    positions,
    replica,
)
from tests.integration.reporting.world import BUY, TENANT, World, trading_day
from trademesh.reporting.v1 import events_pb2, report_pb2
from trademesh.reporting.v1 import reporting_service_pb2 as pb

__all__ = ["one", "other", "reporting_database", "sql"]

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def busy_world(orders: int) -> World:
    """Return a world whose audit trail has several parts."""
    world = trading_day()
    for number in range(orders):
        world.order(BUY, "1").fill(f"B-{number}", "1", "100", state=4)
    return world


async def history(one: Replica, operation: operations_pb2.Operation) -> list[str]:
    stream = operation.name.replace("operations/", "report-")
    return [event.type for event in await one.stores.log.read_stream(stream)]


async def test_one_key_is_one_report_whoever_asks_and_however_often(one: Replica, other: Replica) -> None:
    await one.follow(trading_day())
    request = asking()
    first, second = await asyncio.gather(one.ask(request), other.ask(request))
    assert first.name == second.name
    await one.stores.writer.write_one()
    context = call()
    again = await other.reporting.CreateReport(request, context)
    assert (again.name, again.done) == (first.name, True)
    assert ("idempotency-replayed", "true") in context.initial_metadata
    request.account_ids[:] = ["ACC-2", "ACC-1"]
    assert (await one.ask(request)).name == first.name, "accounts have no order"
    request.account_ids[:] = ["ACC-1"]
    with pytest.raises(AlreadyExistsError) as caught:
        await one.ask(request)
    assert caught.value.reason is Reason.IDEMPOTENCY_KEY_REUSED
    assert await history(one, first) == ["reporting.v1.ReportRequested", "reporting.v1.ReportCompleted"]


async def test_another_principal_may_use_the_same_key(one: Replica) -> None:
    await one.follow(trading_day())
    request = asking()
    dan = User("dan", TENANT, CAROL.roles, CAROL.accounts, CAROL.expires_at)
    assert (await one.ask(request)).name != (await one.ask(request, dan)).name


async def test_a_report_is_written_by_one_replica(one: Replica, other: Replica) -> None:
    await one.follow(trading_day())
    await one.ask(asking())
    assert sorted(await asyncio.gather(one.stores.writer.write_one(), other.stores.writer.write_one())) == [False, True]


async def test_a_dead_replica_is_replaced_and_the_bytes_are_the_same(one: Replica, other: Replica, sql: Sql) -> None:
    await one.follow(busy_world(400))
    expected = await one.make(asking(AUDIT_TRAIL, JSON))
    assert len(expected) > 3 * PART_BYTES
    operation = await one.ask(asking(AUDIT_TRAIL, JSON))
    taken = await one.stores.reports.claim()
    assert taken is not None
    await one.stores.reports.write(taken, 0, [b"half a rep"], 3, 10)
    assert await other.stores.reports.claim() is None, "it is held"
    assert (await one.report(operation.name)).row_count == 3, "progress shows"
    await sql.execute("UPDATE report SET leased_until = now() - interval '1 second' WHERE state = 2")
    assert await other.stores.writer.write_one()
    assert await one.download(operation.name) == expected
    for late in (one.stores.reports.write(taken, 1, [b"ort"], 4, 13), one.stores.reports.complete(taken, 4, 13, "0" * 64)):
        with pytest.raises(LeaseLostError):
            await late
    assert await one.download(operation.name) == expected
    assert await sql.fetchval("SELECT count(DISTINCT epoch) FROM report_content WHERE report_id = $1::text::uuid", taken.report_id) == 1
    assert await history(one, operation) == ["reporting.v1.ReportRequested", "reporting.v1.ReportCompleted"]


async def test_a_replica_that_stops_gives_its_report_back_at_once(one: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    await one.follow(trading_day())
    operation = await one.ask(asking())
    reached = asyncio.Event()

    async def hang(*_: object) -> AsyncIterator[list[list[str]]]:
        reached.set()
        await asyncio.Event().wait()
        yield []

    monkeypatch.setattr(one.stores.writer, "_rows", hang)
    writing = asyncio.create_task(one.stores.writer.run())
    await asyncio.wait_for(reached.wait(), 10)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert await other.stores.writer.write_one()
    assert (await one.report(operation.name)).state == report_pb2.REPORT_STATE_COMPLETED


async def test_a_cancelled_report_is_never_complete(one: Replica, other: Replica) -> None:
    await one.follow(trading_day())
    waiting, running = await one.ask(asking()), await one.ask(asking())
    await other.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=waiting.name), call())
    taken = await one.stores.reports.claim()
    assert taken is not None
    assert running.name.endswith(taken.report_id)
    await one.stores.reports.write(taken, 0, [b"half"], 1, 4)
    for _ in range(2):
        await other.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=running.name), call())
    with pytest.raises(LeaseLostError):
        await one.stores.reports.write(taken, 1, [b"whole"], 2, 9)
    with pytest.raises(LeaseLostError):
        await one.stores.reports.complete(taken, 2, 9, "0" * 64)
    for name in (waiting.name, running.name):
        operation = await one.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), call())
        assert (operation.done, operation.error.code) == (True, code_pb2.CANCELLED)
        with pytest.raises(FailedPreconditionError) as caught:
            await one.download(name)
        assert caught.value.reason is Reason.REPORT_NOT_READY
    assert await one.stores.reports.parts(taken, 0, 10) == []
    assert await history(one, running) == ["reporting.v1.ReportRequested", "reporting.v1.ReportCancelled"]
    assert not await one.stores.writer.write_one()


async def test_to_cancel_a_complete_report_changes_nothing(one: Replica) -> None:
    await one.follow(trading_day())
    operation = await one.ask(asking())
    await one.stores.writer.write_one()
    await one.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=operation.name), call())
    assert (await one.report(operation.name)).state == report_pb2.REPORT_STATE_COMPLETED


async def test_what_is_beyond_its_bounds_fails_with_a_typed_error(reporting_database: ServiceDatabase) -> None:
    for bounds, metadata in ((Bounds(rows_max=3), "rows_max"), (Bounds(content_bytes_max=2_000), "bytes_max")):
        async with replica(reporting_database.dsn, bounds) as small:
            await small.follow(trading_day())
            asked = await small.ask(asking(AUDIT_TRAIL, JSON))
            assert await small.stores.writer.write_one()
            operation = await small.operations.GetOperation(operations_pb2.GetOperationRequest(name=asked.name), call())
            error = from_status(operation.error)
            assert isinstance(error, ResourceExhaustedError)
            assert (error.reason, metadata in error.metadata) == (Reason.QUOTA_EXCEEDED, True)
            assert await history(small, asked) == ["reporting.v1.ReportRequested", "reporting.v1.ReportFailed"]
            failed = events_pb2.ReportFailed.FromString(
                (await small.stores.log.read_stream(asked.name.replace("operations/", "report-")))[1].payload
            )
            assert failed.error == operation.error


async def test_a_defect_fails_the_report_and_not_the_writer(one: Replica, sql: Sql) -> None:
    await one.follow(trading_day())
    asked = await one.ask(asking())
    await sql.execute("ALTER TABLE order_event DISABLE TRIGGER USER")
    await sql.execute("UPDATE order_event SET view = 'no view'")
    assert await one.stores.writer.write_one()
    operation = await one.operations.GetOperation(operations_pb2.GetOperationRequest(name=asked.name), call())
    error = from_status(operation.error)
    assert error is not None
    assert error.reason is Reason.INTERNAL


async def test_a_report_that_kills_every_replica_is_given_up(one: Replica, sql: Sql) -> None:
    await one.follow(trading_day())
    asked = await one.ask(asking())
    await sql.execute("UPDATE report SET epoch = 5")
    assert await one.stores.writer.write_one()
    assert (await one.report(asked.name)).state == report_pb2.REPORT_STATE_FAILED


async def test_one_principal_has_so_many_open_reports_and_no_more(one: Replica) -> None:
    await one.follow(trading_day())
    asked = [await one.ask(asking()) for _ in range(5)]
    with pytest.raises(ResourceExhaustedError) as caught:
        await one.ask(asking())
    assert caught.value.reason is Reason.QUOTA_EXCEEDED
    dan = User("dan", TENANT, CAROL.roles, CAROL.accounts, CAROL.expires_at)
    await one.ask(asking(), dan)
    await one.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=asked[0].name), call())
    await one.ask(asking())


async def test_expired_content_is_removed_and_made_again_by_the_same_parameters(reporting_database: ServiceDatabase) -> None:
    async with replica(reporting_database.dsn, retention=timedelta(0)) as brief:
        at = await brief.follow(trading_day())
        asked = await brief.ask(asking())
        await brief.stores.writer.write_one()
        content = await brief.download(asked.name)
        assert await brief.stores.reports.expire() == asked.name.removeprefix("operations/")
        assert await brief.stores.reports.expire() is None
        with pytest.raises(FailedPreconditionError, match="removed"):
            await brief.download(asked.name)
        assert await brief.make(asking(data_positions=positions(**at))) == content


async def test_a_deleted_operation_is_gone_and_its_key_used_up(one: Replica) -> None:
    await one.follow(trading_day())
    request = asking()
    name = (await one.ask(request)).name
    with pytest.raises(FailedPreconditionError):
        await one.operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name), call())
    await one.stores.writer.write_one()
    await one.operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name), call())
    for gone in (
        one.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), call()),
        one.report(name),
        one.ask(request),
    ):
        with pytest.raises(NotFoundError):
            await gone


async def test_a_report_waits_for_the_positions_that_it_is_asked_to_show(one: Replica, other: Replica) -> None:
    world = trading_day()
    await one.follow(world)
    world.order(BUY, "5").fill("E-50", "5", "100", state=4)
    asked = asyncio.create_task(one.ask(asking(min_positions=positions(oms=world.oms.end))))
    await other.follow(world)
    report = await one.report((await asked).name)
    assert report.parameters.data_positions.oms == positions(oms=world.oms.end).oms


async def test_positions_that_never_come_are_unavailable_and_leave_the_key_free(one: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc_reporting.servicer.reporting.REACH_SECONDS", 0.05)
    await one.follow(trading_day())
    request = asking(data_positions=positions(custody=LogPosition(10**6, 1)))
    with pytest.raises(UnavailableError, match="custody"):
        await one.ask(request)
    request.ClearField("data_positions")
    assert (await one.ask(request)).name


async def test_accounts_are_those_asked_for_or_all_of_the_tokens(one: Replica) -> None:
    await one.follow(trading_day())
    operation = await one.ask(asking(account_ids=[]))
    assert list((await one.report(operation.name)).parameters.account_ids) == ["ACC-1", "ACC-2"]
    stranger = User("carol", "south", CAROL.roles, frozenset({"ACC-1", "ACC-9"}), CAROL.expires_at)
    with pytest.raises(PermissionDeniedError):
        await one.ask(asking(account_ids=["ACC-1"]), stranger)
    with pytest.raises(PermissionDeniedError):
        await one.ask(asking(account_ids=["ACC-9"]))
    with pytest.raises(NotFoundError) as caught:
        await one.ask(asking(account_ids=["ACC-7"]), User("eve", TENANT, CAROL.roles, frozenset({"ACC-7"}), CAROL.expires_at))
    assert caught.value.reason is Reason.ACCOUNT_NOT_FOUND
    with pytest.raises(NotFoundError):
        await one.report(operation.name, stranger)
    narrowed = User("carol", TENANT, CAROL.roles, frozenset({"ACC-1"}), CAROL.expires_at)
    with pytest.raises(PermissionDeniedError):
        await one.report(operation.name, narrowed)


async def test_rows_are_selected_by_day_or_by_time(one: Replica) -> None:
    world = trading_day()
    await one.follow(world)

    async def count(kind: int, **more: object) -> int:
        return len((await one.make(asking(kind, JSON, **more))).splitlines())

    assert await count(BLOTTER, date_range=report_pb2.DateRange(start_date="2026-03-03")) == 1
    assert await count(BLOTTER, date_range=report_pb2.DateRange(end_date="2026-03-02")) == 6
    assert await count(AUDIT_TRAIL, date_range=report_pb2.DateRange(start_date="2026-03-03")) == 0
    everything = await count(AUDIT_TRAIL, date_range=report_pb2.DateRange(start_date="2026-03-02", end_date="2026-03-02"))
    assert everything == await count(AUDIT_TRAIL)
    cut = positions(oms=world.oms.events[9].position).oms
    assert await count(AUDIT_TRAIL, data_positions=report_pb2.DataPositions(oms=cut)) == 10
    middle = report_pb2.TimeRange()
    middle.start_time.FromDatetime(world.oms.events[2].recorded_at)
    middle.end_time.FromDatetime(world.oms.events[5].recorded_at)
    assert await count(AUDIT_TRAIL, time_range=middle) == 3
    with pytest.raises(InvalidArgumentError):
        await one.ask(asking(date_range=report_pb2.DateRange(start_date="2026-02-30")))
    with pytest.raises(InvalidArgumentError):
        await one.ask(asking(BLOTTER, JSON, rule_version="audit-trail/1"))


async def test_lists_go_newest_first_in_pages(one: Replica) -> None:
    await one.follow(trading_day())
    names = [(await one.ask(asking(kind))).name for kind in (BLOTTER, AUDIT_TRAIL, BLOTTER)]
    page = await one.reporting.ListReports(pb.ListReportsRequest(page_size=2), call())
    assert [f"operations/{report.report_id}" for report in page.reports] == names[:0:-1]
    rest = await one.reporting.ListReports(pb.ListReportsRequest(page_size=2, page_token=page.next_page_token), call())
    assert ([f"operations/{report.report_id}" for report in rest.reports], rest.next_page_token) == (names[:1], "")
    await one.stores.writer.write_one()
    done = await one.operations.ListOperations(operations_pb2.ListOperationsRequest(name="operations", filter="done = true"), call())
    assert [operation.name for operation in done.operations] == names[:1]
    open_ones = await one.operations.ListOperations(
        operations_pb2.ListOperationsRequest(name="operations", filter="done=false", page_size=1), call()
    )
    assert [operation.name for operation in open_ones.operations] == names[2:]
    assert open_ones.next_page_token


async def test_what_reports_are_made_of_cannot_be_changed(one: Replica, sql: Sql) -> None:
    await one.follow(trading_day())
    for table in ("order_event", "account_version", "instrument_version", "settlement_event"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.execute(f"DELETE FROM {table}")
        with pytest.raises(InternalError, match="42501"):
            await one.stores.database.fetch(f"UPDATE {table} SET tx = 0")


async def test_content_is_stored_in_parts_that_the_digest_covers(one: Replica) -> None:
    await one.follow(busy_world(600))
    asked = await one.ask(asking(AUDIT_TRAIL, JSON))
    await one.stores.writer.write_one()
    report = await one.report(asked.name)
    bodies = [body async for body in one.reporting.DownloadReport(pb.DownloadReportRequest(report_id=report.report_id), call())]
    assert max(len(body.data) for body in bodies) <= PART_BYTES
    assert hashlib.sha256(b"".join(body.data for body in bodies)).hexdigest() == report.sha256
