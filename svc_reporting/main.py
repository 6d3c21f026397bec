"""Composition root of reporting: `python -m svc_reporting`, configured by the environment (`svc_reporting.config`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.longrunning import operations_proto_pb2 as operations_pb2

from kernel.bus.redis_streams import RedisStreamsBus
from kernel.config import load
from kernel.consumer import LogSource
from kernel.eventlog_servicer import READ_PATHS, RemoteLog, event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.foundation import Foundation, foundation
from kernel.foundation_stores import database_answers, followed, open_bus, open_database, told
from kernel.grpc_client import ClientConfig
from kernel.ids import Uuid7Source
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.ports import Clock
from kernel.postgres import Database
from kernel.process import run_process, until_stopped
from kernel.projection_store import PostgresProjectionStore
from kernel.server_policy import ServiceBinding, outside
from svc_reporting.config import ReportingConfig
from svc_reporting.consumer.sources import FoldedSources, projection_of
from svc_reporting.consumer.writer import ReportWriter
from svc_reporting.domain.report import Bounds
from svc_reporting.servicer.access import ROLES
from svc_reporting.servicer.operations import OperationsServicer
from svc_reporting.servicer.reporting import ReportingServicer
from svc_reporting.store import MIGRATIONS
from svc_reporting.store.data import DataStore
from svc_reporting.store.reports import ReportStore
from trademesh.reporting.v1 import reporting_service_pb2
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

TOPIC = "reporting"
LOG_READERS = ("svc-gateway",)
LOG_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Stores:
    """What stands on one database; one set per process."""

    database: Database
    log: PostgresEventStore
    leases: PostgresLeases
    projections: PostgresProjectionStore
    reports: ReportStore
    data: DataStore
    writer: ReportWriter


def open_stores(database: Database, clock: Clock, owner: str, bounds: Bounds, retention: timedelta) -> Stores:
    """Wire the stores of a replica. `owner` is its name in leases, unique per process start."""
    log = PostgresEventStore(database)
    leases = PostgresLeases(database, clock, owner)
    reports, data = ReportStore(database, log, bounds, retention), DataStore(database)
    projections = PostgresProjectionStore(database, leases)
    return Stores(database, log, leases, projections, reports, data, ReportWriter(reports, data, bounds))


def bindings(stores: Stores, clock: Clock, tokens: PageTokens) -> list[ServiceBinding]:
    """Return the services with what each of their methods demands."""
    folded = FoldedSources(stores.projections, clock)
    reporting = ReportingServicer(stores.reports, stores.data, folded, tokens, Uuid7Source(clock), stores.writer.wake)
    read, write = outside(*ROLES, write=False), outside(*ROLES, write=True)
    return [
        ServiceBinding(
            reporting_service_pb2.DESCRIPTOR.services_by_name["ReportingService"],
            reporting,
            {"CreateReport": write, "GetReport": read, "ListReports": read, "DownloadReport": read},
        ),
        ServiceBinding(
            operations_pb2.DESCRIPTOR.services_by_name["Operations"],
            OperationsServicer(stores.reports, tokens, clock),
            {
                "GetOperation": read,
                "ListOperations": read,
                "WaitOperation": read,
                "CancelOperation": write,
                "DeleteOperation": write,
            },
        ),
        event_log_binding(stores.log, *LOG_READERS),
    ]


async def serve(config: ReportingConfig, stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new calls, what was taken in finished.

    Raises:
        MigrationError, TrademeshError: the schema is not there, or something needed does not answer at the start.
    """
    async with foundation("svc-reporting", config, trace_ratio=config.trace_ratio) as base:
        database = await open_database(base, config.database_dsn, MIGRATIONS)
        await database.warm()
        retention = timedelta(days=config.report_retention_days)
        stores = open_stores(database, base.clock, base.ids.new_id(), _bounds(config), retention)
        base.closing(stores.log.close)
        sources = {
            source: RemoteLog(EventLogServiceStub(base.channel(_source_config(config, source, targets))))
            for source, targets in _targets(config).items()
        }
        background = _background(base, stores, sources, open_bus(base, config.redis_url))
        # Sources are no condition: a report of what is copied can be made whoever is away.
        server = base.server(bindings(stores, base.clock, PageTokens(config.token_key)), ready=database_answers(database))
        await until_stopped(server, background, stop)


def _background(
    base: Foundation, stores: Stores, sources: Mapping[str, LogSource], bus: RedisStreamsBus | None
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside the calls: a projection for each source, the writer, the relay."""
    # When a projection stops, reports go on, on what is copied; whoever asks for a later position is told that it is not there.
    copying = [
        followed(base, projection_of(source, stores.projections, log, bus, stores.leases, base.clock)) for source, log in sources.items()
    ]
    base.telemetry.metrics.source(stores.writer.samples)
    return [*copying, stores.writer.run(), *told(base, TOPIC, stores.log, bus, stores.database, stores.leases)]


def _bounds(config: ReportingConfig) -> Bounds:
    return Bounds(config.report_rows_max, config.report_bytes_max, config.reports_pending_max)


def _targets(config: ReportingConfig) -> dict[str, tuple[str, ...]]:
    targets = {"oms": config.oms_targets, "risk": config.risk_targets, "custody": config.custody_targets}
    return {source: found for source, found in targets.items() if found}


def _source_config(config: ReportingConfig, source: str, targets: tuple[str, ...]) -> ClientConfig:
    return ClientConfig(
        dependency=f"svc-{source}",
        targets=targets,
        headers_file=config.headers_file,
        idempotent=READ_PATHS,
        timeout_seconds=LOG_TIMEOUT_SECONDS,
    )


def main() -> int:
    """Run a replica as the environment configures it, and return the exit code; see `kernel.process`."""
    return run_process("svc_reporting", lambda: load(ReportingConfig), serve)
