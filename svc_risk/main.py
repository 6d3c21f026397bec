"""Composition root of risk: `python -m svc_risk`, configured by the environment (`svc_risk.config`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import ServiceDescriptor

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
from kernel.ports import Clock
from kernel.postgres import Database, MigrationError, PoolSettings, verify
from kernel.projection_store import PostgresProjectionStore
from kernel.relay import PostgresRelayMemory, Relay
from kernel.server_policy import ServiceBinding, inside, outside
from kernel.telemetry import Telemetry, TelemetryConfig
from kernel.values import use_exact_decimals
from svc_risk.clients.market_data import MarketDataFeed, PriceFeed
from svc_risk.clients.orders import OrderControl, OrderControlClient
from svc_risk.config import RiskConfig, check
from svc_risk.consumer import kill_switches, orphans
from svc_risk.consumer.orders import FoldedOrders, order_projection
from svc_risk.consumer.prices import PriceFollower
from svc_risk.servicer.access import ADMIN, READERS, RISK_OFFICER, Access
from svc_risk.servicer.pre_trade import PreTradeServicer
from svc_risk.servicer.reference_data import ReferenceDataServicer
from svc_risk.servicer.risk import RiskServicer
from svc_risk.store import MIGRATIONS
from svc_risk.store.administration import AdministrationStore
from svc_risk.store.checks import CheckStore
from svc_risk.store.facts import FactStore
from svc_risk.store.ledger import ROW_TYPES, Ledger
from svc_risk.store.prices import PriceStore
from svc_risk.store.reads import ReadStore
from trademesh.marketdata.v1.reference_price_service_pb2_grpc import ReferencePriceServiceStub
from trademesh.oms.v1.order_control_service_pb2_grpc import OrderControlServiceStub
from trademesh.risk.v1 import pre_trade_service_pb2, reference_data_service_pb2, risk_service_pb2
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

TOPIC = "risk"
LOG_READERS = ("svc-oms", "svc-portfolio", "svc-custody", "svc-reporting", "svc-gateway", "svc-marketdata")
CONTROL_PATH = "/trademesh.oms.v1.OrderControlService/"
OMS_TIMEOUT_SECONDS = 3.0
CHECKS_BYTES_MAX = 2 * 1024 * 1024
CONFIGURATION_EXIT_CODE = 78
GARBAGE_THRESHOLD = 50_000
FEED_LEASE_SECONDS = 2.0
"""Without a heartbeat for 2 s prices are stale, and every order is refused: when the follower dies, the next must not wait longer."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What stands on one database; one set per process."""

    database: Database
    log: PostgresEventStore
    leases: PostgresLeases
    projections: PostgresProjectionStore
    checks: CheckStore
    facts: FactStore
    administration: AdministrationStore
    reads: ReadStore


def open_stores(database: Database, clock: Clock, owner: str) -> Stores:
    """Wire the stores of a replica. `owner` is its name in leases, unique per process start."""
    log = PostgresEventStore(database)
    leases = PostgresLeases(database, clock, owner)
    ledger = Ledger(log)
    return Stores(
        database,
        log,
        leases,
        PostgresProjectionStore(database, leases),
        CheckStore(database, ledger),
        FactStore(database, ledger),
        AdministrationStore(database, log),
        ReadStore(database, log),
    )


def bindings(
    stores: Stores, orders: OrderControl, pre_trade: PreTradeServicer, tokens: PageTokens, firm_tenant: str
) -> list[ServiceBinding]:
    """Return the services with what each of their methods demands."""
    access = Access(firm_tenant)
    risk = RiskServicer(stores.administration, stores.reads, access, tokens, orders, FoldedOrders(stores.projections))
    reference = ReferenceDataServicer(stores.administration, stores.reads, access, tokens)
    read, officer, admin = outside(*READERS, write=False), outside(RISK_OFFICER, write=True), outside(ADMIN, write=True)
    # A kill switch must get through when everything else is too much.
    switch = outside(RISK_OFFICER, write=True, priority=True)
    return [
        ServiceBinding(
            _service(pre_trade_service_pb2, "PreTradeService"),
            pre_trade,
            # The servicer checks item by item: what svc_oms asks about is plain, and the rules take longer than the answer.
            {"CheckOrders": inside("svc-oms", write=True, validate=False, request_bytes_max=CHECKS_BYTES_MAX)},
        ),
        ServiceBinding(
            _service(risk_service_pb2, "RiskService"),
            risk,
            {
                "GetRiskState": read,
                "ListLimits": read,
                "UpdateLimit": officer,
                "ListExposureChanges": read,
                "ActivateKillSwitch": switch,
                "ReleaseKillSwitch": switch,
                "ListKillSwitches": read,
                "ListReferencePrices": read,
            },
        ),
        ServiceBinding(
            _service(reference_data_service_pb2, "ReferenceDataService"),
            reference,
            {
                "CreateAccount": admin,
                "UpdateAccount": admin,
                "GetAccount": read,
                "ListAccounts": read,
                "CreateInstrument": admin,
                "UpdateInstrument": admin,
                "GetInstrument": read,
                "ListInstruments": read,
            },
        ),
        event_log_binding(stores.log, *LOG_READERS),
    ]


