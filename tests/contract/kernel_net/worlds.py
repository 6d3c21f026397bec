"""A log, a bus and a read model, in memory or real, with as many relays and projections as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import redis.asyncio

from kernel.bus.memory import MemoryBus
from kernel.bus.port import BusPublisher, BusReader
from kernel.bus.redis_streams import RedisStreamsBus
from kernel.clock import SystemClock
from kernel.config import Dsn
from kernel.consumer import Projection
from kernel.events.memory import MemoryEventStore
from kernel.events.postgres import PostgresEventStore
from kernel.lease import MemoryLeases, PostgresLeases
from kernel.ports import EventStore, RecordedEvent
from kernel.postgres import Database
from kernel.postgres.database import Transaction
from kernel.projection_store import Inboxed, MemoryProjectionStore, PostgresProjectionStore
from kernel.relay import MemoryRelayMemory, PostgresRelayMemory, Relay, RelayProgress
from tests.contract.kernel_net.events import commit

FAST = {"retry_seconds": 0.02, "renew_every_seconds": 0.2}
CLOCK = SystemClock()

Refusal = Callable[[RecordedEvent], None]


class Bus(BusPublisher, BusReader, Protocol):
    """Both halves."""


class World(Protocol):
    """What a test of delivery needs."""

    store: EventStore
    bus: Bus
    topic: str

    def relay(self, owner: str, **settings: Any) -> Relay: ...
    def projection(self, owner: str, *, refuse: Refusal | None = None, bus: BusReader | None = None, **settings: Any) -> Projection: ...
    async def applied(self) -> list[str]: ...
    async def told(self) -> RelayProgress: ...
    async def flush(self) -> None: ...


def no_refusal(event: RecordedEvent) -> None:
    """Take every event."""


class MemoryWorld:
    """Everything in one process."""

    def __init__(self) -> None:
        self.topic = "oms"
        self.store: EventStore = MemoryEventStore(CLOCK)
        self._bus = MemoryBus()
        self.bus: Bus = self._bus
        self._leases: dict[str, tuple[str, int, float]] = {}
        self._progress: dict[str, RelayProgress] = {}
        self._model: list[str] = []
        self._projections = MemoryProjectionStore(self._lease("nobody"))

    def _lease(self, owner: str) -> MemoryLeases:
        return MemoryLeases(self._leases, CLOCK, owner)

    def relay(self, owner: str, **settings: Any) -> Relay:
        leases = self._lease(owner)
        return Relay(self.topic, self.store, self.bus, MemoryRelayMemory(leases, self._progress), leases, CLOCK, **(FAST | settings))

    def projection(self, owner: str, *, refuse: Refusal | None = None, bus: BusReader | None = None, **settings: Any) -> Projection:
        async def handler(_: None, events: Sequence[RecordedEvent]) -> None:
            for event in events:
                (refuse or no_refusal)(event)
            self._model += [event.event_id for event in events]

        return Projection(
            "test",
            self.topic,
            Inboxed(handler),
            self._projections,
            self.store,
            bus or self.bus,
            self._lease(owner),
            CLOCK,
            **(FAST | settings),
        )

    async def applied(self) -> list[str]:
        return list(self._model)

    async def told(self) -> RelayProgress:
        return await MemoryRelayMemory(self._lease("nobody"), self._progress).load(self.topic)

    async def flush(self) -> None:
        await self._bus.flush()


class RealWorld:
    """PostgreSQL and Redis."""

    def __init__(self, database: Database, redis_url: Dsn, topic: str) -> None:
        self.topic = topic
        self._database = database
        self._url = redis_url
        self._store = PostgresEventStore(database)
        self.store: EventStore = self._store
        self._bus = RedisStreamsBus(redis_url)
        self.bus: Bus = self._bus

    def _lease(self, owner: str) -> PostgresLeases:
        return PostgresLeases(self._database, CLOCK, owner)

    def relay(self, owner: str, **settings: Any) -> Relay:
        leases = self._lease(owner)
        return Relay(self.topic, self.store, self.bus, PostgresRelayMemory(self._database, leases), leases, CLOCK, **(FAST | settings))

    def projection(self, owner: str, *, refuse: Refusal | None = None, bus: BusReader | None = None, **settings: Any) -> Projection:
        async def handler(transaction: Transaction, events: Sequence[RecordedEvent]) -> None:
            for event in events:
                await transaction.execute("INSERT INTO seen (event_id) VALUES ($1)", event.event_id)
                (refuse or no_refusal)(event)

        leases = self._lease(owner)
        store = PostgresProjectionStore(self._database, leases)
        return Projection("test", self.topic, Inboxed(handler), store, self.store, bus or self.bus, leases, CLOCK, **(FAST | settings))

    async def applied(self) -> list[str]:
        return [row["event_id"] for row in await self._database.fetch("SELECT event_id FROM seen ORDER BY n")]

    async def told(self) -> RelayProgress:
        return await PostgresRelayMemory(self._database, self._lease("nobody")).load(self.topic)

    async def flush(self) -> None:
        async with redis.asyncio.Redis.from_url(self._url.reveal()) as client:
            await client.flushall()

    async def close(self) -> None:
        await self._store.close()
        await self._bus.close()


async def record(store: EventStore, count: int, *, stream_id: str = "order-1", after: int = 0) -> None:
    """Record events on one stream, and as many on streams of their own."""
    for version in range(after, after + count):
        await store.commit([commit(stream_id, version), commit(f"{stream_id}-{version}", 0)])


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run background work until the block ends."""
    tasks = [asyncio.create_task(item) for item in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool] | bool], *, seconds: float = 10.0) -> None:
    """Wait until a condition holds, with a deadline."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)
