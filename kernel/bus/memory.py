"""The bus in one process, for tests and simulation. It forgets, drops and refuses like the real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from kernel.bus.port import MESSAGES_KEPT, PARTITIONS, READ_MESSAGES_MAX, BusMessage, SequenceTakenError, decode, encode, split
from kernel.errors import Reason
from kernel.ports import LogPosition, RecordedEvent


class MemoryBus:
    """Topics among the tasks of one event loop."""

    def __init__(self, *, partitions: int = PARTITIONS, messages_kept: int = MESSAGES_KEPT) -> None:
        self._partitions = partitions
        self._messages_kept = messages_kept
        self._topics: dict[str, list[list[tuple[int, bytes]]]] = {}
        self._published = asyncio.Condition()

    async def publish(self, topic: str, sequence: int, through: LogPosition, events: Sequence[RecordedEvent]) -> None:
        """See `BusPublisher.publish`."""
        if sequence <= await self.last_sequence(topic):
            raise SequenceTakenError(Reason.VERSION_STALE, f"round {sequence} of {topic} was published before")
        partitions = self._topics.setdefault(topic, [[] for _ in range(self._partitions)])
        for messages, part in zip(partitions, split(events, self._partitions), strict=True):
            messages.append((sequence, encode(through, part)))
            del messages[: -self._messages_kept]
        async with self._published:
            self._published.notify_all()

    async def last_sequence(self, topic: str) -> int:
        """See `BusPublisher.last_sequence`."""
        return max((await self.tails(topic)).values())

    async def tails(self, topic: str) -> dict[int, int]:
        """See `BusReader.tails`."""
        partitions = self._topics.get(topic) or [[] for _ in range(self._partitions)]
        return {number: messages[-1][0] if messages else 0 for number, messages in enumerate(partitions)}

    async def read(self, topic: str, after: Mapping[int, int], wait_seconds: float) -> list[BusMessage]:
        """See `BusReader.read`."""
        found = self._after(topic, after)
        if not found:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds), self._published:
                    await self._published.wait()
            found = self._after(topic, after)
        return found

    def _after(self, topic: str, after: Mapping[int, int]) -> list[BusMessage]:
        partitions = self._topics.get(topic, [])
        return [
            decode(number, sequence, content)
            for number, messages in enumerate(partitions)
            for sequence, content in [message for message in messages if message[0] > after[number]][:READ_MESSAGES_MAX]
        ]

    async def flush(self) -> None:
        """Lose everything, as a restarted Redis without persistence does."""
        self._topics.clear()
