"""What a batch of commits means, apart from any store: its form, and the fold that decides which commits hold."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

from kernel.errors import StaleVersionError
from kernel.ports import (
    EVENT_TYPE_LENGTH_MAX,
    METADATA_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    STREAM_ID_LENGTH_MAX,
    Commit,
    RecordedEvent,
    StreamAppend,
)

COMMITS_MAX = 4_096
EVENTS_MAX = 16_384
VERSION_MAX = 2**31 - 1


def check_batch(commits: Sequence[Commit]) -> None:
    """Check the form of a batch before anything is locked.

    Raises:
        ValueError: no streams or events, a stream twice in a commit, a bound exceeded; a bug of the caller.
    """
    if len(commits) > COMMITS_MAX:
        raise ValueError(f"more than {COMMITS_MAX} commits in a batch: {len(commits)}")
    events = 0
    for commit in commits:
        appends = commit.appends
        if not appends:
            raise ValueError("a commit needs at least one stream")
        if len(appends) > 1 and len({append.stream_id for append in appends}) != len(appends):
            raise ValueError("a commit names each stream once")
        for append in appends:
            _check_append(append)
            events += len(append.events)
    if events > EVENTS_MAX:
        raise ValueError(f"more than {EVENTS_MAX} events in a batch: {events}")


def _check_append(append: StreamAppend) -> None:
    if not 0 < len(append.stream_id) <= STREAM_ID_LENGTH_MAX or not append.stream_id.isascii():
        raise ValueError(f"stream id must be 1 to {STREAM_ID_LENGTH_MAX} ASCII characters")
    if not append.events:
        raise ValueError(f"an append to {append.stream_id} needs at least one event")
    if not 0 <= append.expected_version <= VERSION_MAX - len(append.events):
        raise ValueError(f"expected version out of range: {append.expected_version}")
    for event in append.events:
        if not 0 < len(event.type) <= EVENT_TYPE_LENGTH_MAX:
            raise ValueError(f"event type must be 1 to {EVENT_TYPE_LENGTH_MAX} characters")
        if len(event.payload) > PAYLOAD_BYTES_MAX or len(event.metadata) > METADATA_BYTES_MAX:
            raise ValueError(f"event {event.type} is too large: {len(event.payload)} and {len(event.metadata)} bytes")


def fold_commit(heads: MutableMapping[str, int], commit: Commit) -> StaleVersionError | None:
    """Apply one commit to the heads, all of it or nothing; return why it does not hold."""
    for append in commit.appends:
        actual = heads.get(append.stream_id, 0)
        if actual != append.expected_version:
            return StaleVersionError(append.stream_id, append.expected_version, actual)
    for append in commit.appends:
        heads[append.stream_id] = append.expected_version + len(append.events)
    return None


def group_by_stream(events: Sequence[RecordedEvent]) -> Mapping[str, list[RecordedEvent]]:
    """Return the events by stream, order kept."""
    grouped: dict[str, list[RecordedEvent]] = {}
    for event in events:
        grouped.setdefault(event.stream_id, []).append(event)
    return grouped
