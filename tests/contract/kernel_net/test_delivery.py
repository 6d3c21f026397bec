"""From the log over the bus into a read model: every event once, in log order, whatever the bus loses. In memory and for real."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import pytest

from kernel.bus.port import BusMessage
from kernel.consumer import ProjectionStoppedError
from kernel.errors import Reason, UnavailableError
from kernel.ports import LOG_START, LogPosition, RecordedEvent
from kernel.postgres import KERNEL_MIGRATIONS, Database, migrate
from mesh.local.provision import ServiceDatabase
from mesh.local.redis import EmbeddedRedis
from tests.contract.kernel_net.events import commit
from tests.contract.kernel_net.worlds import MemoryWorld, RealWorld, World, record, running, until


@pytest.fixture(params=["memory", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    service: ServiceDatabase = request.getfixturevalue("service_database")
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    await migrate(service.owner_dsn, service.role, [KERNEL_MIGRATIONS])
    owner = await asyncpg.connect(service.owner_dsn.reveal())
    await owner.execute("CREATE TABLE seen (n bigint GENERATED ALWAYS AS IDENTITY, event_id text NOT NULL)")
    await owner.execute(f'GRANT SELECT, INSERT ON seen TO "{service.role}"')
    await owner.close()
    database = await Database.open(service.dsn)
    real = RealWorld(database, server.url, f"oms-{secrets.token_hex(4)}")
    yield real
    await real.close()
    await database.close()


async def log_of(world: World) -> list[str]:
    return [event.event_id for event in await world.store.read_after(LOG_START, 10_000)]


async def everything_applied(world: World) -> bool:
    return await world.applied() == await log_of(world)


async def test_every_event_arrives_once_and_in_log_order(world: World) -> None:
    relay, projection = world.relay("a"), world.projection("a", silence_seconds=5.0)
    async with running(relay.run(), projection.run()):
        await until(lambda: projection.leading and relay.leading)
        await record(world.store, 20)
        await until(lambda: everything_applied(world))
        assert relay.published_events == 40
        assert projection.applied_events == 40


async def test_events_from_before_the_projection_are_read_from_the_log(world: World) -> None:
    await record(world.store, 30)
    async with running(world.projection("a").run()):
        await until(lambda: everything_applied(world))


async def test_a_flushed_bus_loses_nothing(world: World) -> None:
    relay, projection = world.relay("a"), world.projection("a", silence_seconds=0.1)
    async with running(relay.run(), projection.run()):
        for round_number in range(6):
            await record(world.store, 10, after=10 * round_number)
            await world.flush()
        await until(lambda: everything_applied(world))
    assert len(await world.applied()) == 120


async def test_a_bus_that_is_flushed_behind_a_waiting_projection_goes_on(world: World) -> None:
    relay, projection = world.relay("a"), world.projection("a", silence_seconds=0.1)
    async with running(relay.run(), projection.run()):
        await record(world.store, 3)
        await until(lambda: everything_applied(world))
        await world.flush()
        await record(world.store, 3, after=3)
        await until(lambda: everything_applied(world))


class AwayBus:
    """A bus that never answers."""

    async def tails(self, topic: str) -> dict[int, int]:
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "away")

    async def read(self, topic: str, after: Mapping[int, int], wait_seconds: float) -> list[BusMessage]:
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "away")


async def test_without_a_bus_the_log_is_enough(world: World) -> None:
    projection = world.projection("a", bus=AwayBus(), silence_seconds=0.05)
    async with running(projection.run()):
        await until(lambda: projection.leading)
        await record(world.store, 5)
        await until(lambda: everything_applied(world))


async def test_two_replicas_apply_every_event_once_and_one_takes_over(world: World) -> None:
    relays: list[Any] = [world.relay(owner) for owner in ("a", "b")]
    projections: list[Any] = [world.projection(owner, silence_seconds=0.1) for owner in ("a", "b")]
    async with running(*[item.run() for item in (*relays, *projections)]) as tasks:
        await until(lambda: any(item.leading for item in relays) and any(item.leading for item in projections))
        await record(world.store, 10)
        await until(lambda: everything_applied(world))
        assert sum(item.leading for item in relays) == 1
        assert sum(item.leading for item in projections) == 1
        for items, offset in ((relays, 0), (projections, 2)):
            leader = next(number for number, item in enumerate(items) if item.leading)
            tasks[offset + leader].cancel()
        await record(world.store, 10, after=10)
        await until(lambda: everything_applied(world))
    assert sum(item.applied_events for item in projections) == 40


async def test_a_restart_goes_on_where_the_read_model_is(world: World) -> None:
    for owner, after in (("a", 0), ("b", 5), ("c", 10)):
        relay, projection = world.relay(owner), world.projection(owner)
        async with running(relay.run(), projection.run()):
            await record(world.store, 5, after=after)
            await until(lambda: everything_applied(world))
        assert projection.applied_events == 10


async def test_rounds_keep_their_numbers_across_restarts(world: World) -> None:
    sequences = []
    for owner, after in (("a", 0), ("b", 3)):
        relay = world.relay(owner)
        async with running(relay.run()):
            await record(world.store, 3, after=after)
            await until(lambda relay=relay: relay.published_events == 6)  # type: ignore[misc]
        sequences.append(relay.progress.sequence)
    assert 0 < sequences[0] < sequences[1]
    assert await world.bus.last_sequence(world.topic) == sequences[1]


async def test_a_relay_that_died_before_saving_leaves_a_gap_that_sends_consumers_to_the_log(world: World) -> None:
    projection = world.projection("p", silence_seconds=5.0)
    async with running(projection.run()):
        async with running(world.relay("a", save_seconds=3600).run()):
            await record(world.store, 3)
            await until(lambda: everything_applied(world))
            before = await world.bus.last_sequence(world.topic)
            # What a crash leaves: rounds on the bus of which the relay's memory knows nothing.
            told = await world.store.read_after(LOG_START, 10)
            await world.bus.publish(world.topic, before + 1, told[-1].position, told[-1:])
        async with running(world.relay("b").run()):
            await record(world.store, 3, after=3)
            await until(lambda: everything_applied(world))
        assert await world.bus.last_sequence(world.topic) > before + 2


async def test_progress_is_saved_once_the_log_is_quiet(world: World) -> None:
    relay = world.relay("a", save_seconds=0.05)
    async with running(relay.run()):
        await record(world.store, 3)

        async def all_is_saved() -> bool:
            return relay.published_events == 6 and await world.told() == relay.progress

        await until(all_is_saved)
        assert (await world.told()).cursor == (await world.store.read_after(LOG_START, 10))[-1].position


async def test_a_passing_failure_is_tried_again(world: World) -> None:
    failures = iter([True, True, False])

    def refuse(event: RecordedEvent) -> None:
        if event.version == 2 and next(failures, False):
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away")

    await record(world.store, 3)
    projection = world.projection("a", refuse=refuse)
    async with running(projection.run()):
        await until(lambda: everything_applied(world))
    assert projection.failures == 2


async def test_poison_stops_the_projection_at_its_place_and_loudly(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(event: RecordedEvent) -> None:
        if event.event_id == "order-1@3":
            raise ValueError("cannot be understood")

    await record(world.store, 5)
    log = await log_of(world)
    projection = world.projection("a", refuse=refuse, poison_attempts=2)
    with pytest.raises(ProjectionStoppedError, match="order-1@3"):
        await projection.run()
    assert await world.applied() == log[: log.index("order-1@3")]
    assert {sample.name: sample.value for sample in projection.samples()}["projection_stopped"] == 1
    assert "projection test stopped" in caplog.text
    # Whoever can read it goes on exactly there.
    async with running(world.projection("b").run()):
        await until(lambda: everything_applied(world))


async def test_duplicates_and_disorder_on_the_bus_change_nothing(world: World) -> None:
    projection = world.projection("a", silence_seconds=0.2)
    async with running(projection.run()):
        await until(lambda: projection.leading)
        await record(world.store, 6)
        events = await world.store.read_after(LOG_START, 100)
        last = events[-1].position
        rounds = {1: events[:4], 2: events[:4], 3: events[6:], 5: events[2:8], 6: list(reversed(events)), 9: events}
        for number, told in rounds.items():
            await world.bus.publish(world.topic, number, last, told)
        await until(lambda: everything_applied(world))
        await record(world.store, 2, after=6)
        await until(lambda: everything_applied(world))
    assert projection.applied_events == 16


class HoledLog:
    """A log from which an event has disappeared."""

    def __init__(self, events: list[RecordedEvent]) -> None:
        self._events = events

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        return [event for event in self._events if event.position > cursor][:limit]


async def test_an_event_missing_from_the_log_stops_the_projection(world: World) -> None:
    await world.store.commit([commit("order-1", 0, 3)])
    events = await world.store.read_after(LOG_START, 10)
    projection = world.projection("a")
    projection._log = HoledLog([events[0], events[2]])
    with pytest.raises(ProjectionStoppedError, match="order-1@3"):
        async with asyncio.timeout(5):
            await projection.run()
