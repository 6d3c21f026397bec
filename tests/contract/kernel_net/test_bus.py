"""One suite for every bus. What the relay and the consumers rely on, and nothing else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from kernel.bus.memory import MemoryBus
from kernel.bus.port import BusMessage, BusPublisher, BusReader, SequenceTakenError, partition_of
from kernel.bus.redis_streams import RedisStreamsBus
from kernel.errors import UnavailableError
from kernel.ports import LogPosition
from mesh.local.redis import EmbeddedRedis
from tests.contract.kernel_net.events import recorded

PARTITIONS = 3
START = dict.fromkeys(range(PARTITIONS), 0)


class Bus(BusPublisher, BusReader, Protocol):
    """Both halves."""


@pytest.fixture
def topic() -> str:
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture(params=["memory", "redis"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield MemoryBus(partitions=PARTITIONS, messages_kept=100)
        return
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    redis = RedisStreamsBus(server.url, partitions=PARTITIONS, messages_kept=100)
    yield redis
    await redis.close()


async def publish(bus: Bus, topic: str, sequence: int, *numbers: int) -> None:
    await bus.publish(topic, sequence, LogPosition(numbers[-1], numbers[-1]), [recorded(number) for number in numbers])


def by_partition(messages: list[BusMessage]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for message in messages:
        found.setdefault(message.partition, []).append(message.sequence)
    return found


async def test_an_empty_topic_has_nothing(bus: Bus, topic: str) -> None:
    assert await bus.last_sequence(topic) == 0
    assert await bus.tails(topic) == START
    assert await bus.read(topic, START, 0.01) == []


async def test_a_round_reaches_every_partition_whole_and_unchanged(bus: Bus, topic: str) -> None:
    await publish(bus, topic, 1, *range(1, 21))
    messages = await bus.read(topic, START, 1)
    assert by_partition(messages) == {partition: [1] for partition in range(PARTITIONS)}
    assert all(message.through == LogPosition(20, 20) for message in messages)
    events = sorted((event for message in messages for event in message.events), key=lambda event: event.position)
    assert events == [recorded(number) for number in range(1, 21)]
    for message in messages:
        assert all(partition_of(event.stream_id, PARTITIONS) == message.partition for event in message.events)
        assert list(message.events) == sorted(message.events, key=lambda event: event.position)


async def test_sequences_are_contiguous_and_reading_goes_on_where_it_was(bus: Bus, topic: str) -> None:
    for sequence in range(1, 6):
        await publish(bus, topic, sequence, sequence)
    assert await bus.last_sequence(topic) == 5
    assert await bus.tails(topic) == dict.fromkeys(range(PARTITIONS), 5)
    messages = await bus.read(topic, dict.fromkeys(range(PARTITIONS), 2), 1)
    assert by_partition(messages) == {partition: [3, 4, 5] for partition in range(PARTITIONS)}


async def test_a_round_is_published_once(bus: Bus, topic: str) -> None:
    await publish(bus, topic, 7, 1)
    for sequence in (7, 6):
        with pytest.raises(SequenceTakenError):
            await publish(bus, topic, sequence, 2)
    assert sum(len(message.events) for message in await bus.read(topic, START, 1)) == 1
    await publish(bus, topic, 9, 3)
    assert await bus.last_sequence(topic) == 9


async def test_a_partition_is_bounded_and_its_gap_shows(bus: Bus, topic: str) -> None:
    for sequence in range(1, 400):
        await publish(bus, topic, sequence, sequence)
    first: dict[int, int] = {}
    for message in await bus.read(topic, START, 1):
        first.setdefault(message.partition, message.sequence)
    assert set(first) == set(range(PARTITIONS))
    assert all(sequence > 1 for sequence in first.values())


async def test_a_read_is_bounded(bus: Bus, topic: str) -> None:
    for sequence in range(1, 90):
        await publish(bus, topic, sequence, sequence)
    sequences = by_partition(await bus.read(topic, START, 1))
    assert all(found == list(range(1, 65)) for found in sequences.values())


async def test_a_waiting_reader_is_woken(bus: Bus, topic: str) -> None:
    reading = asyncio.create_task(bus.read(topic, START, 5))
    await asyncio.sleep(0)
    await publish(bus, topic, 1, 1)
    async with asyncio.timeout(4):
        assert await reading


async def test_topics_are_apart(bus: Bus, topic: str) -> None:
    await publish(bus, topic, 1, 1)
    assert await bus.last_sequence(f"{topic}-other") == 0


async def test_a_redis_that_is_away_is_unavailable(redis_server: EmbeddedRedis) -> None:
    from kernel.config import Dsn

    bus = RedisStreamsBus(Dsn("unix:///tmp/tmk-no-redis.sock"), partitions=PARTITIONS)
    with pytest.raises(UnavailableError):
        await bus.tails("x")
    with pytest.raises(UnavailableError):
        await bus.read("x", START, 0.1)
    with pytest.raises(UnavailableError):
        await bus.publish("x", 1, LogPosition(1, 1), [recorded(1)])
    await bus.close()
