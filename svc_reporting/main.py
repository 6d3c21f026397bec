"""Composition root of reporting: `python -m svc_reporting`, configured by the environment (`svc_reporting.config`)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from google.longrunning import operations_proto_pb2 as operations_pb2
from google.protobuf.descriptor import ServiceDescriptor

from kernel import logs
from kernel.bus.redis_streams import RedisStreamsBus
from kernel.clock import SystemClock
from kernel.config import ConfigError, load
from kernel.consumer import LogSource, Projection, ProjectionStoppedError
from kernel.errors import TrademeshError
from kernel.eventlog_servicer import READ_PATHS, RemoteLog, event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.grpc_server import GrpcServer, ServerConfig, run
from kernel.ids import Uuid7Source
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.ports import Clock
from kernel.postgres import Database, MigrationError, PoolSettings, verify
from kernel.projection_store import PostgresProjectionStore
from kernel.relay import PostgresRelayMemory, Relay
from kernel.server_policy import ServiceBinding, outside
from kernel.telemetry import Telemetry, TelemetryConfig
from kernel.values import use_exact_decimals
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
CONFIGURATION_EXIT_CODE = 78


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
            _service(reporting_service_pb2, "ReportingService"),
            reporting,
            {"CreateReport": write, "GetReport": read, "ListReports": read, "DownloadReport": read},
        ),
        ServiceBinding(
            _service(operations_pb2, "Operations"),
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
    clock = SystemClock()
    log_writer = logs.configure("svc-reporting", config.instance)
    telemetry = Telemetry(
        TelemetryConfig("svc-reporting", config.instance, config.telemetry_folder, config.trace_ratio / 100, config.otlp_endpoint)
    )
    await verify(config.database_dsn, MIGRATIONS)
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(config.database_dsn, PoolSettings(application_name=config.instance))
        stack.push_async_callback(database.close)
        await database.warm()
        retention = timedelta(days=config.report_retention_days)
        stores = open_stores(database, clock, Uuid7Source(clock).new_id(), _bounds(config), retention)
        stack.push_async_callback(stores.log.close)
        telemetry.start()
        stack.push_async_callback(telemetry.stop)
        sources: dict[str, LogSource] = {}
        for source, targets in _targets(config).items():
            channel = MeshChannel(_source_config(config, source, targets), tracing=telemetry.tracing)
            stack.push_async_callback(channel.close)
            telemetry.metrics.source(channel.samples)
            sources[source] = RemoteLog(EventLogServiceStub(channel))
        bus = None
        if config.redis_url is not None:
            bus = RedisStreamsBus(config.redis_url)
            stack.push_async_callback(bus.close)
        server = GrpcServer(
            _server_config(config),
            bindings(stores, clock, PageTokens(config.token_key)),
            ready=_ready(database),
            telemetry=telemetry,
            log_writer=log_writer,
            now=time.time,
        )
        await _until_stopped(server, _background(stores, sources, bus, clock, telemetry), stop)
    log_writer.flush()


def _background(
    stores: Stores, sources: Mapping[str, LogSource], bus: RedisStreamsBus | None, clock: Clock, telemetry: Telemetry
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside the calls: a projection for each source, the writer, the relay."""
    work = []
    for source, log in sources.items():
        projection = projection_of(source, stores.projections, log, bus, stores.leases, clock)
        telemetry.metrics.source(projection.samples)
        work.append(_projected(projection))
    telemetry.metrics.source(stores.writer.samples)
    work.append(stores.writer.run())
    if bus is not None:
        relay = Relay(TOPIC, stores.log, bus, PostgresRelayMemory(stores.database, stores.leases), stores.leases, clock)
        telemetry.metrics.source(relay.samples)
        work.append(relay.run())
    return work


async def _projected(projection: Projection) -> None:
    """A projection that met an event it cannot copy stays stopped, and says so by metric and log. Reports go on, on what is copied; whoever
    asks for a later position is told that it is not there.
    """
    with contextlib.suppress(ProjectionStoppedError):
        await projection.run()
    await asyncio.Event().wait()


async def _until_stopped(server: GrpcServer, background: list[Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Serve until told to stop, or until background work ends with a defect."""
    tasks = [asyncio.create_task(work) for work in background]
    stopped = asyncio.create_task(stop.wait())
    try:
        await server.start()
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not stopped:
                task.result()
                raise RuntimeError("background work ended by itself")
    finally:
        await server.stop()
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)


def _bounds(config: ReportingConfig) -> Bounds:
    return Bounds(config.report_rows_max, config.report_bytes_max, config.reports_pending_max)


def _targets(config: ReportingConfig) -> dict[str, tuple[str, ...]]:
    targets = {"oms": config.oms_targets, "risk": config.risk_targets, "custody": config.custody_targets}
    return {source: found for source, found in targets.items() if found}


def _server_config(config: ReportingConfig) -> ServerConfig:
    return ServerConfig(
        service="svc-reporting",
        instance=config.instance,
        socket_path=config.socket_path,
        sidecar_secret=config.sidecar_secret.reveal(),
    )


def _source_config(config: ReportingConfig, source: str, targets: tuple[str, ...]) -> ClientConfig:
    return ClientConfig(
        dependency=f"svc-{source}",
        targets=targets,
        headers_file=config.headers_file,
        idempotent=READ_PATHS,
        timeout_seconds=LOG_TIMEOUT_SECONDS,
    )


def _ready(database: Database) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        # Sources are no condition: a report of what is copied can be made whoever is away.
        return bool(await database.fetchval("SELECT true"))

    return ready


def _service(module: Any, name: str) -> ServiceDescriptor:
    return cast("ServiceDescriptor", module.DESCRIPTOR.services_by_name[name])


def main() -> int:
    """Parse the configuration once, run, and return the exit code: 78 for a configuration or schema that a person has to mend."""
    use_exact_decimals()
    try:
        config = load(ReportingConfig)
        run(lambda stop: serve(config, stop))
    except (ConfigError, MigrationError) as error:
        sys.stderr.write(f"svc_reporting: {error}\n")
        return CONFIGURATION_EXIT_CODE
    except TrademeshError as error:
        sys.stderr.write(f"svc_reporting: {error.reason.value}: {error}\n")
        return 1
    return 0
