"""Composition root of portfolio: `python -m svc_portfolio`, configured by the environment (`svc_portfolio.config`)."""

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
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.ports import Clock
from kernel.postgres import Database
from kernel.process import run_process, until_stopped
from kernel.projection_store import PostgresProjectionStore
from kernel.server_policy import ServiceBinding, outside
from kernel.streams import ResumeTokens
from kernel.telemetry import Sample
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
    async with foundation("svc-portfolio", config, trace_ratio=config.trace_ratio) as base:
        clock = base.clock
        database = await open_database(base, config.database_dsn, MIGRATIONS)
        await database.warm()
        stores = open_stores(database, clock, base.ids.new_id())
        base.closing(stores.log.close)
        bus = open_bus(base, config.redis_url)
        marks = MarkBook()
        background = [
            *_following(base, config, stores, bus),
            *_marking(base, config, marks),
            *told(base, TOPIC, stores.log, bus, database, stores.leases),
        ]
        feed = PortfolioFeed(stores.log, stores.reference)
        base.closing(feed.close)
        servicer = PortfolioServicer(
            stores.reads,
            stores.reference,
            feed,
            Marker(marks, clock),
            PageTokens(config.token_key),
            ResumeTokens(config.token_key),
            clock,
        )
        # Other services are no condition: answers say how far they show, and marks whether they are fresh.
        server = base.server(bindings(stores, servicer), ready=database_answers(database))
        await until_stopped(server, background, stop)


def _following(base: Foundation, config: PortfolioConfig, stores: Stores, bus: RedisStreamsBus | None) -> list[Coroutine[Any, Any, None]]:
    """The projections, each in one replica at a time. When one stops, reads go on and say how far they show."""
    oms = RemoteLog(EventLogServiceStub(_channel(base, config, "svc-oms", config.oms_targets)))
    risk = RemoteLog(EventLogServiceStub(_channel(base, config, "svc-risk", config.risk_targets)))
    base.telemetry.metrics.source(lambda: [Sample("repeated_executions_total", stores.positions.repeated_executions)])
    return [
        followed(base, execution_projection(stores.positions, stores.projections, oms, bus, stores.leases, base.clock)),
        followed(base, reference_projection(stores.reference, stores.projections, risk, bus, stores.leases, base.clock)),
    ]


def _marking(base: Foundation, config: PortfolioConfig, marks: MarkBook) -> list[Coroutine[Any, Any, None]]:
    """The prices, in every replica."""
    if not config.marketdata_targets:
        return []
    channel = _channel(base, config, "svc-marketdata", config.marketdata_targets)
    source = ReferencePrices(ReferencePriceServiceStub(channel).StreamReferencePrices)
    followers = [PriceFollower(venue, source, marks, base.clock) for venue in config.price_venues]
    for follower in followers:
        base.telemetry.metrics.source(follower.samples)
    return [follower.run() for follower in followers]


def _channel(base: Foundation, config: PortfolioConfig, dependency: str, targets: tuple[str, ...]) -> MeshChannel:
    return base.channel(
        ClientConfig(
            dependency=dependency,
            targets=targets,
            headers_file=config.headers_file,
            idempotent=READ_PATHS,
            timeout_seconds=LOG_TIMEOUT_SECONDS,
        )
    )


def main() -> int:
    """Run a replica as the environment configures it, and return the exit code; see `kernel.process`."""
    return run_process("svc_portfolio", lambda: check(load(PortfolioConfig)), serve)
