"""Replicas of reporting without their network, and projections that a test moves by hand."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from google.longrunning import operations_proto_pb2 as operations_pb2

from kernel.clock import SystemClock
from kernel.config import Dsn, Secret
from kernel.identity import Identity, User
from kernel.ids import Uuid7Source
from kernel.paging import PageTokens
from kernel.ports import LogPosition, RecordedEvent
from kernel.postgres import Database
from kernel.server_context import CallContext
from svc_reporting.consumer.sources import NAME, FoldedSources, model_of
from svc_reporting.domain.report import SOURCES, Bounds
from svc_reporting.main import open_stores
from svc_reporting.servicer.operations import OperationsServicer
from svc_reporting.servicer.reporting import ReportingServicer
from tests.integration.reporting.world import TENANT, World
from trademesh.reporting.v1 import report_pb2
from trademesh.reporting.v1 import reporting_service_pb2 as pb

CAROL = User("carol", TENANT, frozenset({"compliance"}), frozenset({"ACC-1", "ACC-2"}), 1 << 39)
BLOTTER, AUDIT_TRAIL = report_pb2.REPORT_KIND_TRADE_BLOTTER, report_pb2.REPORT_KIND_ORDER_AUDIT_TRAIL
CSV, JSON = report_pb2.REPORT_FORMAT_CSV, report_pb2.REPORT_FORMAT_JSON


def call(user: User = CAROL) -> CallContext:
    """Return the context of a user's call."""
    return CallContext(Identity("edge", user, ""))


def asking(kind: int = BLOTTER, report_format: int = CSV, **more: Any) -> pb.CreateReportRequest:
    """Return a request for a report under a key of its own."""
    request = pb.CreateReportRequest(**{"request_id": str(uuid.uuid4()), "account_ids": ["ACC-1", "ACC-2"], **more})
    request.kind, request.format = kind, report_format  # type: ignore[assignment]  # numbers of the contract
    return request


class Replica:
    """One replica: its stores, its servicers, its writer."""

    def __init__(self, database: Database, bounds: Bounds, retention: timedelta) -> None:
        clock = SystemClock()
        self.stores = open_stores(database, clock, Uuid7Source(clock).new_id(), bounds, retention)
        tokens = PageTokens(Secret("a key of this suite, and a long one"))
        folded = FoldedSources(self.stores.projections, clock)
        self.reporting = ReportingServicer(
            self.stores.reports, self.stores.data, folded, tokens, Uuid7Source(clock), self.stores.writer.wake
        )
        self.operations = OperationsServicer(self.stores.reports, tokens, clock)

    async def fold(self, source: str, events: list[RecordedEvent], batch: int = 1_000) -> None:
        """Copy events of a source, so many at a time."""
        for start in range(0, len(events), batch):
            lease = await self.stores.leases.acquire(f"projection:{NAME}:{source}")
            assert lease is not None, "one replica at a time"
            part = events[start : start + batch]
            await self.stores.projections.apply(lease, NAME, source, part[-1].position, part, model_of(source))
            await self.stores.leases.release(lease)

    async def follow(self, world: World, batch: int = 1_000) -> Mapping[str, LogPosition]:
        """Copy what the logs have that is not copied yet, and return up to where."""
        for source in SOURCES:
            cursor = await self.stores.projections.load(NAME, source)
            await self.fold(source, [event for event in world.source(source).events if event.position > cursor], batch)
        return {source: world.source(source).end for source in SOURCES}

    async def ask(self, request: pb.CreateReportRequest, user: User = CAROL) -> operations_pb2.Operation:
        """Ask for a report."""
        return await self.reporting.CreateReport(request, call(user))

    async def report(self, name: str, user: User = CAROL) -> report_pb2.Report:
        """Return a report by its operation's name."""
        request = pb.GetReportRequest(report_id=name.removeprefix("operations/"))
        return (await self.reporting.GetReport(request, call(user))).report

    async def download(self, name: str, user: User = CAROL) -> bytes:
        """Return the content of a report."""
        request = pb.DownloadReportRequest(report_id=name.removeprefix("operations/"))
        return b"".join([body.data async for body in self.reporting.DownloadReport(request, call(user))])

    async def make(self, request: pb.CreateReportRequest, user: User = CAROL) -> bytes:
        """Ask for a report, write it, and return its content."""
        operation = await self.ask(request, user)
        assert await self.stores.writer.write_one()
        return await self.download(operation.name, user)


@asynccontextmanager
async def replica(dsn: Dsn, bounds: Bounds | None = None, retention: timedelta = timedelta(days=7)) -> AsyncIterator[Replica]:
    """Run one replica, with a pool of its own."""
    pool = await Database.open(dsn)
    found = Replica(pool, bounds or Bounds(), retention)
    try:
        yield found
    finally:
        await found.stores.log.close()
        await pool.close()


def positions(**stated: LogPosition) -> report_pb2.DataPositions:
    """Return stated positions as a message."""
    message = report_pb2.DataPositions()
    for source, position in stated.items():
        target: Any = getattr(message, source)
        target.tx, target.position = position.tx, position.position
    return message
