"""Composition root of the order service: `python -m svc_oms`, configured by the environment (`svc_oms.config`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import ServiceDescriptor

from kernel import logs
from kernel.bus.redis_streams import RedisStreamsBus
from kernel.clock import SystemClock
from kernel.config import ConfigError, load
from kernel.errors import TrademeshError
from kernel.eventlog_servicer import event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.fix import tags
from kernel.fix.steps import Role, SessionConfig
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.grpc_server import GrpcServer, ServerConfig, run
from kernel.ids import Uuid7Source
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.postgres import KERNEL_MIGRATIONS, Database, MigrationError, MigrationSource, PoolSettings, verify
from kernel.relay import PostgresRelayMemory, Relay
from kernel.server_policy import ServiceBinding, inside, outside
from kernel.streams import ResumeTokens
from kernel.telemetry import Sample, Telemetry, TelemetryConfig
from kernel.values import use_exact_decimals
from svc_oms.clients import RiskClient
from svc_oms.config import OmsConfig, Venue, load_venues
from svc_oms.fix.connection import ConnectionConfig
from svc_oms.router.sweep import Sweeper
from svc_oms.router.venue import VenueRouter
from svc_oms.servicer.control import OrderControlServicer
from svc_oms.servicer.entry import CONTROL_LANE, ORDERS_LANE, OrderDesk
from svc_oms.servicer.feed import OrderFeed
from svc_oms.servicer.lanes import ORDERS, Lanes, lanes
from svc_oms.servicer.queries import OrderQueries
from svc_oms.servicer.service import OrderServicer
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OrderReads
from trademesh.oms.v1 import order_control_service_pb2, order_service_pb2
from trademesh.risk.v1.pre_trade_service_pb2_grpc import PreTradeServiceStub

MIGRATIONS = (KERNEL_MIGRATIONS, MigrationSource("svc_oms", Path(__file__).parent / "migrations"))
TOPIC = "oms"
CHECK_PATH = "/trademesh.risk.v1.PreTradeService/CheckOrders"
LOG_READERS = ("svc-risk", "svc-portfolio", "svc-custody", "svc-reporting", "svc-gateway", "svc-marketdata")
CONFIGURATION_EXIT_CODE = 78
GARBAGE_THRESHOLD = 50_000
BATCH_BYTES_MAX = 2 * 1024 * 1024

_logger = logging.getLogger(__name__)


def order_binding(servicer: object) -> ServiceBinding:
    """Return OrderService with what each of its methods demands. Cancels have places of their own, so that overload never delays them."""
    trade, read = "trader", ("viewer", "trader")
    return ServiceBinding(
        _service(order_service_pb2.DESCRIPTOR, "OrderService"),
        servicer,
        {
            # Their forms are checked batch by batch.
            "CreateOrder": outside(trade, write=True, validate=False),
            "BatchCreateOrders": outside(trade, write=True, validate=False, request_bytes_max=BATCH_BYTES_MAX),
            "EnterOrders": outside(trade, write=True, validate=False, pass_invalid=True),
            "ReplaceOrder": outside(trade, write=True),
            "CancelOrder": outside(trade, write=True, priority=True),
            "CancelAllOrders": outside(trade, write=True, priority=True, timeout_seconds=30.0),
            "GetOrder": outside(*read, write=False),
            "LookupOrder": outside(*read, write=False),
            "ListOrders": outside(*read, write=False),
            "ListExecutions": outside(*read, write=False),
            "StreamOrderEvents": outside(*read, write=False),
        },
    )


def control_binding(servicer: object) -> ServiceBinding:
    """Return OrderControlService, for svc_risk alone."""
    policy = inside("svc-risk", write=True, priority=True, timeout_seconds=30.0)
    descriptor = _service(order_control_service_pb2.DESCRIPTOR, "OrderControlService")
    return ServiceBinding(descriptor, servicer, {method.name: policy for method in descriptor.methods})


def connection_config(venue: Venue) -> ConnectionConfig:
    """Return a venue's FIX 4.4 session as initiator."""
    session = SessionConfig(
        role=Role.INITIATOR,
        sender=venue.sender,
        target=venue.target,
        app_types=frozenset({tags.EXECUTION_REPORT, tags.ORDER_CANCEL_REJECT}),
        heartbeat_seconds=venue.heartbeat_seconds,
        username=venue.username,
        password=venue.password,
    )
    return ConnectionConfig(venue.venue, venue.host, venue.port, session)


