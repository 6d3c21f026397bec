"""What only PostgreSQL can get wrong in an event log: transactions that overlap, and processes that share it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from kernel.errors import StaleVersionError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import LOG_START, Commit, LogPosition, NewEvent, RecordedEvent, StreamAppend
from kernel.postgres import Database
from mesh.local.provision import ServiceDatabase

DEADLINE_SECONDS = 30.0
EVENT = NewEvent("test.v1.Happened", b"x")
LEASE = "INSERT INTO lease (name, owner, epoch, expires_at) VALUES ($1, 'me', 1, now())"


@pytest.fixture
async def other_store(migrated: ServiceDatabase) -> AsyncIterator[PostgresEventStore]:
    """Return the log as another replica sees it."""
    database = await Database.open(migrated.dsn)
    store = PostgresEventStore(database)
    yield store
    await store.close()
    await database.close()


def one(stream_id: str, expected_version: int) -> Commit:
    return Commit.single(stream_id, expected_version, EVENT)


async def test_rows_of_the_service_commit_and_vanish_with_the_events(database: Database, event_store: PostgresEventStore) -> None:
    async with database.transaction() as transaction:
        outcomes = await event_store.append(transaction, [one("order-1", 0), one("order-2", 5)])
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, LogPosition):
                await transaction.execute(LEASE, f"key-{number}")
    with pytest.raises(KeyError):
        async with database.transaction() as transaction:
            await event_store.append(transaction, [one("order-1", 1)])
            await transaction.execute(LEASE, "key-lost")
            raise KeyError
    assert [row["name"] for row in await database.fetch("SELECT name FROM lease")] == ["key-0"]
    assert await event_store.heads(["order-1", "order-2"]) == {"order-1": 1, "order-2": 0}
    assert await event_store.append(transaction, []) == []


async def test_an_open_transaction_hides_what_committed_after_it_began(database: Database, event_store: PostgresEventStore) -> None:
    async with database.transaction() as slow:
        await slow.pin()
        await event_store.commit([one("order-1", 0)])
        assert await event_store.read_after(LOG_START, 10) == []
        assert await event_store.lag_seconds() > 0
        await event_store.append(slow, [one("order-2", 0)])
    events = await event_store.read_after(LOG_START, 10)
    assert [event.stream_id for event in events] == ["order-2", "order-1"]
    assert await event_store.lag_seconds() == 0


async def test_versions_stay_in_order_when_the_later_writer_has_the_earlier_id(
    database: Database, event_store: PostgresEventStore, other_store: PostgresEventStore
) -> None:
    """A transaction takes its id, another one with a higher id commits version 1, then the first writes version 2."""
    async with database.transaction() as early:
        await early.pin()
        async with database.transaction() as between:
            await between.pin()
            await event_store.commit([one("order-1", 0)])
            (second,) = await event_store.append(
                early, [Commit((StreamAppend("order-1", 1, (EVENT,)), StreamAppend("order-9", 0, (EVENT,))))]
            )
            assert isinstance(second, LogPosition)
            assert early.own_tx is not None
            assert second.tx > early.own_tx
            assert await other_store.read_after(LOG_START, 10) == []
    events = await other_store.read_after(LOG_START, 10)
    assert [(event.stream_id, event.version) for event in events] == [("order-1", 1), ("order-1", 2), ("order-9", 1)]


async def test_the_order_holds_over_a_chain_of_inversions(database: Database, event_store: PostgresEventStore) -> None:
    async with database.transaction() as first:
        await first.pin()
        async with database.transaction() as second:
            await second.pin()
            await event_store.commit([one("a", 0)])
            await event_store.append(second, [Commit((StreamAppend("a", 1, (EVENT,)), StreamAppend("b", 0, (EVENT,))))])
        await event_store.append(first, [Commit((StreamAppend("b", 1, (EVENT,)), StreamAppend("c", 0, (EVENT,))))])
    await event_store.commit([one("c", 1)])
    events = await event_store.read_after(LOG_START, 10)
    assert [(event.stream_id, event.version) for event in events] == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]


async def test_a_writer_decides_again_under_the_lock(
    database: Database, event_store: PostgresEventStore, other_store: PostgresEventStore
) -> None:
    await event_store.commit([one("order-1", 0)])
    async with database.transaction() as transaction:
        assert await event_store.lock(transaction, ["order-2", "order-1", "order-2"]) == {"order-1": 1, "order-2": 0}
        rival = asyncio.create_task(other_store.commit([one("order-1", 1)]))
        current = await event_store.read_streams(["order-1", "order-2"])
        assert [event.version for event in current["order-1"]] == [1]
        await event_store.append(transaction, [one("order-1", 1), one("order-2", 0)])
        assert not rival.done()
    (outcome,) = await asyncio.wait_for(rival, DEADLINE_SECONDS)
    assert isinstance(outcome, StaleVersionError)
    assert outcome.actual_version == 2


async def test_two_replicas_that_create_one_stream_create_it_once(event_store: PostgresEventStore, other_store: PostgresEventStore) -> None:
    for number in range(50):
        results = await asyncio.gather(
            event_store.commit([one(f"a-{number}", 0), one(f"b-{number}", 0)]),
            other_store.commit([one(f"b-{number}", 0), one(f"a-{number}", 0)]),
        )
        held = [isinstance(outcome, LogPosition) for result in results for outcome in result]
        assert held.count(True) == 2
        assert held[0] != held[3]
        assert held[1] != held[2]


async def test_batches_of_two_replicas_in_opposite_order_do_not_deadlock(
    database: Database, event_store: PostgresEventStore, other_store: PostgresEventStore
) -> None:
    """With heads locked in the order of the batch, 57 of 200 such batches deadlocked."""
    names = [f"account-{number}" for number in range(30)]
    await event_store.commit([one(name, 0) for name in names])

    async def write(store: PostgresEventStore, seed: int) -> int:
        generator, held = random.Random(seed), 0
        for number in range(100):
            order = generator.sample(names, 20)
            heads = await store.heads(order)
            new = [one(f"new-{number}-{name}", 0) for name in order[:5]]
            outcomes = await store.commit(new + [one(name, heads[name]) for name in order] + new)
            held += sum(isinstance(outcome, LogPosition) for outcome in outcomes)
        return held

    writers = [write(store, seed) for seed, store in enumerate([event_store, other_store] * 3)]
    held = await asyncio.wait_for(asyncio.gather(*writers), DEADLINE_SECONDS)
    assert await database.fetchval("SELECT count(*) FROM event") == sum(held) + len(names)
    assert (
        await database.fetchval(
            "SELECT count(*) FROM event_stream s WHERE version <> (SELECT count(*) FROM event e WHERE e.stream_id = s.stream_id)"
        )
        == 0
    )


async def test_long_transactions_cannot_make_a_tailing_reader_lose_or_reorder(
    database: Database, event_store: PostgresEventStore, other_store: PostgresEventStore
) -> None:
    written: list[str] = []

    async def write(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(40):
            name = f"account-{generator.randrange(3)}"
            async with database.transaction() as transaction:
                if generator.random() < 0.5:
                    await transaction.pin()
                for _ in range(generator.randrange(3)):
                    await transaction.fetchval("SELECT 1")
                heads = await event_store.lock(transaction, [name, f"order-{seed}"])
                await event_store.append(transaction, [Commit(tuple(StreamAppend(key, head, (EVENT,)) for key, head in heads.items()))])
                written.extend(f"{key}@{head + 1}" for key, head in heads.items())

    async def tail() -> list[RecordedEvent]:
        seen: list[RecordedEvent] = []
        async with aclosing(other_store.subscribe(LOG_START, limit=7)) as batches:
            async for batch in batches:
                seen.extend(batch)
                if seen[-1].stream_id == "last":
                    return seen
        return seen

    tailing = asyncio.create_task(tail())
    await asyncio.wait_for(asyncio.gather(*(write(seed) for seed in range(4))), DEADLINE_SECONDS)
    await event_store.commit([one("last", 0)])
    written.append("last@1")
    events = await asyncio.wait_for(tailing, DEADLINE_SECONDS)
    assert sorted(event.event_id for event in events) == sorted(written)
    versions: dict[str, int] = {}
    for event in events:
        assert event.version == versions.get(event.stream_id, 0) + 1
        versions[event.stream_id] = event.version


async def test_another_replica_wakes_a_subscriber_long_before_it_would_poll(
    database: Database, migrated: ServiceDatabase, event_store: PostgresEventStore
) -> None:
    lazy = PostgresEventStore(database, poll_seconds_max=3_600.0)
    async with aclosing(lazy.subscribe(LOG_START)) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await database.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND usename = current_user"
            ):
                await asyncio.sleep(0.01)
        # The pauses of the poll have grown past what the test would wait for.
        await event_store.commit([one("order-1", 0)])
        (event,) = await asyncio.wait_for(waiting, DEADLINE_SECONDS)
    assert event.stream_id == "order-1"
    await lazy.close()


async def test_subscribers_survive_the_loss_of_the_listening_connection(
    database: Database, event_store: PostgresEventStore, other_store: PostgresEventStore
) -> None:
    seen: list[int] = []
    async with aclosing(event_store.subscribe(LOG_START)) as batches:
        for version in range(4):
            await other_store.commit([one("order-1", version)])
            seen.extend(event.version for event in await asyncio.wait_for(anext(batches), DEADLINE_SECONDS))
            await database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND usename = current_user"
            )
    assert seen == [1, 2, 3, 4]
