"""One run: two replicas of orders and of risk, their databases, market data, the venue, the bus, clients and chaos, all from one seed."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pybreaker

from kernel.bus.memory import MemoryBus
from kernel.identity import User
from kernel.values import use_exact_decimals
from tests.fakes.postgres.oms_statements import oms_server
from tests.fakes.postgres.risk_statements import risk_server
from tests.simulation.chain.chaos import Chaos
from tests.simulation.chain.clients import Caller, Trader, client_channel
from tests.simulation.chain.databases import DatabaseHost
from tests.simulation.chain.history import Exposure, History, Rest
from tests.simulation.chain.hosts import REAP_SECONDS, Host
from tests.simulation.chain.loop import START, SimLoop, elapse
from tests.simulation.chain.market_data import Air, MarketDataHost
from tests.simulation.chain.network import Network
from tests.simulation.chain.officer import Officer
from tests.simulation.chain.records import fix_frames, last_change, log_events, venue_events
from tests.simulation.chain.replicas import OMS_ADDRESSES, RISK_ADDRESSES, TENANT, Replica, Surroundings
from tests.simulation.chain.rpc import Switchboard
from tests.simulation.chain.venue import INSTRUMENTS, VENUE, VenueHost
from tests.simulation.chain.watchers import Watcher
from trademesh.oms.v1 import order_service_pb2_grpc
from trademesh.risk.v1 import reference_data_service_pb2_grpc, risk_service_pb2, risk_service_pb2_grpc

ACCOUNTS = ("ACC-1", "ACC-2", "ACC-3")
TRADERS = ("ada", "ben")
TRADING_SECONDS = 20.0
REST_SECONDS_MAX = 150.0
"""How long the system may take to come to rest: the bound of orphans, sweeps, leases and reconnects."""

_EXPIRES_AT = 1 << 39


Course = Callable[["World"], Awaitable[None]]


class World:
    """The parts of a run, and its course."""

    def __init__(self, seed: int, journal: Path) -> None:
        self.loop = SimLoop(seed)
        self.history = History()
        self._dice = random.Random(f"world-{seed}")
        self.network = Network(self.loop, random.Random(f"network-{seed}"))
        self.switchboard = Switchboard(self.network)
        self.oms_database = DatabaseHost("oms-database", self.loop, oms_server)
        self.risk_database = DatabaseHost("risk-database", self.loop, risk_server)
        self.endings: list[tuple[str, BaseException | None]] = []
        around = Surroundings(self.loop, self.network, self.switchboard, self.oms_database, self.risk_database, MemoryBus(), self.endings)
        self.oms = [Replica(around, address, self.oms_database) for address in OMS_ADDRESSES]
        self.risk = [Replica(around, address, self.risk_database) for address in RISK_ADDRESSES]
        air = Air(self.network)
        self.venue = VenueHost(self.loop, air, journal, seed)
        self.market_data = MarketDataHost(self.loop, air, self.switchboard, VENUE)
        self._journal = journal
        databases = (self.oms_database, self.risk_database)
        market = self.venue, self.market_data
        self.chaos = Chaos(random.Random(f"chaos-{seed}"), self.network, self.oms, self.risk, databases, *market, around.bus)
        self.traders: list[Trader] = []
        self._watchers: list[Watcher] = []
        self._seed = seed
        self._clients = Host("clients", self.loop)
        self._unhandled: list[str] = []
        self.loop.set_exception_handler(self._note_exception)

    def _note_exception(self, _: Any, context: dict[str, Any]) -> None:
        task = context.get("future") or context.get("task")
        host = getattr(task, "host", None)
        if host is not None and not host.alive:
            # What is left of a killed process raises whatever it likes.
            return
        text = f"{context.get('message')}: {context.get('exception')!r} in {task!r}"
        self._unhandled.append(text)

    async def run(self, course: Course | None = None) -> History:
        """Play the whole run and return its history.

        Args:
            course: what the clients do, in place of trading under chaos; both rests follow it.
        """
        await self.venue.start()
        self.market_data.start()
        for replica in (*self.oms, *self.risk):
            replica.start()
        await self._clients.spawn(self._course(course))
        self._collect()
        return self.history

    async def _course(self, course: Course | None) -> None:
        officer = self._officer()
        self.traders = [self._trader(name) for name in TRADERS]
        self._watchers = [self._watcher(account_id) for account_id in ACCOUNTS]
        watching = [asyncio.create_task(watcher.watch()) for watcher in self._watchers]
        await officer.set_up()
        await (self._trade(officer) if course is None else course(self))
        await officer.release_all()
        await self._rest(closed=False)
        for account_id in ACCOUNTS:
            await self.traders[0].cancel_all(account_id)
        await self._rest(closed=True)
        for task in watching:
            task.cancel()
        for ended in await asyncio.gather(*watching, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                self.history.defects.append(f"a watcher met {ended!r}")

    async def _trade(self, officer: Officer) -> None:
        """Traders and the officer at work while chaos rages, and then everything is healed."""
        self.chaos.begin()
        until = self.loop.time() + TRADING_SECONDS
        work = [asyncio.create_task(trader.trade(until)) for trader in self.traders]
        work += [asyncio.create_task(officer.meddle(until)), asyncio.create_task(self.chaos.rage(until))]
        await asyncio.wait({work[-1]})
        await self.chaos.heal()
        await asyncio.wait(set(work))
        for task in work:
            task.result()

    def _officer(self) -> Officer:
        user = User("olga", TENANT, frozenset({"admin", "risk-officer"}), frozenset(), _EXPIRES_AT)
        channel = client_channel(self.switchboard, self._clients, user, RISK_ADDRESSES)
        self._risk_stub = risk_service_pb2_grpc.RiskServiceStub(channel)
        reference = reference_data_service_pb2_grpc.ReferenceDataServiceStub(channel)
        self._reader = caller = Caller("olga", self.history, self._clients, self._dice)
        return Officer(caller, self._risk_stub, reference, ACCOUNTS, TRADERS)

    def _trader(self, name: str) -> Trader:
        user = User(name, TENANT, frozenset({"trader", "viewer"}), frozenset(ACCOUNTS), _EXPIRES_AT)
        stub = order_service_pb2_grpc.OrderServiceStub(client_channel(self.switchboard, self._clients, user, OMS_ADDRESSES))
        prices = {
            symbol: (Decimal(fields["prior_close"]), Decimal(fields["tick"]), quantity, Decimal(fields["lot"]))
            for (symbol, fields), quantity in zip(sorted(INSTRUMENTS.items()), (60, 900), strict=True)
        }
        return Trader(Caller(name, self.history, self._clients, self._dice), stub, ACCOUNTS, prices)

    def _watcher(self, account_id: str) -> Watcher:
        name = f"wendy-{account_id}"
        user = User(name, TENANT, frozenset({"viewer"}), frozenset({account_id}), _EXPIRES_AT)
        stub = order_service_pb2_grpc.OrderServiceStub(client_channel(self.switchboard, self._clients, user, OMS_ADDRESSES))
        return Watcher(name, stub, account_id, self.history, self._clients, random.Random(f"{name}-{self._seed}"))

    # Coming to rest.

    async def _rest(self, *, closed: bool) -> None:
        deadline = self.loop.time() + REST_SECONDS_MAX
        quiet_since: float | None = None
        while self.loop.time() < deadline:
            if self._unrest(closed=closed):
                quiet_since = None
            elif quiet_since is None:
                quiet_since = self.loop.time()
            elif self.loop.time() - quiet_since > 1.0:
                break
            await elapse(0.25)
        self.history.unrest += [f"at {self.loop.time():.1f} s: {text}" for text in self._unrest(closed=closed)]
        exposures = tuple([await self._exposure(account_id) for account_id in ACCOUNTS])
        self.history.rests.append(
            Rest(
                self.loop.time(),
                len(log_events(self.oms_database.server)),
                len(log_events(self.risk_database.server)),
                len(venue_events(self._journal)),
                exposures,
                closed,
            )
        )

    def _unrest(self, *, closed: bool) -> list[str]:
        """What is still under way, as the tables show it."""
        oms, risk = self.oms_database.server, self.risk_database.server
        found = [
            f"request {row['venue_client_order_id']} waits since {row['requested_at']}"
            for row in oms.tables["venue_request"].values()
            if closed or not row["overdue"] or row["action"] == 0
        ]
        cursor = risk.tables["projection_cursor"].get(("reservations", "oms"))
        last = oms.log.ordered[-1].position if oms.log.ordered else None
        if last is not None and (cursor is None or (cursor["tx"], cursor["position"]) < (last.tx, last.position)):
            found.append(f"orders are folded up to {cursor}, the log ends at {last}")
        for row in risk.tables["reservation"].values():
            if row["status"] == 1:
                found.append(f"reservation {row['order_id']} is unconfirmed since {row['reserved_at']}")
            unconfirmed = [request_id for request_id, *_, confirmed in row["pending"] or () if not confirmed]
            found += [f"replace {request_id} of {row['order_id']} is unconfirmed" for request_id in unconfirmed]
        found += [f"kill switch {key} is pending" for key, row in risk.tables["kill_switch"].items() if row["status"] in (1, 3)]
        exchange = self.venue.exchange
        if exchange is not None and any(True for _ in exchange._holds):
            found.append("the venue holds reports back")
        next_in = max((row["next_in"] for row in oms.tables["fix_session"].values()), default=1)
        if self.venue.owes(next_in):
            found.append(f"the venue's messages from {next_in} on are not taken in")
        if closed and not found:
            found = [
                f"{watcher.account_id} is watched up to {watcher.position}"
                for watcher in self._watchers
                if watcher.position < last_change(oms, watcher.account_id)
            ]
        return found

    async def _exposure(self, account_id: str) -> Exposure:
        key, request = (account_id, f"rest-{len(self.history.rests)}"), risk_service_pb2.GetRiskStateRequest(account_id=account_id)
        state = await self._reader.until_known(self._risk_stub.GetRiskState, "GetRiskState", key, request)
        assert isinstance(state, risk_service_pb2.GetRiskStateResponse), repr(state)
        positions = tuple((p.instrument_id, p.position_quantity, p.open_buy_quantity, p.open_sell_quantity) for p in state.instruments)
        return Exposure(account_id, state.open_buy_notional, state.open_sell_notional, state.reservation_count, positions)

    async def close(self) -> None:
        """Kill everything and wait until it is gone."""
        hosts = [replica.host for replica in (*self.oms, *self.risk)]
        hosts += [self.venue.host, self.market_data.host, self._clients, self.oms_database.host, self.risk_database.host]
        for host in hosts:
            host.kill()
        while any(host.tasks for host in hosts):
            await asyncio.sleep(REAP_SECONDS)

    def _collect(self) -> None:
        history = self.history
        history.orders = log_events(self.oms_database.server)
        history.risk = log_events(self.risk_database.server)
        history.venue = venue_events(self._journal)
        history.hurts = self.chaos.done
        history.doubled = self.switchboard.doubled
        history.frames = fix_frames(self.network.tape)
        history.defects += [f"{address} ended by itself: {error!r}" for address, error in self.endings]
        history.defects += [f"{defect.host} failed in {defect.method}: {defect.error!r}" for defect in self.switchboard.defects]
        history.defects += self._unhandled
        for database in (self.oms_database, self.risk_database):
            if database.server.locks.deadlocks:
                history.defects.append(f"{database.host.name}: {database.server.locks.deadlocks} deadlocks")


class _SimulatedTime(datetime):
    """What pybreaker asks for the time."""

    loop: SimLoop

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        """Return the simulation's time."""
        return START + timedelta(seconds=cls.loop.time())


@contextmanager
def simulated(world_loop: SimLoop, seed: int) -> Iterator[None]:
    """Make the few things that look at the real clock or at chance look at the simulation's instead."""
    clock = type("SimulatedTime", (_SimulatedTime,), {"loop": world_loop})
    breakers: Any = pybreaker
    state, level, real = random.getstate(), logging.root.manager.disable, breakers.datetime
    logging.disable(logging.CRITICAL)
    random.seed(seed)
    breakers.datetime = clock
    try:
        yield
    finally:
        breakers.datetime = real
        random.setstate(state)
        logging.disable(level)


def play(seed: int, course: Course | None = None) -> History:
    """Play one run."""
    use_exact_decimals()
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="chain-", dir=shared_memory if os.access(shared_memory, os.W_OK) else None) as folder:
        world = World(seed, Path(folder) / "journal")
        with simulated(world.loop, seed):
            try:
                return world.loop.run_until_complete(world.run(course))
            finally:
                world.loop.run_until_complete(world.close())
                world.loop.run_until_complete(world.loop.shutdown_asyncgens())
                world.loop.close()