async def serve(config: OmsConfig, venues: tuple[Venue, ...], stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new calls, the venue logged out, what was taken in finished.

    Raises:
        MigrationError, TrademeshError: the schema is not there, or something needed does not answer at the start.
    """
    clock = SystemClock()
    writer = logs.configure("svc-oms", config.instance)
    telemetry = Telemetry(
        TelemetryConfig("svc-oms", config.instance, config.telemetry_folder, config.trace_ratio / 100, config.otlp_endpoint)
    )
    await verify(config.database_dsn, MIGRATIONS)
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(config.database_dsn, PoolSettings(application_name=config.instance))
        stack.push_async_callback(database.close)
        await database.warm()
        log = PostgresEventStore(database)
        stack.push_async_callback(log.close)
        telemetry.start()
        stack.push_async_callback(telemetry.stop)
        channel = MeshChannel(_risk_config(config), tracing=telemetry.tracing)
        stack.push_async_callback(channel.close)
        ids, store, reads = Uuid7Source(clock), OrderStore(database, log), OrderReads(database)
        risk = RiskClient(PreTradeServiceStub(channel).CheckOrders)
        batches = lanes(
            store,
            reads,
            risk,
            clock,
            orders=replace(ORDERS, batch_size_max=config.order_batch_max, flushes_in_flight_max=config.order_flushes_max),
        )
        stack.push_async_callback(batches.close)
        feed = OrderFeed(log)
        stack.push_async_callback(feed.close)
        desk = OrderDesk(batches.orders, batches.requests, clock)
        queries = OrderQueries(reads, PageTokens(config.token_key))
        orders = OrderServicer(desk, batches.requests, queries, feed, store, reads, ResumeTokens(config.token_key), clock)
        control = OrderControlServicer(store, reads, batches.requests, clock, ids)
        leases = PostgresLeases(database, clock, ids.new_id())
        routers = [VenueRouter(connection_config(venue), store, leases, clock, ids) for venue in venues]
        background: list[Coroutine[Any, Any, None]] = [Sweeper(store, clock).run(), *(router.run() for router in routers)]
        if config.redis_url is not None:
            bus = RedisStreamsBus(config.redis_url)
            stack.push_async_callback(bus.close)
            relay = Relay(TOPIC, log, bus, PostgresRelayMemory(database, leases), leases, clock)
            telemetry.metrics.source(relay.samples)
            background.append(relay.run())
        telemetry.metrics.source(channel.samples)
        telemetry.metrics.source(lambda: _samples(batches, routers))
        server = GrpcServer(
            _server_config(config),
            [order_binding(orders), control_binding(control), event_log_binding(log, *LOG_READERS)],
            ready=_ready(database),
            telemetry=telemetry,
            log_writer=writer,
            now=time.time,
        )
        await _until_stopped(server, routers, background, stop)
    writer.flush()


async def _until_stopped(
    server: GrpcServer, routers: list[VenueRouter], background: list[Coroutine[Any, Any, None]], stop: asyncio.Event
) -> None:
    """Serve until told to stop, or until background work ends with a defect: a replica without its router must not look healthy."""
    tasks = [asyncio.create_task(work) for work in background]
    stopped = asyncio.create_task(stop.wait())
    try:
        await server.start()
        _quiet_collector()
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not stopped:
                task.result()
                raise RuntimeError("background work ended by itself")
    finally:
        await server.stop()
        for router in routers:
            await router.stop()
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)


def _server_config(config: OmsConfig) -> ServerConfig:
    return ServerConfig(
        service="svc-oms",
        instance=config.instance,
        socket_path=config.socket_path,
        sidecar_secret=config.sidecar_secret.reveal(),
    )


def _risk_config(config: OmsConfig) -> ClientConfig:
    # Asking again is safe: risk knows the order's id and the command's hash.
    return ClientConfig(
        dependency="svc-risk",
        targets=config.risk_targets,
        headers_file=config.headers_file,
        idempotent=frozenset({CHECK_PATH}),
        timeout_seconds=config.risk_timeout_seconds,
    )


def _ready(database: Database) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        # Risk is no condition: without it orders are refused one by one, and cancels still pass.
        return bool(await database.fetchval("SELECT true"))

    return ready


def _samples(batches: Lanes, routers: list[VenueRouter]) -> list[Sample]:
    samples = [Sample("venue_logged_on", router.logged_on, (("lease", router.lease_name),)) for router in routers]
    for lane, statistics, queued in (
        (ORDERS_LANE, batches.orders.statistics(ORDERS_LANE), batches.orders.queued(ORDERS_LANE)),
        (CONTROL_LANE, batches.control.statistics(CONTROL_LANE), batches.control.queued(CONTROL_LANE)),
    ):
        labels = (("lane", lane),)
        samples += [
            Sample("batch_items_total", statistics.items, labels),
            Sample("batch_flushes_total", statistics.flushes, labels),
            Sample("batch_refused_total", statistics.refused, labels),
            Sample("batch_flush_seconds", statistics.flush_seconds_last, labels),
            Sample("batch_queue_depth", queued, labels),
        ]
    return samples


def _service(file: Any, name: str) -> ServiceDescriptor:
    return cast("ServiceDescriptor", file.services_by_name[name])


def _quiet_collector() -> None:
    """Make the garbage collector rare: what the start left stays for good, and orders, their events and messages hold no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 100)


def main() -> int:
    """Parse the configuration once, run, and return the exit code: 78 for a configuration or schema that a person has to mend."""
    use_exact_decimals()
    try:
        config = load(OmsConfig)
        venues = load_venues(config.venues_file)
        run(lambda stop: serve(config, venues, stop))
    except (ConfigError, MigrationError) as error:
        sys.stderr.write(f"svc_oms: {error}\n")
        return CONFIGURATION_EXIT_CODE
    except TrademeshError as error:
        sys.stderr.write(f"svc_oms: {error.reason.value}: {error}\n")
        return 1
    return 0