async def serve(config: RiskConfig, stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new calls, what was taken in finished.

    Raises:
        MigrationError, TrademeshError: the schema is not there, or something needed does not answer at the start.
    """
    clock = SystemClock()
    writer = logs.configure("svc-risk", config.instance)
    telemetry = Telemetry(
        TelemetryConfig("svc-risk", config.instance, config.telemetry_folder, config.trace_ratio / 100, config.otlp_endpoint)
    )
    await verify(config.database_dsn, MIGRATIONS)
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(config.database_dsn, PoolSettings(application_name=config.instance))
        stack.push_async_callback(database.close)
        await database.warm(ROW_TYPES)
        stores = open_stores(database, clock, Uuid7Source(clock).new_id())
        stack.push_async_callback(stores.log.close)
        telemetry.start()
        stack.push_async_callback(telemetry.stop)
        channel = MeshChannel(_oms_config(config), tracing=telemetry.tracing)
        stack.push_async_callback(channel.close)
        telemetry.metrics.source(channel.samples)
        feed: PriceFeed | None = None
        if config.price_venue is not None:
            prices = MeshChannel(_marketdata_config(config), tracing=telemetry.tracing)
            stack.push_async_callback(prices.close)
            telemetry.metrics.source(prices.samples)
            feed = MarketDataFeed(ReferencePriceServiceStub(prices).StreamReferencePrices, config.price_venue, clock)
        bus = None
        if config.redis_url is not None:
            bus = RedisStreamsBus(config.redis_url)
            stack.push_async_callback(bus.close)
        control = OrderControlServiceStub(channel)
        orders = OrderControlClient(control.ResolveOrder, control.ApplyKillSwitch)
        pre_trade = PreTradeServicer(stores.checks, clock)
        stack.push_async_callback(pre_trade.close)
        telemetry.metrics.source(pre_trade.samples)
        server = GrpcServer(
            _server_config(config),
            bindings(stores, orders, pre_trade, PageTokens(config.token_key), config.firm_tenant),
            ready=_ready(database),
            telemetry=telemetry,
            log_writer=writer,
            now=time.time,
        )
        await _until_stopped(server, _background(config, feed, stores, orders, channel, bus, clock, telemetry), stop)
    writer.flush()


def _background(
    config: RiskConfig,
    feed: PriceFeed | None,
    stores: Stores,
    orders: OrderControl,
    channel: MeshChannel,
    bus: RedisStreamsBus | None,
    clock: Clock,
    telemetry: Telemetry,
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside the calls, each under its lease in one replica at a time."""
    leases, folded = stores.leases, FoldedOrders(stores.projections)
    projection = order_projection(stores.facts, stores.projections, RemoteLog(EventLogServiceStub(channel)), bus, leases, clock)
    sweeper = orphans.OrphanSweeper(stores.database, leases, stores.facts, orders, folded.position, bound_seconds=config.orphan_seconds)
    teller = kill_switches.KillSwitchTeller(stores.administration, orders)
    telemetry.metrics.source(projection.samples)
    work = [
        _projected(projection),
        lead(leases, orphans.LEASE, sweeper.run),
        lead(leases, kill_switches.LEASE, teller.run),
    ]
    venue = config.price_venue
    if feed is not None and venue is not None:
        often = FEED_LEASE_SECONDS / 4
        short = PostgresLeases(stores.database, clock, leases.owner, ttl_seconds=FEED_LEASE_SECONDS, margin_seconds=often)
        follower = PriceFollower(feed, PriceStore(stores.database, short, clock, venue))
        work.append(lead(short, f"price-feed:{venue}", follower.run, retry_seconds=often, renew_every_seconds=often))
    if bus is not None:
        relay = Relay(TOPIC, stores.log, bus, PostgresRelayMemory(stores.database, leases), leases, clock)
        telemetry.metrics.source(relay.samples)
        work.append(relay.run())
    return work


def quiet_collector() -> None:
    """Make the garbage collector rare: what the start left stays for good, and checks, their answers and events hold no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 100)


async def _projected(projection: Projection) -> None:
    """A projection that met an event it cannot fold stays stopped, and says so by metric and log. Checks go on: what it has not folded
    stays reserved, which refuses too much and never too little.
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
        quiet_collector()
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


def _server_config(config: RiskConfig) -> ServerConfig:
    return ServerConfig(
        service="svc-risk",
        instance=config.instance,
        socket_path=config.socket_path,
        sidecar_secret=config.sidecar_secret.reveal(),
    )


def _oms_config(config: RiskConfig) -> ClientConfig:
    # svc_oms knows switches by version and orders by id, so asking twice is asking once.
    return ClientConfig(
        dependency="svc-oms",
        targets=config.oms_targets,
        headers_file=config.headers_file,
        idempotent=READ_PATHS | {f"{CONTROL_PATH}ResolveOrder", f"{CONTROL_PATH}ApplyKillSwitch"},
        timeout_seconds=OMS_TIMEOUT_SECONDS,
    )


def _marketdata_config(config: RiskConfig) -> ClientConfig:
    return ClientConfig(dependency="svc-marketdata", targets=config.marketdata_targets, headers_file=config.headers_file)


def _ready(database: Database) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        # Prices are no condition: without fresh ones orders are refused one by one, and limits and switches can still be set.
        return bool(await database.fetchval("SELECT true"))

    return ready


def _service(module: Any, name: str) -> ServiceDescriptor:
    return cast("ServiceDescriptor", module.DESCRIPTOR.services_by_name[name])


def main() -> int:
    """Parse the configuration once, run, and return the exit code: 78 for a configuration or schema that a person has to mend."""
    use_exact_decimals()
    try:
        config = check(load(RiskConfig))
        run(lambda stop: serve(config, stop))
    except (ConfigError, MigrationError) as error:
        sys.stderr.write(f"svc_risk: {error}\n")
        return CONFIGURATION_EXIT_CODE
    except TrademeshError as error:
        sys.stderr.write(f"svc_risk: {error.reason.value}: {error}\n")
        return 1
    return 0
