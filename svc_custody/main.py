"""Composition root of custody: `python -m svc_custody`, configured by the environment (`svc_custody.config`)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from kernel import logs
from kernel.bus.redis_streams import RedisStreamsBus
from kernel.clock import SystemClock
from kernel.config import ConfigError, load
from kernel.consumer import Projection, ProjectionStoppedError
from kernel.errors import TrademeshError
from kernel.eventlog_servicer import READ_PATHS, RemoteLog, event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.grpc_server import GrpcServer, ServerConfig, run
from kernel.ids import Uuid7Source
from kernel.leadership import lead
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.ports import Clock, IdSource
from kernel.postgres import Database, MigrationError, PoolSettings, verify
from kernel.projection_store import PostgresProjectionStore
from kernel.relay import PostgresRelayMemory, Relay
from kernel.server_policy import ServiceBinding, outside
from kernel.telemetry import Telemetry, TelemetryConfig
from kernel.values import use_exact_decimals
from svc_custody.clients.calendars import Calendars, HolidayCalendars
from svc_custody.config import CustodyConfig
from svc_custody.consumer import settling
from svc_custody.consumer.executions import Executions, FoldedOrders, execution_projection
from svc_custody.consumer.reference_data import reference_projection
from svc_custody.consumer.settling import BusinessClock, Settling
from svc_custody.servicer.access import COMPLIANCE, OPERATIONS, READERS, Access
from svc_custody.servicer.assets import Assets
from svc_custody.servicer.custody import CustodyServicer
from svc_custody.servicer.queries import Queries
from svc_custody.servicer.writes import Writes
from svc_custody.store import MIGRATIONS
from svc_custody.store.business_date import BusinessDateStore
from svc_custody.store.facts import FactStore
from svc_custody.store.ledgers import LedgerStore
from svc_custody.store.reads import ReadStore
from svc_custody.store.requests import RequestStore
from svc_custody.store.schedule import ScheduleStore
from trademesh.custody.v1 import custody_service_pb2
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

TOPIC = "custody"
LOG_READERS = ("svc-portfolio", "svc-reporting", "svc-gateway")
LOG_TIMEOUT_SECONDS = 3.0
CONFIGURATION_EXIT_CODE = 78


@dataclass(frozen=True, slots=True)
class Stores:
    """What stands on one database; one set per process."""

    database: Database
    log: PostgresEventStore
    leases: PostgresLeases
    projections: PostgresProjectionStore
    ledgers: LedgerStore
    facts: FactStore
    dates: BusinessDateStore
    requests: RequestStore
    reads: ReadStore
    schedule: ScheduleStore


@dataclass(frozen=True, slots=True)
class Work:
    """What moves ledgers: the fold of executions and the clock's work."""

    executions: Executions
    clock: BusinessClock
    settling: Settling


def open_stores(database: Database, clock: Clock, owner: str) -> Stores:
    """Wire the stores of a replica. `owner` is its name in leases, unique per process start."""
    log = PostgresEventStore(database)
    leases = PostgresLeases(database, clock, owner)
    return Stores(
        database,
        log,
        leases,
        PostgresProjectionStore(database, leases),
        LedgerStore(log),
        FactStore(database),
        BusinessDateStore(database, log),
        RequestStore(database),
        ReadStore(database),
        ScheduleStore(database),
    )


def open_work(
    stores: Stores,
    clock: Clock,
    calendars: Calendars,
    *,
    affirm_seconds: float,
    zone: str = "America/New_York",
    currency: str = "USD",
) -> Work:
    """Wire what moves ledgers."""
    executions = Executions(stores.ledgers, stores.facts, calendars, affirm_seconds=affirm_seconds)
    days = BusinessClock(clock, calendars, zone=zone, currency=currency)
    worker = Settling(stores.database, stores.leases, stores.ledgers, stores.schedule, stores.dates, stores.facts, executions, days)
    return Work(executions, days, worker)


def bindings(
    stores: Stores, work: Work, clock: Clock, ids: IdSource, tokens: PageTokens, firm_tenant: str, *, sandbox: bool
) -> list[ServiceBinding]:
    """Return the services with what each of their methods demands."""
    access = Access(stores.facts, firm_tenant)
    queries = Queries(stores.reads, access, tokens, FoldedOrders(stores.projections), clock)
    writes = Writes(
        stores.ledgers, stores.requests, stores.dates, access, Assets(stores.facts), ids, work.clock, work.settling, sandbox=sandbox
    )
    custody = CustodyServicer(queries, writes, stores.dates, work.clock, sandbox=sandbox)
    read, write = outside(*READERS, write=False), outside(OPERATIONS, write=True)
    reading = ("ListBalances", "ListLedgerEntries", "GetSettlement", "ListSettlements", "ListHolds", "GetBusinessDate")
    writing = (
        "CreateDeposit",
        "CreateWithdrawal",
        "CreateHold",
        "CaptureHold",
        "ReleaseHold",
        "AffirmSettlement",
        "AdvanceBusinessDate",
    )
    return [
        ServiceBinding(
            custody_service_pb2.DESCRIPTOR.services_by_name["CustodyService"],
            custody,
            {
                **dict.fromkeys(reading, read),
                **dict.fromkeys(writing, write),
                "GetLedgerStatus": outside(OPERATIONS, COMPLIANCE, write=False),
            },
        ),
        event_log_binding(stores.log, *LOG_READERS),
    ]


