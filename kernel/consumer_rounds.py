"""Puts a topic's rounds together from its partitions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernel.bus.port import READ_MESSAGES_MAX, BusMessage
from kernel.ports import RecordedEvent


class Rounds:
    """Collects messages until every partition has told a round.

    Args:
        tails: the last message of each partition that needs no telling any more.
    """

    def __init__(self, tails: Mapping[int, int]) -> None:
        self.after = dict(tails)
        self._messages: dict[int, list[BusMessage]] = {}

    def add(self, messages: Sequence[BusMessage]) -> bool:
        """Add messages; False if one is missing before one of them, or the rounds' parts drift apart without end."""
        for message in messages:
            if message.sequence != self.after[message.partition] + 1:
                return False
            self.after[message.partition] = message.sequence
            self._messages.setdefault(message.sequence, []).append(message)
        return len(self._messages) <= 2 * READ_MESSAGES_MAX

    def take(self) -> list[RecordedEvent] | None:
        """Return the events of all rounds that are complete now, in log order within a round, and forget them; None if none is."""
        events: list[RecordedEvent] = []
        complete = False
        for sequence in sorted(self._messages):
            if any(after < sequence for after in self.after.values()):
                break
            parts = self._messages.pop(sequence)
            events += sorted((event for part in parts for event in part.events), key=lambda event: event.position)
            complete = True
        return events if complete else None
