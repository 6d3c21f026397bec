"""Composition root of custody: `python -m svc_custody`, configured by the environment (`svc_custody.config`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from kernel.bus.redis_streams import RedisStreamsBus
from kernel.config import ConfigError, load
from kernel.eventlog_servicer import READ_PATHS, RemoteLog, event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.foundation import Foundation, foundation
from kernel.foundation_stores import database_answers, followed, open_bus, open_database, told
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.leadership import lead
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.ports import Clock, IdSource
from kernel.postgres import Database
from kernel.process import run_process, until_stopped
from kernel.projection_store import PostgresProjectionStore
from kernel.server_policy import ServiceBinding, outside
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
    async with foundation("svc-custody", config, trace_ratio=config.trace_ratio) as base:
        clock, ids = base.clock, base.ids
        database = await open_database(base, config.database_dsn, MIGRATIONS)
        await database.warm()
        stores = open_stores(database, clock, ids.new_id())
        base.closing(stores.log.close)
        work = _work(config, stores, clock)
        await stores.dates.follow(work.clock.today())
        orders = base.channel(_client(config, "svc-oms", config.oms_targets))
        risk = base.channel(_client(config, "svc-risk", config.risk_targets))
        bus = open_bus(base, config.redis_url)
        base.telemetry.metrics.source(work.settling.samples)
        # The other services are no condition: what is in the ledgers can be shown and moved without them.
        server = base.server(
            bindings(stores, work, clock, ids, PageTokens(config.token_key), config.firm_tenant, sandbox=config.sandbox_clock),
            ready=database_answers(database),
        )
        await until_stopped(server, _background(base, stores, work, orders, risk, bus), stop)


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
    base: Foundation, stores: Stores, work: Work, orders: MeshChannel, risk: MeshChannel, bus: RedisStreamsBus | None
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside the calls, each under its lease in one replica at a time."""
    leases, projections, clock = stores.leases, stores.projections, base.clock
    executions_log, reference_log = (RemoteLog(EventLogServiceStub(channel)) for channel in (orders, risk))
    return [
        lead(leases, settling.LEASE, work.settling.run),
        # When one stops, what is in the ledgers is served and settled on; the position that reads carry says up to where that is.
        followed(base, execution_projection(work.executions, projections, executions_log, bus, leases, clock)),
        followed(base, reference_projection(stores.facts, projections, reference_log, bus, leases, clock)),
        *told(base, TOPIC, stores.log, bus, stores.database, leases),
    ]


def _client(config: CustodyConfig, dependency: str, targets: tuple[str, ...]) -> ClientConfig:
    return ClientConfig(
        dependency=dependency,
        targets=targets,
        headers_file=config.headers_file,
        idempotent=READ_PATHS,
        timeout_seconds=LOG_TIMEOUT_SECONDS,
    )


def main() -> int:
    """Run a replica as the environment configures it, and return the exit code; see `kernel.process`."""
    return run_process("svc_custody", lambda: load(CustodyConfig), serve)
