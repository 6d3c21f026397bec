"""`event_extend`: appending to streams whose writers exclude each other by a lock of the service's own."""

from __future__ import annotations

from itertools import accumulate

import pytest

from kernel.errors import AbortedError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import LOG_START, Commit, LogPosition, NewEvent, StreamAppend
from kernel.postgres import Database, Transaction

EVENT = NewEvent("test.v1.Happened", b"x")
EXTEND = "SELECT * FROM event_extend($1, $2, $3, $4, $5, $6, $7, $8, $9)"


async def extend(transaction: Transaction, *appends: tuple[str, int, list[bytes]]) -> LogPosition:
    """Append payloads to streams at their expected versions, all in one call."""
    events = [
        (stream, expected + number, payload) for stream, expected, payloads in appends for number, payload in enumerate(payloads, start=1)
    ]
    lengths = [len(payload) for _, _, payload in events]
    row = await transaction.fetchrow(
        EXTEND,
        [stream for stream, _, _ in appends],
        [expected for _, expected, _ in appends],
        [len(payloads) for _, _, payloads in appends],
        [stream for stream, _, _ in events],
        [version for _, version, _ in events],
        ["test.v1.Happened"] * len(events),
        b"".join(payload for _, _, payload in events),
        list(accumulate(lengths, initial=1))[:-1],
        lengths,
    )
    assert row is not None
    transaction.own_tx = row["own_tx"]
    return LogPosition(row["tx"], row["last_position"])


async def test_new_and_known_streams_grow_in_one_call(database: Database, event_store: PostgresEventStore) -> None:
    await event_store.commit([Commit.single("a", 0, EVENT)])
    async with database.transaction() as transaction:
        position = await extend(transaction, ("a", 1, [b"one", b"", b"three"]), ("b", 0, [b"four"]))
    found = await event_store.read_streams(["a", "b"])
    assert [(event.version, event.payload, event.metadata) for event in found["a"]] == [
        (1, b"x", b""), (2, b"one", b""), (3, b"", b""), (4, b"three", b""),
    ]  # fmt: skip
    assert [event.payload for event in found["b"]] == [b"four"]
    assert position == found["b"][-1].position
    assert await event_store.heads(["a", "b"]) == {"a": 4, "b": 1}
    # Both ways of appending keep the same heads.
    (outcome,) = await event_store.commit([Commit((StreamAppend("a", 4, (EVENT,)), StreamAppend("b", 1, (EVENT,))))])
    assert isinstance(outcome, LogPosition)


@pytest.mark.parametrize("expected", [0, 2])
async def test_a_head_that_is_elsewhere_fails_the_whole_call(database: Database, event_store: PostgresEventStore, expected: int) -> None:
    await event_store.commit([Commit.single("a", 0, EVENT)])
    with pytest.raises(AbortedError):
        async with database.transaction() as transaction:
            await extend(transaction, ("a", expected, [b"y"]), ("b", 0, [b"y"]))
    assert await event_store.heads(["a", "b"]) == {"a": 1, "b": 0}


async def test_a_missing_head_is_no_new_stream_unless_its_writer_says_so(database: Database) -> None:
    with pytest.raises(AbortedError):
        async with database.transaction() as transaction:
            await extend(transaction, ("a", 3, [b"y"]))


async def test_the_order_holds_over_a_chain_of_inversions(database: Database, event_store: PostgresEventStore) -> None:
    """Transactions take their ids in one order and write in the other; each reads what the one before left."""
    async with database.transaction() as first:
        await first.pin()
        async with database.transaction() as second:
            await second.pin()
            await event_store.commit([Commit.single("a", 0, EVENT)])
            await extend(second, ("a", 1, [b"x"]), ("b", 0, [b"x"]))
        position = await extend(first, ("b", 1, [b"x"]), ("c", 0, [b"x"]))
        assert first.own_tx is not None
        assert position.tx > first.own_tx
    await event_store.commit([Commit.single("c", 1, EVENT)])
    events = await event_store.read_after(LOG_START, 10)
    assert [(event.stream_id, event.version) for event in events] == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]
