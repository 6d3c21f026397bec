"""The contract of `EventStore`: one suite, every adapter."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from kernel.errors import StaleVersionError
from kernel.ports import LOG_START, METADATA_BYTES_MAX, PAYLOAD_BYTES_MAX, Commit, EventStore, LogPosition, NewEvent, StreamAppend
from kernel.ports import RecordedEvent as Recorded

DEADLINE_SECONDS = 30.0


def event(payload: bytes = b"x", kind: str = "test.v1.Happened") -> NewEvent:
    return NewEvent(kind, payload, b"who")


def append(stream_id: str, expected_version: int, count: int = 1) -> StreamAppend:
    return StreamAppend(stream_id, expected_version, tuple(event(f"{stream_id}/{expected_version + i + 1}".encode()) for i in range(count)))


async def read_all(store: EventStore, limit: int = 10_000) -> list[Recorded]:
    events: list[Recorded] = []
    while page := await store.read_after(events[-1].position if events else LOG_START, limit):
        events += page
    return events


async def test_a_commit_is_read_back_as_written(store: EventStore) -> None:
    written = NewEvent("oms.v1.OrderAccepted", bytes(range(256)), b"\x00\xff")
    (position,) = await store.commit([Commit.single("order-1", 0, written, event())])
    first, second = await store.read_stream("order-1")
    assert (first.stream_id, first.version, first.type, first.payload, first.metadata) == ("order-1", 1, *_parts(written))
    assert (second.version, second.position) == (2, position)
    assert abs(first.recorded_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert first.event_id == "order-1@1"
    assert await read_all(store) == [first, second]


def _parts(written: NewEvent) -> tuple[str, bytes, bytes]:
    return written.type, written.payload, written.metadata


async def test_unknown_streams_are_empty(store: EventStore) -> None:
    assert await store.read_stream("order-1") == []
    assert await store.read_streams(["order-1"]) == {}
    assert await store.heads(["order-1"]) == {"order-1": 0}
    assert await store.read_after(LOG_START, 1) == []
    assert await store.commit([]) == []


@pytest.mark.parametrize("expected", [0, 1, 3, 7])
async def test_a_stale_version_is_refused_and_leaves_nothing(store: EventStore, expected: int) -> None:
    await store.commit([Commit.single("order-1", 0, event(), event())])
    (outcome,) = await store.commit([Commit.single("order-1", expected, event())])
    assert isinstance(outcome, StaleVersionError)
    assert (outcome.stream_id, outcome.expected_version, outcome.actual_version) == ("order-1", expected, 2)
    assert len(await store.read_stream("order-1")) == 2
    assert len(await read_all(store)) == 2


async def test_a_commit_on_a_stream_that_does_not_exist_is_refused(store: EventStore) -> None:
    (outcome,) = await store.commit([Commit((append("account-1", 0), append("order-1", 1)))])
    assert isinstance(outcome, StaleVersionError)
    assert (outcome.stream_id, outcome.actual_version) == ("order-1", 0)
    assert await read_all(store) == []
    assert await store.heads(["account-1", "order-1"]) == {"account-1": 0, "order-1": 0}


async def test_a_failing_commit_fails_alone(store: EventStore) -> None:
    await store.commit([Commit.single("account-1", 0, event())])
    outcomes = await store.commit(
        [
            Commit((append("account-1", 1), append("order-1", 0, 2))),
            Commit((append("account-1", 1), append("order-2", 0))),
            Commit((append("order-3", 0), append("account-1", 2))),
            Commit((append("order-4", 0), append("order-1", 0))),
            Commit((append("order-4", 0),)),
        ]
    )
    assert [isinstance(outcome, LogPosition) for outcome in outcomes] == [True, False, True, False, True]
    expected = {"account-1": 3, "order-1": 2, "order-2": 0, "order-3": 1, "order-4": 1}
    assert await store.heads(list(expected)) == expected
    assert {key: len(events) for key, events in (await store.read_streams(list(expected))).items()} == {
        k: v for k, v in expected.items() if v
    }
    assert len(await read_all(store)) == 7


async def test_refused_streams_can_be_written_afterwards(store: EventStore) -> None:
    await store.commit([Commit((append("order-1", 0), append("account-1", 5)))])
    outcomes = await store.commit([Commit.single("order-1", 0, event()), Commit.single("order-1", 1, event())])
    assert all(isinstance(outcome, LogPosition) for outcome in outcomes)
    assert await store.heads(["order-1", "account-1"]) == {"order-1": 2, "account-1": 0}


async def test_commands_on_one_stream_fold_in_batch_order(store: EventStore) -> None:
    commits = [Commit.single("order-1", version, event(str(version).encode())) for version in range(50)]
    positions = await store.commit(commits)
    assert all(isinstance(position, LogPosition) for position in positions)
    assert [recorded.position for recorded in await store.read_stream("order-1")] == positions == sorted(positions, key=str_key)
    assert [recorded.payload for recorded in await store.read_stream("order-1")] == [str(version).encode() for version in range(50)]


def str_key(position: object) -> LogPosition:
    assert isinstance(position, LogPosition)
    return position


async def test_what_builds_on_a_refused_commit_is_refused_too(store: EventStore) -> None:
    outcomes = await store.commit(
        [Commit.single("order-1", 1, event()), Commit.single("order-1", 2, event()), Commit.single("order-1", 0, event())]
    )
    assert [isinstance(outcome, LogPosition) for outcome in outcomes] == [False, False, True]


async def test_mixed_new_and_existing_streams(store: EventStore) -> None:
    await store.commit([Commit((append("a", 0), append("m", 0, 2), append("z", 0, 3)))])
    outcomes = await store.commit(
        [
            Commit((append("z", 3), append("b", 0), append("a", 1))),
            Commit((append("m", 2), append("y", 0), append("b", 1))),
            Commit((append("m", 0),)),
            Commit((append("n", 0), append("m", 3))),
        ]
    )
    assert [isinstance(outcome, LogPosition) for outcome in outcomes] == [True, True, False, True]
    assert await store.heads(["a", "b", "m", "n", "y", "z"]) == {"a": 2, "b": 2, "m": 4, "n": 1, "y": 1, "z": 4}


@pytest.mark.parametrize(
    "commit",
    [
        Commit(()),
        Commit((StreamAppend("order-1", 0, ()),)),
        Commit((append("order-1", 0), append("order-1", 1))),
        Commit((append("", 0),)),
        Commit((append("x" * 129, 0),)),
        Commit((append("order-é", 0),)),
        Commit((append("order-1", -1),)),
        Commit((append("order-1", 2**31 - 1),)),
        Commit.single("order-1", 0, event(kind="")),
        Commit.single("order-1", 0, event(kind="x" * 129)),
        Commit.single("order-1", 0, event(b"x" * (PAYLOAD_BYTES_MAX + 1))),
        Commit.single("order-1", 0, NewEvent("x", b"", b"x" * (METADATA_BYTES_MAX + 1))),
    ],
)
async def test_malformed_commits_are_refused_before_anything_is_written(store: EventStore, commit: Commit) -> None:
    with pytest.raises(ValueError, match=r"commit|append|stream id|event|expected version"):
        await store.commit([Commit.single("order-0", 0, event()), commit])
    assert await read_all(store) == []


async def test_reading_in_pages_misses_and_repeats_nothing(store: EventStore) -> None:
    for number in range(7):
        await store.commit([Commit((append(f"order-{number}", 0, 3), append("account-1", number)))])
    whole = await read_all(store)
    assert len(whole) == 28
    for limit in (1, 2, 3, 27, 28, 29):
        assert await read_all(store, limit) == whole
    assert await store.read_after(whole[9].position, 5) == whole[10:15]
    assert await store.read_stream("account-1", after_version=2, limit=3) == (await store.read_stream("account-1"))[2:5]
    for limit in (0, -1, 10_001):
        with pytest.raises(ValueError, match="limit"):
            await store.read_after(LOG_START, limit)


async def test_the_horizon_lies_after_everything_committed(store: EventStore) -> None:
    await store.commit([Commit.single("order-1", 0, event())])
    horizon = await store.horizon()
    assert [recorded.version for recorded in await store.read_after(LOG_START, 10) if recorded.position <= horizon] == [1]
    await store.commit([Commit.single("order-1", 1, event())])
    assert [recorded.version for recorded in await store.read_after(horizon, 10)] == [2]


async def test_positions_survive_text() -> None:
    assert LogPosition.parse(str(LogPosition(7, 2**63 - 1))) == LogPosition(7, 2**63 - 1)
    for text in ["", "1", "1.", ".1", "-1.2", "1.2.3", "1.x", "٣.1", f"{2**63}.1", "1" * 50]:
        with pytest.raises(ValueError, match="log position"):
            LogPosition.parse(text)


async def test_subscribers_get_what_was_and_what_comes(store: EventStore) -> None:
    await store.commit([Commit.single("order-1", 0, event())])
    seen: list[int] = []

    async def tail() -> None:
        async with aclosing(store.subscribe(LOG_START, limit=2)) as batches:
            async for batch in batches:
                assert 1 <= len(batch) <= 2
                seen.extend(recorded.version for recorded in batch)
                if len(seen) == 6:
                    return

    tailing = asyncio.create_task(tail())
    for version in range(1, 6):
        await store.commit([Commit.single("order-1", version, event())])
    await asyncio.wait_for(tailing, DEADLINE_SECONDS)
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_eight_writers_lose_duplicate_and_reorder_nothing_for_a_tailing_reader(store: EventStore) -> None:
    """The hazard of sequence cursors (`position > last` lost a quarter of the events under eight writers)."""
    written: dict[str, int] = defaultdict(int)
    commits = [0]

    async def write(seed: int) -> None:
        generator = random.Random(seed)
        for number in range(40):
            shared = generator.sample(["account-1", "account-2", "account-3"], 2)
            while True:
                heads = await store.heads(shared)
                appends = [append(f"order-{seed}-{number}", 0)] + [append(name, heads[name]) for name in shared]
                (outcome,) = await store.commit([Commit(tuple(appends))])
                if isinstance(outcome, LogPosition):
                    break
            commits[0] += 1
            for part in appends:
                written[part.stream_id] += 1

    async def read(finished: asyncio.Event) -> list[Recorded]:
        events: list[Recorded] = []
        while True:
            last_round = finished.is_set()
            page = await store.read_after(events[-1].position if events else LOG_START, 17)
            events += page
            if last_round and not page:
                return events
            await asyncio.sleep(0)

    finished = asyncio.Event()
    reader = asyncio.create_task(read(finished))
    await asyncio.wait_for(asyncio.gather(*(write(seed) for seed in range(8))), DEADLINE_SECONDS)
    finished.set()
    events = await asyncio.wait_for(reader, DEADLINE_SECONDS)

    assert commits[0] == 320
    assert len(events) == len({recorded.event_id for recorded in events}) == sum(written.values())
    seen: dict[str, int] = defaultdict(int)
    for recorded in events:
        assert recorded.version == seen[recorded.stream_id] + 1
        seen[recorded.stream_id] = recorded.version
    assert seen == written


async def test_batches_in_opposite_order_do_not_deadlock(store: EventStore) -> None:
    names = [f"account-{number}" for number in range(20)]
    await store.commit([Commit.single(name, 0, event()) for name in names])

    async def write(order: list[str], rounds: int) -> int:
        held = 0
        for number in range(rounds):
            heads = await store.heads(order)
            fresh = [Commit.single(f"new-{number}-{name}", 0, event()) for name in order]
            outcomes = await store.commit([Commit((append(name, heads[name]),)) for name in order] + fresh)
            held += sum(isinstance(outcome, LogPosition) for outcome in outcomes)
        return held

    held = await asyncio.wait_for(asyncio.gather(write(names, 30), write(names[::-1], 30)), DEADLINE_SECONDS)
    assert len(await read_all(store)) == sum(held) + 20
    assert await store.heads(["new-0-account-0"]) == {"new-0-account-0": 1}
