"""Composition root of risk: `python -m svc_risk`, configured by the environment (`svc_risk.config`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from kernel.bus.redis_streams import RedisStreamsBus
from kernel.config import load
from kernel.eventlog_servicer import READ_PATHS, RemoteLog, event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.foundation import Foundation, foundation
from kernel.foundation_stores import database_answers, followed, open_bus, open_database, told
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.leadership import lead
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.ports import Clock
from kernel.postgres import Database
from kernel.process import quiet_collector, run_process, until_stopped
from kernel.projection_store import PostgresProjectionStore
from kernel.server_policy import ServiceBinding, inside, outside
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
FEED_LEASE_SECONDS = 1.5
"""Without a heartbeat for 2 s prices are stale, and every order is refused: when the follower dies, the next has to be there by then."""


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
            pre_trade_service_pb2.DESCRIPTOR.services_by_name["PreTradeService"],
            pre_trade,
            # The servicer checks item by item: what svc_oms asks about is plain, and the rules take longer than the answer.
            {"CheckOrders": inside("svc-oms", write=True, validate=False, request_bytes_max=CHECKS_BYTES_MAX)},
        ),
        ServiceBinding(
            risk_service_pb2.DESCRIPTOR.services_by_name["RiskService"],
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
            reference_data_service_pb2.DESCRIPTOR.services_by_name["ReferenceDataService"],
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
    async with foundation("svc-risk", config, trace_ratio=config.trace_ratio) as base:
        database = await open_database(base, config.database_dsn, MIGRATIONS)
        await database.warm(ROW_TYPES)
        stores = open_stores(database, base.clock, base.ids.new_id())
        base.closing(stores.log.close)
        channel = base.channel(_oms_config(config))
        feed: PriceFeed | None = None
        if config.price_venue is not None:
            prices = ReferencePriceServiceStub(base.channel(_marketdata_config(config)))
            feed = MarketDataFeed(prices.StreamReferencePrices, config.price_venue, base.clock)
        bus = open_bus(base, config.redis_url)
        control = OrderControlServiceStub(channel)
        orders = OrderControlClient(control.ResolveOrder, control.ApplyKillSwitch)
        pre_trade = PreTradeServicer(stores.checks, base.clock)
        base.closing(pre_trade.close)
        base.telemetry.metrics.source(pre_trade.samples)
        # Prices are no condition: without fresh ones orders are refused one by one, and limits and switches can still be set.
        server = base.server(
            bindings(stores, orders, pre_trade, PageTokens(config.token_key), config.firm_tenant), ready=database_answers(database)
        )
        background = _background(base, config, feed, stores, orders, channel, bus)
        await until_stopped(server, background, stop, started=quiet_collector)


def _background(
    base: Foundation,
    config: RiskConfig,
    feed: PriceFeed | None,
    stores: Stores,
    orders: OrderControl,
    channel: MeshChannel,
    bus: RedisStreamsBus | None,
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside the calls, each under its lease in one replica at a time."""
    leases, folded, log = stores.leases, FoldedOrders(stores.projections), RemoteLog(EventLogServiceStub(channel))
    sweeper = orphans.OrphanSweeper(stores.database, leases, stores.facts, orders, folded.position, bound_seconds=config.orphan_seconds)
    teller = kill_switches.KillSwitchTeller(stores.administration, orders)
    work = [
        # When it stops, checks go on: what it has not folded stays reserved, which refuses too much and never too little.
        followed(base, order_projection(stores.facts, stores.projections, log, bus, leases, base.clock)),
        lead(leases, orphans.LEASE, sweeper.run),
        lead(leases, kill_switches.LEASE, teller.run),
    ]
    venue = config.price_venue
    if feed is not None and venue is not None:
        often = FEED_LEASE_SECONDS / 4
        short = PostgresLeases(stores.database, base.clock, leases.owner, ttl_seconds=FEED_LEASE_SECONDS, margin_seconds=often)
        follower = PriceFollower(feed, PriceStore(stores.database, short, base.clock, venue))
        work.append(lead(short, f"price-feed:{venue}", follower.run, retry_seconds=often, renew_every_seconds=often))
    return [*work, *told(base, TOPIC, stores.log, bus, stores.database, leases)]


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


def main() -> int:
    """Run a replica as the environment configures it, and return the exit code; see `kernel.process`."""
    return run_process("svc_risk", lambda: check(load(RiskConfig)), serve)
