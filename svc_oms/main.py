"""Composition root of the order service: `python -m svc_oms`, configured by the environment (`svc_oms.config`)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from kernel.config import load
from kernel.eventlog_servicer import event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.fix import tags
from kernel.fix.steps import Role, SessionConfig
from kernel.foundation import foundation
from kernel.foundation_stores import database_answers, open_bus, open_database, told
from kernel.grpc_client import ClientConfig
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.postgres import KERNEL_MIGRATIONS, MigrationSource
from kernel.process import quiet_collector, run_process, until_stopped
from kernel.server_policy import ServiceBinding, inside, outside
from kernel.streams import ResumeTokens
from kernel.telemetry import Sample
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
BATCH_BYTES_MAX = 2 * 1024 * 1024


def order_binding(servicer: object) -> ServiceBinding:
    """Return OrderService with what each of its methods demands. Cancels have places of their own, so that overload never delays them."""
    trade, read = "trader", ("viewer", "trader")
    return ServiceBinding(
        order_service_pb2.DESCRIPTOR.services_by_name["OrderService"],
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
    descriptor = order_control_service_pb2.DESCRIPTOR.services_by_name["OrderControlService"]
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
    async with foundation("svc-oms", config, trace_ratio=config.trace_ratio) as base:
        clock, ids = base.clock, base.ids
        database = await open_database(base, config.database_dsn, MIGRATIONS)
        await database.warm()
        log = PostgresEventStore(database)
        base.closing(log.close)
        channel = base.channel(_risk_config(config))
        store, reads = OrderStore(database, log), OrderReads(database)
        risk = RiskClient(PreTradeServiceStub(channel).CheckOrders)
        batches = lanes(
            store,
            reads,
            risk,
            clock,
            orders=replace(ORDERS, batch_size_max=config.order_batch_max, flushes_in_flight_max=config.order_flushes_max),
        )
        base.closing(batches.close)
        feed = OrderFeed(log)
        base.closing(feed.close)
        desk = OrderDesk(batches.orders, batches.requests, clock)
        queries = OrderQueries(reads, PageTokens(config.token_key))
        orders = OrderServicer(desk, batches.requests, queries, feed, store, reads, ResumeTokens(config.token_key), clock)
        control = OrderControlServicer(store, reads, batches.requests, clock, ids)
        leases = PostgresLeases(database, clock, ids.new_id())
        routers = [VenueRouter(connection_config(venue), store, leases, clock, ids) for venue in venues]
        background = [
            Sweeper(store, clock).run(),
            *(router.run() for router in routers),
            *told(base, TOPIC, log, open_bus(base, config.redis_url), database, leases),
        ]
        base.telemetry.metrics.source(lambda: _samples(batches, routers))
        # Risk is no condition: without it orders are refused one by one, and cancels still pass.
        server = base.server(
            [order_binding(orders), control_binding(control), event_log_binding(log, *LOG_READERS)], ready=database_answers(database)
        )
        await until_stopped(server, background, stop, started=quiet_collector, drains=[router.stop for router in routers])


def _risk_config(config: OmsConfig) -> ClientConfig:
    # Asking again is safe: risk knows the order's id and the command's hash.
    return ClientConfig(
        dependency="svc-risk",
        targets=config.risk_targets,
        headers_file=config.headers_file,
        idempotent=frozenset({CHECK_PATH}),
        timeout_seconds=config.risk_timeout_seconds,
    )


def _samples(batches: Lanes, routers: list[VenueRouter]) -> list[Sample]:
    samples = [Sample("venue_logged_on", router.logged_on, (("lease", router.lease_name),)) for router in routers]
    for router in routers:
        samples += router.breaker.samples()
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


def main() -> int:
    """Run a replica as the environment configures it, and return the exit code; see `kernel.process`."""
    return run_process("svc_oms", lambda: load(OmsConfig), lambda config, stop: serve(config, load_venues(config.venues_file), stop))