async def serve(config: CustodyConfig, stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new calls, what was taken in finished.

    Raises:
        ConfigError: the time zone is unknown.
        MigrationError, TrademeshError: the schema is not there, or something needed does not answer at the start.
    """
    clock = SystemClock()
    ids = Uuid7Source(clock)
    writer = logs.configure("svc-custody", config.instance)
    telemetry = Telemetry(
        TelemetryConfig("svc-custody", config.instance, config.telemetry_folder, config.trace_ratio / 100, config.otlp_endpoint)
    )
    await verify(config.database_dsn, MIGRATIONS)
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(config.database_dsn, PoolSettings(application_name=config.instance))
        stack.push_async_callback(database.close)
        await database.warm()
        stores = open_stores(database, clock, ids.new_id())
        stack.push_async_callback(stores.log.close)
        work = _work(config, stores, clock)
        await stores.dates.follow(work.clock.today())
        telemetry.start()
        stack.push_async_callback(telemetry.stop)
        channels = [
            MeshChannel(_client(config, name, targets), tracing=telemetry.tracing)
            for name, targets in (("svc-oms", config.oms_targets), ("svc-risk", config.risk_targets))
        ]
        for channel in channels:
            stack.push_async_callback(channel.close)
            telemetry.metrics.source(channel.samples)
        bus = None
        if config.redis_url is not None:
            bus = RedisStreamsBus(config.redis_url)
            stack.push_async_callback(bus.close)
        telemetry.metrics.source(work.settling.samples)
        server = GrpcServer(
            _server_config(config),
            bindings(stores, work, clock, ids, PageTokens(config.token_key), config.firm_tenant, sandbox=config.sandbox_clock),
            ready=_ready(database),
            telemetry=telemetry,
            log_writer=writer,
            now=time.time,
        )
        orders, risk = (RemoteLog(EventLogServiceStub(channel)) for channel in channels)
        await _until_stopped(server, _background(stores, work, orders, risk, bus, clock, telemetry), stop)
    writer.flush()


def _work(config: CustodyConfig, stores: Stores, clock: Clock) -> Work:
    try:
        return open_work(
            stores,
            clock,
            HolidayCalendars(),
            affirm_seconds=config.affirm_seconds,
            zone=config.business_time_zone,
            currency=config.business_currency,
        )
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(["TRADEMESH_BUSINESS_TIME_ZONE: is not an IANA time zone"]) from None


def _background(
    stores: Stores,
    work: Work,
    orders: RemoteLog,
    risk: RemoteLog,
    bus: RedisStreamsBus | None,
    clock: Clock,
    telemetry: Telemetry,
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside the calls, each under its lease in one replica at a time."""
    leases, projections = stores.leases, stores.projections
    followed = [
        execution_projection(work.executions, projections, orders, bus, leases, clock),
        reference_projection(stores.facts, projections, risk, bus, leases, clock),
    ]
    tasks = [lead(leases, settling.LEASE, work.settling.run)]
    for projection in followed:
        telemetry.metrics.source(projection.samples)
        tasks.append(_projected(projection))
    if bus is not None:
        relay = Relay(TOPIC, stores.log, bus, PostgresRelayMemory(stores.database, leases), leases, clock)
        telemetry.metrics.source(relay.samples)
        tasks.append(relay.run())
    return tasks


async def _projected(projection: Projection) -> None:
    """A projection that met an event it cannot fold stays stopped, and says so by metric and log. What is in the ledgers is served and
    settled on; the position that reads carry says up to where that is.
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


def _server_config(config: CustodyConfig) -> ServerConfig:
    return ServerConfig(
        service="svc-custody",
        instance=config.instance,
        socket_path=config.socket_path,
        sidecar_secret=config.sidecar_secret.reveal(),
    )


def _client(config: CustodyConfig, dependency: str, targets: tuple[str, ...]) -> ClientConfig:
    return ClientConfig(
        dependency=dependency,
        targets=targets,
        headers_file=config.headers_file,
        idempotent=READ_PATHS,
        timeout_seconds=LOG_TIMEOUT_SECONDS,
    )


def _ready(database: Database) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        # The other services are no condition: what is in the ledgers can be shown and moved without them.
        return bool(await database.fetchval("SELECT true"))

    return ready


def main() -> int:
    """Parse the configuration once, run, and return the exit code: 78 for a configuration or schema that a person has to mend."""
    use_exact_decimals()
    try:
        config = load(CustodyConfig)
        run(lambda stop: serve(config, stop))
    except (ConfigError, MigrationError) as error:
        sys.stderr.write(f"svc_custody: {error}\n")
        return CONFIGURATION_EXIT_CODE
    except TrademeshError as error:
        sys.stderr.write(f"svc_custody: {error.reason.value}: {error}\n")
        return 1
    return 0
