"""Database servers as hosts, and the wires of replicas to them: slow, cut, or broken at the worst moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.fakes.postgres.driver import Loss
from tests.fakes.postgres.server import MemoryPostgres
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.loop import SimClock, SimLoop
from tests.simulation.chain.network import Network

HANG_UP_SECONDS_MAX = 0.5
STALL_SECONDS_MAX = 9.0
"""Longer than a lease lives."""


@dataclass(slots=True)
class DatabaseWeather:
    """What goes wrong between replicas and their database; chaos changes it.

    Attributes:
        loss_share: of statements that break their connection, before or after they ran.
        commit_loss_share: of statements that commit, whose answer is lost.
        commit_death_share: of statements that commit, after which the replica is killed before it reads the answer.
        commit_stall_share: of statements that commit, after which the replica is not scheduled for a while.
    """

    loss_share: float = 0.0
    commit_loss_share: float = 0.0
    commit_death_share: float = 0.0
    commit_stall_share: float = 0.0


def is_commit(sql: str) -> bool:
    """Say whether a statement commits: the end of a transaction, or one that writes orders and commits by itself."""
    return sql == "COMMIT" or "orders_create" in sql or "orders_change" in sql


class DatabaseHost:
    """A server that may be away for a while; it keeps what was committed."""

    def __init__(self, name: str, loop: SimLoop, make: Callable[[Callable[[], datetime], Callable[[], float]], MemoryPostgres]) -> None:
        self.host = Host(name, loop)
        self.server = make(SimClock(loop).now, loop.time)
        self.weather = DatabaseWeather()
        self.on_statement: Callable[[Host, str], None] | None = None
        """A scenario's own idea of what happens to a replica at a statement; called when it leaves."""
        self._loop = loop
        self._away_until = 0.0

    @property
    def up(self) -> bool:
        """Whether the server answers."""
        return self._loop.time() >= self._away_until

    def crash(self, seconds: float) -> None:
        """Lose every connection and what was not committed, and come back after a while."""
        self._away_until = self._loop.time() + seconds
        for session in list(self.server.sessions):
            session.close()


class SimWire:
    """The way of one replica to its database."""

    def __init__(self, here: Host, database: DatabaseHost, network: Network, dice: random.Random, die: Callable[[], None]) -> None:
        self._here = here
        self._database = database
        self._network = network
        self._dice = dice
        self._die = die

    def fate(self, sql: str) -> Loss:
        """See `Wire.fate`."""
        weather, dice = self._database.weather, self._dice
        if not self._here.alive:
            return Loss.REQUEST
        commits = is_commit(sql)
        if self._database.on_statement is not None:
            self._database.on_statement(self._here, sql)
        if commits and dice.random() < weather.commit_stall_share:
            self._network.loop.call_later(2 * self._network.latency(), self._here.stall, dice.uniform(0.1, STALL_SECONDS_MAX))
        if commits and dice.random() < weather.commit_death_share:
            self._network.loop.call_later(2 * self._network.latency(), self._die)
            return Loss.ANSWER
        if commits and dice.random() < weather.commit_loss_share:
            return Loss.ANSWER
        if dice.random() < weather.loss_share:
            return dice.choice((Loss.REQUEST, Loss.ANSWER))
        return Loss.NONE

    def delay(self) -> float:
        """See `Wire.delay`."""
        network = self._network
        return network.healed_at(self._here, self._database.host) - network.loop.time() + network.latency()

    def hang_up(self) -> float:
        """See `Wire.hang_up`."""
        return self._dice.uniform(0.0, HANG_UP_SECONDS_MAX)

    def connects(self) -> bool:
        """See `Wire.connects`."""
        cut = self._network.healed_at(self._here, self._database.host) > self._network.loop.time()
        return self._here.alive and self._database.up and not cut

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """See `Wire.spawn`."""
        return self._database.host.spawn(work)
