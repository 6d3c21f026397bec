"""Composition root of portfolio: `python -m svc_portfolio`, configured by the environment (`svc_portfolio.config`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

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
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.ports import Clock
from kernel.postgres import Database, MigrationError, PoolSettings, verify
from kernel.projection_store import PostgresProjectionStore
from kernel.relay import PostgresRelayMemory, Relay
from kernel.server_policy import ServiceBinding, outside
from kernel.streams import ResumeTokens
from kernel.telemetry import Sample, Telemetry, TelemetryConfig
from kernel.values import use_exact_decimals
from svc_portfolio.clients.marks import MarkBook
from svc_portfolio.clients.prices import ReferencePrices
from svc_portfolio.config import PortfolioConfig, check
from svc_portfolio.consumer.executions import execution_projection
from svc_portfolio.consumer.prices import PriceFollower
from svc_portfolio.consumer.reference import reference_projection
from svc_portfolio.servicer.access import READERS
from svc_portfolio.servicer.feed import PortfolioFeed
from svc_portfolio.servicer.marking import Marker
from svc_portfolio.servicer.portfolio import PortfolioServicer
from svc_portfolio.store import MIGRATIONS
from svc_portfolio.store.positions import PositionStore
from svc_portfolio.store.reads import PortfolioReads
from svc_portfolio.store.reference import ReferenceStore
from trademesh.marketdata.v1.reference_price_service_pb2_grpc import ReferencePriceServiceStub
from trademesh.portfolio.v1 import portfolio_service_pb2
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

TOPIC = "portfolio"
LOG_READERS = ("svc-reporting", "svc-gateway", "svc-custody")
LOG_TIMEOUT_SECONDS = 3.0
CONFIGURATION_EXIT_CODE = 78


@dataclass(frozen=True, slots=True)
class Stores:
    """What stands on one database; one set per process."""

    database: Database
    log: PostgresEventStore
    leases: PostgresLeases
    projections: PostgresProjectionStore
    positions: PositionStore
    reference: ReferenceStore
    reads: PortfolioReads


def open_stores(database: Database, clock: Clock, owner: str) -> Stores:
    """Wire the stores of a replica. `owner` is its name in leases, unique per process start."""
    log = PostgresEventStore(database)
    leases = PostgresLeases(database, clock, owner)
    projections = PostgresProjectionStore(database, leases)
    return Stores(database, log, leases, projections, PositionStore(log, clock), ReferenceStore(database), PortfolioReads(database))


def bindings(stores: Stores, servicer: PortfolioServicer) -> list[ServiceBinding]:
    """Return the services with what each of their methods demands."""
    descriptor = portfolio_service_pb2.DESCRIPTOR.services_by_name["PortfolioService"]
    read = outside(*READERS, write=False)
    return [
        ServiceBinding(descriptor, servicer, {method.name: read for method in descriptor.methods}),
        event_log_binding(stores.log, *LOG_READERS),
    ]


async def serve(config: PortfolioConfig, stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new calls, what was taken in finished.

    Raises:
        MigrationError, TrademeshError: the schema is not there, or something needed does not answer at the start.
    """
    clock = SystemClock()
    writer = logs.configure("svc-portfolio", config.instance)
    telemetry = Telemetry(
        TelemetryConfig("svc-portfolio", config.instance, config.telemetry_folder, config.trace_ratio / 100, config.otlp_endpoint)
    )
    await verify(config.database_dsn, MIGRATIONS)
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(config.database_dsn, PoolSettings(application_name=config.instance))
        stack.push_async_callback(database.close)
        await database.warm()
        stores = open_stores(database, clock, Uuid7Source(clock).new_id())
        stack.push_async_callback(stores.log.close)
        telemetry.start()
        stack.push_async_callback(telemetry.stop)
        bus = None
        if config.redis_url is not None:
            bus = RedisStreamsBus(config.redis_url)
            stack.push_async_callback(bus.close)
        marks = MarkBook()
        background = [
            *_following(config, stores, bus, clock, telemetry, stack),
            *_marking(config, marks, clock, telemetry, stack),
            *_telling(stores, bus, clock, telemetry),
        ]
        feed = PortfolioFeed(stores.log, stores.reference)
        stack.push_async_callback(feed.close)
        servicer = PortfolioServicer(
            stores.reads,
            stores.reference,
            feed,
            Marker(marks, clock),
            PageTokens(config.token_key),
            ResumeTokens(config.token_key),
            clock,
        )
        server = GrpcServer(
            _server_config(config),
            bindings(stores, servicer),
            ready=_ready(database),
            telemetry=telemetry,
            log_writer=writer,
            now=time.time,
        )
        await _until_stopped(server, background, stop)
    writer.flush()


