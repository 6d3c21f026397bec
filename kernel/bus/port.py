"""What a bus does for relays and consumers, whatever carries it.

A topic is one service's log. The relay publishes it in rounds: a round has a number, contiguous for ever, and one message in each
partition, with the round's events of that partition, none or many. Events belong to partitions by stream, and stand in log order.
So a consumer knows at each message whether it missed one, and how far the log has been told when it has a whole round.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kernel.errors import TrademeshError
from kernel.event_records import from_position, from_record, to_position, to_record
from kernel.ports import LogPosition, RecordedEvent
from trademesh.type.v1 import event_log_service_pb2

PARTITIONS = 4
MESSAGES_KEPT = 512
"""Messages that a partition keeps; a consumer that is further behind reads the log."""

ROUND_EVENTS_MAX = 500
READ_MESSAGES_MAX = 64


def partition_of(stream_id: str, partitions: int) -> int:
    """Return the partition of a stream: CRC-32 (ISO 3309) of its id, modulo the number of partitions."""
    return zlib.crc32(stream_id.encode()) % partitions


@dataclass(frozen=True, slots=True)
class BusMessage:
    """One partition's part of one round. After it, the partition has told the log up to `through`."""

    partition: int
    sequence: int
    through: LogPosition
    events: tuple[RecordedEvent, ...]


class SequenceTakenError(TrademeshError):
    """Somebody else has published this round, or a later one: this relay is not the topic's owner any more, or its memory is older."""


class BusPublisher(Protocol):
    """The relay's half."""

    async def publish(self, topic: str, sequence: int, through: LogPosition, events: Sequence[RecordedEvent]) -> None:
        """Publish a round of at most 500 events, in log order, to all partitions at once.

        Raises:
            SequenceTakenError: the round's number is not above the topic's last.
            UnavailableError: the bus does not answer or is full; publish again, or later.
        """
        ...

    async def last_sequence(self, topic: str) -> int:
        """Return the number of the topic's last round, 0 for an empty topic.

        Raises:
            UnavailableError: the bus does not answer.
        """
        ...


class BusReader(Protocol):
    """The consumer's half."""

    async def tails(self, topic: str) -> dict[int, int]:
        """Return the number of the last message of every partition, 0 for empty ones.

        Raises:
            UnavailableError: the bus does not answer.
        """
        ...

    async def read(self, topic: str, after: Mapping[int, int], wait_seconds: float) -> list[BusMessage]:
        """Return messages after the given number of each partition, in order within a partition; at most 64 of each.

        Waits at most `wait_seconds` while there is none. The first message of a partition may follow a gap: old messages are dropped,
        and a flushed bus begins anew.

        Raises:
            UnavailableError: the bus does not answer.
        """
        ...


def encode(through: LogPosition, events: Sequence[RecordedEvent]) -> bytes:
    """Return a message's content."""
    message = event_log_service_pb2.SubscribeEventsResponse(events=[to_record(event) for event in events], next=to_position(through))
    return message.SerializeToString()


def decode(partition: int, sequence: int, content: bytes) -> BusMessage:
    """Return the message of a content.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    message = event_log_service_pb2.SubscribeEventsResponse.FromString(content)
    return BusMessage(partition, sequence, from_position(message.next), tuple(from_record(record) for record in message.events))


def split(events: Sequence[RecordedEvent], partitions: int) -> list[list[RecordedEvent]]:
    """Return the events by partition, order kept."""
    split_events: list[list[RecordedEvent]] = [[] for _ in range(partitions)]
    for event in events:
        split_events[partition_of(event.stream_id, partitions)].append(event)
    return split_events
