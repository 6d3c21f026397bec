"""Any batches over any streams: the store's outcomes are those of the plain fold, and the log is consistent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import ManualClock
from kernel.events.memory import MemoryEventStore
from kernel.ports import LOG_START, Commit, LogPosition, NewEvent, StreamAppend

streams = st.sampled_from(["a", "b", "c", "d"])
appends = st.builds(
    lambda stream_id, version, count: StreamAppend(stream_id, version, (NewEvent("x", b""),) * count),
    streams,
    st.integers(0, 4),
    st.integers(1, 2),
)
commits = st.lists(appends, min_size=1, max_size=3, unique_by=lambda append: append.stream_id).map(lambda parts: Commit(tuple(parts)))


@given(st.lists(st.lists(commits, max_size=5), max_size=8))
async def test_batches_are_all_or_nothing_per_commit(batches: list[list[Commit]]) -> None:
    store = MemoryEventStore(ManualClock())
    heads: dict[str, int] = {}
    recorded = 0
    for batch in batches:
        for commit, outcome in zip(batch, await store.commit(batch), strict=True):
            holds = all(heads.get(part.stream_id, 0) == part.expected_version for part in commit.appends)
            assert isinstance(outcome, LogPosition) == holds
            if holds:
                for part in commit.appends:
                    heads[part.stream_id] = part.expected_version + len(part.events)
                    recorded += len(part.events)
    events = await store.read_after(LOG_START, 10_000)
    assert len(events) == recorded
    assert [event.position for event in events] == sorted(event.position for event in events)
    for stream_id, head in heads.items():
        assert [event.version for event in events if event.stream_id == stream_id] == list(range(1, head + 1))
