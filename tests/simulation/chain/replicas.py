"""Replicas of the services, wired as their `main` wires them: everything real but the network, the database server and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from kernel.batcher import Lane
from kernel.bus.memory import MemoryBus
from kernel.config import Secret
from kernel.consumer import Projection
from kernel.eventlog_servicer import READ_PATHS, RemoteLog, event_log_binding
from kernel.events.postgres import PostgresEventStore
from kernel.grpc_client import ClientConfig
from kernel.identity import Identity
from kernel.ids import DeterministicIdSource
from kernel.leadership import lead
from kernel.lease import PostgresLeases
from kernel.paging import PageTokens
from kernel.relay import PostgresRelayMemory, Relay
from kernel.streams import ResumeTokens
from svc_oms import main as oms_main
from svc_oms.clients import RiskClient
from svc_oms.router.sweep import Sweeper
from svc_oms.router.venue import VenueRouter
from svc_oms.servicer.control import OrderControlServicer
from svc_oms.servicer.entry import OrderDesk
from svc_oms.servicer.feed import OrderFeed
from svc_oms.servicer.lanes import lanes
from svc_oms.servicer.queries import OrderQueries
from svc_oms.servicer.service import OrderServicer
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OrderReads
from svc_risk import main as risk_main
from svc_risk.clients.market_data import MarketDataFeed
from svc_risk.clients.orders import OrderControlClient
from svc_risk.consumer import kill_switches, orphans
from svc_risk.consumer.orders import FoldedOrders, order_projection
from svc_risk.consumer.prices import PriceFollower
from svc_risk.servicer.pre_trade import PreTradeServicer
from svc_risk.store.prices import PriceStore
from tests.fakes.postgres.driver import MemoryDatabase
from tests.simulation.chain.databases import DatabaseHost, SimWire
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.loop import SimClock, SimLoop
from tests.simulation.chain.market_data import ADDRESS as MARKET_DATA_ADDRESS
from tests.simulation.chain.network import Network
from tests.simulation.chain.rpc import SimChannel, Switchboard
from tests.simulation.chain.venue import SESSION, VENUE
from trademesh.marketdata.v1.reference_price_service_pb2_grpc import ReferencePriceServiceStub
from trademesh.oms.v1.order_control_service_pb2_grpc import OrderControlServiceStub
from trademesh.risk.v1.pre_trade_service_pb2_grpc import PreTradeServiceStub
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

OMS_ADDRESSES = ("oms-0", "oms-1")
RISK_ADDRESSES = ("risk-0", "risk-1")
TENANT = "firm"
_TOKEN_KEY = Secret("a token key of this simulation, long enough")
_CLOCK_OFFSETS_SECONDS = {"oms-0": 0.03, "oms-1": -0.05, "risk-0": -0.02, "risk-1": 0.08}

Background = list[Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Surroundings:
    """What replicas stand on."""

    loop: SimLoop
    network: Network
    switchboard: Switchboard
    oms_database: DatabaseHost
    risk_database: DatabaseHost
    bus: MemoryBus
    endings: list[tuple[str, BaseException | None]]


class Replica:
    """A replica over any number of lives, each a host of its own under one address."""

    def __init__(self, surroundings: Surroundings, address: str, database: DatabaseHost) -> None:
        self.address = address
        self.lives = 0
        self.owner = ""
        """Its name in leases, in this life."""
        self._around = surroundings
        self._database = database
        self.host = Host(address, surroundings.loop)
        self.host.alive = False

    def start(self) -> None:
        """Begin a life."""
        assert not self.host.alive
        self.lives += 1
        self.host = Host(self.address, self._around.loop)
        self.host.spawn(self._live(self.host), name=self.address)

    def kill(self) -> None:
        """End it."""
        self.host.kill()

    async def _live(self, host: Host) -> None:
        """Serve until killed; background work that ends by itself is a defect."""
        around = self._around
        wire = SimWire(host, self._database, around.network, around.network.dice, host.kill)
        database = MemoryDatabase(self._database.server, wire)
        host.on_death(database.pool.terminate)
        number = sum(self.address.encode()) * 1_000 + self.lives
        clock = SimClock(around.loop, _CLOCK_OFFSETS_SECONDS[self.address])
        ids = DeterministicIdSource(number)
        self.owner = ids.new_id()
        tasks = [asyncio.create_task(work) for work in self._wire(host, database, clock, ids)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if host.alive:
            around.endings.extend((self.address, task.exception()) for task in done if not task.cancelled())

    def _wire(self, host: Host, database: MemoryDatabase, clock: SimClock, ids: DeterministicIdSource) -> Background:
        return (_wire_oms if self.address in OMS_ADDRESSES else _wire_risk)(self._around, host, self, database, clock, ids)


def _wire_oms(
    around: Surroundings, host: Host, replica: Replica, database: MemoryDatabase, clock: SimClock, ids: DeterministicIdSource
) -> Background:
    """See `svc_oms.main.serve`."""
    log = PostgresEventStore(database)
    store, reads = OrderStore(database, log), OrderReads(database)
    config = ClientConfig(dependency="svc-risk", targets=RISK_ADDRESSES, idempotent=frozenset({oms_main.CHECK_PATH}), timeout_seconds=1.5)
    channel = SimChannel(around.switchboard, host, config, Identity("svc-oms", None, ""))
    risk = RiskClient(PreTradeServiceStub(channel).CheckOrders)
    # One flush under way at a time is the default, several are allowed: the replicas differ.
    flushes = 1 + int(replica.address == OMS_ADDRESSES[-1])
    batches = lanes(store, reads, risk, clock, orders=Lane(batch_size_max=500, queue_max=8_192, flushes_in_flight_max=flushes))
    desk = OrderDesk(batches.orders, batches.requests, clock)
    queries = OrderQueries(reads, PageTokens(_TOKEN_KEY))
    orders = OrderServicer(desk, batches.requests, queries, OrderFeed(log), store, reads, ResumeTokens(_TOKEN_KEY), clock)
    control = OrderControlServicer(store, reads, batches.requests, clock, ids)
    leases = PostgresLeases(database, clock, replica.owner)
    router = VenueRouter(oms_main.connection_config(SESSION), store, leases, clock, ids)
    relay = Relay(oms_main.TOPIC, log, around.bus, PostgresRelayMemory(database, leases), leases, clock)
    served = [oms_main.order_binding(orders), oms_main.control_binding(control), event_log_binding(log, *oms_main.LOG_READERS)]
    around.switchboard.serve(replica.address, host, served)
    return [Sweeper(store, clock).run(), router.run(), relay.run()]


def _wire_risk(
    around: Surroundings, host: Host, replica: Replica, database: MemoryDatabase, clock: SimClock, ids: DeterministicIdSource
) -> Background:
    """See `svc_risk.main.serve`."""
    stores = risk_main.open_stores(database, clock, replica.owner)
    config = ClientConfig(
        dependency="svc-oms",
        targets=OMS_ADDRESSES,
        idempotent=READ_PATHS | {f"{risk_main.CONTROL_PATH}ResolveOrder", f"{risk_main.CONTROL_PATH}ApplyKillSwitch"},
        timeout_seconds=risk_main.OMS_TIMEOUT_SECONDS,
    )
    channel = SimChannel(around.switchboard, host, config, Identity("svc-risk", None, ""))
    control = OrderControlServiceStub(channel)
    orders = OrderControlClient(control.ResolveOrder, control.ApplyKillSwitch)
    pre_trade = PreTradeServicer(stores.checks, clock)
    leases, folded = stores.leases, FoldedOrders(stores.projections)
    log = RemoteLog(EventLogServiceStub(channel))
    projection: Projection = order_projection(stores.facts, stores.projections, log, around.bus, leases, clock)
    sweeper = orphans.OrphanSweeper(stores.database, leases, stores.facts, orders, folded.position)
    teller = kill_switches.KillSwitchTeller(stores.administration, orders)
    prices = ClientConfig(dependency="svc-marketdata", targets=(MARKET_DATA_ADDRESS,))
    market_data = SimChannel(around.switchboard, host, prices, Identity("svc-risk", None, ""))
    feed = MarketDataFeed(ReferencePriceServiceStub(market_data).StreamReferencePrices, VENUE, clock)
    follower = PriceFollower(feed, PriceStore(stores.database, leases, clock, VENUE))
    relay = Relay(risk_main.TOPIC, stores.log, around.bus, PostgresRelayMemory(stores.database, leases), leases, clock)
    around.switchboard.serve(replica.address, host, risk_main.bindings(stores, orders, pre_trade, PageTokens(_TOKEN_KEY), TENANT))
    return [
        projection.run(),
        lead(leases, orphans.LEASE, sweeper.run),
        lead(leases, kill_switches.LEASE, teller.run),
        lead(leases, f"price-feed:{VENUE}", follower.run),
        relay.run(),
    ]
