"""What goes wrong in a run, and when: everything by the seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kernel.bus.memory import MemoryBus
from tests.simulation.chain.databases import DatabaseHost
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.market_data import MarketDataHost
from tests.simulation.chain.network import Network
from tests.simulation.chain.replicas import Replica
from tests.simulation.chain.venue import MEMBER, VenueHost


@dataclass(frozen=True, slots=True)
class Severity:
    """How often something happens, and how lossy the wires are; a run draws one."""

    pause_seconds: float
    database_loss: float
    commit_loss: float
    commit_death: float
    commit_stall: float
    call_loss: float
    call_twice: float
    slow_share: float


CALM = Severity(1e9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.01)
SEVERITIES = (
    Severity(1e9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.05),
    Severity(3.0, 0.0005, 0.002, 0.0, 0.001, 0.01, 0.01, 0.02),
    Severity(1.2, 0.002, 0.01, 0.002, 0.002, 0.03, 0.03, 0.05),
    Severity(0.6, 0.004, 0.02, 0.006, 0.004, 0.06, 0.05, 0.10),
)


class Chaos:
    """Hurts the parts of a run until told to stop, then heals everything."""

    def __init__(
        self,
        dice: random.Random,
        network: Network,
        oms: Sequence[Replica],
        risk: Sequence[Replica],
        databases: Sequence[DatabaseHost],
        venue: VenueHost,
        market_data: MarketDataHost,
        bus: MemoryBus,
    ) -> None:
        self.severity = dice.choice(SEVERITIES)
        self._dice = dice
        self._network = network
        self._oms = oms
        self._risk = risk
        self._databases = databases
        self._venue = venue
        self._market_data = market_data
        self._bus = bus
        self._down: set[asyncio.Task[None]] = set()
        self._hurts: list[tuple[int, Callable[[], None]]] = [
            (4, self._crash_oms),
            (3, self._crash_risk),
            (3, self._stall),
            (3, self._cut),
            (1, self._crash_database),
            (2, self._crash_venue),
            (1, self._crash_market_data),
            (2, self._disconnect),
            (8, self._bend_venue),
            (2, self._lose_bus),
            (2, self._storm),
            (3, self._bust),
        ]
        self.done: list[tuple[float, str]] = []

    def begin(self) -> None:
        """Make the wires as bad as the severity says."""
        severity = self.severity
        self._network.weather.loss_share = severity.call_loss
        self._network.weather.twice_share = severity.call_twice
        self._network.weather.slow_share = severity.slow_share
        for database in self._databases:
            database.weather.loss_share = severity.database_loss
            database.weather.commit_loss_share = severity.commit_loss
            database.weather.commit_death_share = severity.commit_death
            database.weather.commit_stall_share = severity.commit_stall

    async def rage(self, until: float) -> None:
        """Hurt something, wait, and so on, until a moment of the loop's time."""
        loop = self._network.loop
        weights, hurts = zip(*self._hurts, strict=True)
        while loop.time() < until:
            await asyncio.sleep(min(self._dice.expovariate(1.0) * self.severity.pause_seconds, until - loop.time() + 0.001))
            if loop.time() < until:
                (hurt,) = self._dice.choices(hurts, weights)
                self.done.append((loop.time(), hurt.__name__.strip("_")))
                hurt()
            for replica in (*self._oms, *self._risk):
                # Killed at a commit: nobody else starts it again.
                if not replica.host.alive:
                    self._later(self._dice.uniform(0.1, 6.0), replica.start, replica)

    async def heal(self) -> None:
        """End every hurt, and bring everything up."""
        weather, calm = self._network.weather, CALM
        weather.loss_share, weather.twice_share, weather.slow_share = calm.call_loss, calm.call_twice, calm.slow_share
        weather.latency_ms = 0.5
        for database in self._databases:
            database.weather.loss_share = database.weather.commit_loss_share = 0.0
            database.weather.commit_death_share = database.weather.commit_stall_share = 0.0
        self._network.heal()
        if self._down:
            await asyncio.wait(self._down)
        for replica in (*self._oms, *self._risk):
            if not replica.host.alive:
                replica.start()
        if self._venue.exchange is None:
            await self._venue.start()
        if not self._market_data.host.alive:
            self._market_data.start()
        self._venue.control("fault.clear")

    def _later(self, seconds: float, action: Callable[[], object], replica: Replica | None = None) -> None:
        if replica is not None and any(task.get_name() == replica.address for task in self._down):
            return

        async def act() -> None:
            await asyncio.sleep(seconds)
            result = action()
            if asyncio.iscoroutine(result):
                await result

        task = asyncio.create_task(act(), name=replica.address if replica is not None else None)
        self._down.add(task)
        task.add_done_callback(self._down.discard)

    def _crash(self, replicas: Sequence[Replica]) -> None:
        victims = [self._dice.choice(replicas)] if self._dice.random() < 0.8 else list(replicas)
        for replica in victims:
            if replica.host.alive:
                replica.kill()
                self._later(self._dice.uniform(0.1, 8.0), replica.start, replica)

    def _crash_oms(self) -> None:
        self._crash(self._oms)

    def _crash_risk(self) -> None:
        self._crash(self._risk)

    def _stall(self) -> None:
        host = self._dice.choice([*(replica.host for replica in (*self._oms, *self._risk)), self._market_data.host])
        if host.alive:
            host.stall(self._dice.uniform(0.2, 9.0))

    def _cut(self) -> None:
        ends: list[Host] = [replica.host for replica in (*self._oms, *self._risk)]
        ends += [database.host for database in self._databases]
        ends += [self._venue.host, self._market_data.host]
        one, other = self._dice.sample(ends, 2)
        self._network.cut(one, other, self._dice.uniform(0.2, 12.0))

    def _crash_database(self) -> None:
        self._dice.choice(self._databases).crash(self._dice.uniform(0.1, 3.0))

    def _crash_venue(self) -> None:
        if self._venue.exchange is not None:
            self._venue.kill()
            self._later(self._dice.uniform(0.2, 6.0), self._venue.start)

    def _crash_market_data(self) -> None:
        if self._market_data.host.alive:
            self._market_data.kill()
            self._later(self._dice.uniform(0.2, 6.0), self._market_data.start)

    def _disconnect(self) -> None:
        self._venue.control("member.disconnect", comp_id=MEMBER)

    def _bend_venue(self) -> None:
        dice = self._dice
        rules: tuple[dict[str, object], ...] = (
            {"action": "reject", "on": [dice.choice(("new", "cancel", "replace"))]},
            {"action": "silent", "on": [dice.choice(("new", "cancel", "replace"))]},
            {"action": "disconnect"},
            {"action": "mute", "on": [dice.choice(("new", "rejected", "canceled", "expired"))]},
            {"action": "delay", "delay_ms": dice.randrange(10, 6_000)},
            {"action": "hold_fills", "delay_ms": dice.randrange(10, 6_000)},
            {"action": "hold_fills", "until_closed": True, "delay_ms": dice.randrange(4_000, 20_000)},
            {"action": "duplicate"},
            {"action": "bust", "delay_ms": dice.randrange(0, 4_000)},
            {"action": "correct", "delay_ms": dice.randrange(0, 4_000), "price": "100.01", "instrument": "AAPL"},
            {"action": "correct", "delay_ms": dice.randrange(0, 4_000), "quantity": "1", "instrument": "AAPL"},
        )
        self._venue.control("fault.add", count=dice.randrange(1, 4), session=MEMBER, **dice.choice(rules))

    def _bust(self) -> None:
        exchange = self._venue.exchange
        if exchange is None or not exchange.state.trades:
            return
        recent = list(exchange.state.trades)[-200:]
        owners = {order_id: order.owner for order_id, order in exchange.state.orders.items()}
        ours = [
            match_id
            for match_id in recent
            if MEMBER
            in (owners.get(exchange.state.trades[match_id].buy_order_id), owners.get(exchange.state.trades[match_id].sell_order_id))
        ]
        if ours:
            self._venue.control("trade.bust", exec_id=exchange.reports.order_id(self._dice.choice(ours)))

    def _lose_bus(self) -> None:
        self._later(0.0, self._bus.flush)

    def _storm(self) -> None:
        self._network.weather.latency_ms = self._dice.choice((0.5, 5.0, 40.0))