def _following(
    config: PortfolioConfig,
    stores: Stores,
    bus: RedisStreamsBus | None,
    clock: Clock,
    telemetry: Telemetry,
    stack: contextlib.AsyncExitStack,
) -> list[Coroutine[Any, Any, None]]:
    """The projections, each in one replica at a time."""
    oms = _channel(config, "svc-oms", config.oms_targets, telemetry, stack)
    risk = _channel(config, "svc-risk", config.risk_targets, telemetry, stack)
    executions = execution_projection(stores.positions, stores.projections, RemoteLog(EventLogServiceStub(oms)), bus, stores.leases, clock)
    reference = reference_projection(stores.reference, stores.projections, RemoteLog(EventLogServiceStub(risk)), bus, stores.leases, clock)
    telemetry.metrics.source(executions.samples)
    telemetry.metrics.source(reference.samples)
    telemetry.metrics.source(lambda: [Sample("repeated_executions_total", stores.positions.repeated_executions)])
    return [_projected(executions), _projected(reference)]


def _marking(
    config: PortfolioConfig, marks: MarkBook, clock: Clock, telemetry: Telemetry, stack: contextlib.AsyncExitStack
) -> list[Coroutine[Any, Any, None]]:
    """The prices, in every replica."""
    if not config.marketdata_targets:
        return []
    channel = _channel(config, "svc-marketdata", config.marketdata_targets, telemetry, stack)
    source = ReferencePrices(ReferencePriceServiceStub(channel).StreamReferencePrices)
    followers = [PriceFollower(venue, source, marks, clock) for venue in config.price_venues]
    for follower in followers:
        telemetry.metrics.source(follower.samples)
    return [follower.run() for follower in followers]


def _telling(stores: Stores, bus: RedisStreamsBus | None, clock: Clock, telemetry: Telemetry) -> list[Coroutine[Any, Any, None]]:
    """The relay of our own log, in one replica at a time."""
    if bus is None:
        return []
    relay = Relay(TOPIC, stores.log, bus, PostgresRelayMemory(stores.database, stores.leases), stores.leases, clock)
    telemetry.metrics.source(relay.samples)
    return [relay.run()]


def _channel(
    config: PortfolioConfig, dependency: str, targets: tuple[str, ...], telemetry: Telemetry, stack: contextlib.AsyncExitStack
) -> MeshChannel:
    client = ClientConfig(
        dependency=dependency,
        targets=targets,
        headers_file=config.headers_file,
        idempotent=READ_PATHS,
        timeout_seconds=LOG_TIMEOUT_SECONDS,
    )
    channel = MeshChannel(client, tracing=telemetry.tracing)
    stack.push_async_callback(channel.close)
    telemetry.metrics.source(channel.samples)
    return channel


async def _projected(projection: Projection) -> None:
    """A projection that met an event it cannot fold stays stopped, and says so by metric and log. Reads go on and say how far they show."""
    with contextlib.suppress(ProjectionStoppedError):
        await projection.run()
    await asyncio.Event().wait()


async def _until_stopped(server: GrpcServer, background: list[Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Serve until told to stop, or until background work ends with a defect."""
    tasks = [asyncio.create_task(work) for work in background]
    stopped = asyncio.create_task(stop.wait())
    try:
        await server.start()
        gc.collect()
        gc.freeze()
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


def _server_config(config: PortfolioConfig) -> ServerConfig:
    return ServerConfig(
        service="svc-portfolio",
        instance=config.instance,
        socket_path=config.socket_path,
        sidecar_secret=config.sidecar_secret.reveal(),
    )


def _ready(database: Database) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        # Other services are no condition: answers say how far they show, and marks whether they are fresh.
        return bool(await database.fetchval("SELECT true"))

    return ready


def main() -> int:
    """Parse the configuration once, run, and return the exit code: 78 for a configuration or schema that a person has to mend."""
    use_exact_decimals()
    try:
        config = check(load(PortfolioConfig))
        run(lambda stop: serve(config, stop))
    except (ConfigError, MigrationError) as error:
        sys.stderr.write(f"svc_portfolio: {error}\n")
        return CONFIGURATION_EXIT_CODE
    except TrademeshError as error:
        sys.stderr.write(f"svc_portfolio: {error.reason.value}: {error}\n")
        return 1
    return 0
