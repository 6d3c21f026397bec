"""Puts a topic's rounds together from its partitions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernel.bus.port import READ_MESSAGES_MAX, BusMessage
from kernel.ports import LogPosition, RecordedEvent


@dataclass(frozen=True, slots=True)
class CompleteRounds:
    """The events of whole rounds, in log order, and how far the log was told by them."""

    events: list[RecordedEvent]
    through: LogPosition


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

    def take(self) -> CompleteRounds | None:
        """Return all rounds that are complete now and forget them; None if none is."""
        events: list[RecordedEvent] = []
        through: LogPosition | None = None
        for sequence in sorted(self._messages):
            if any(after < sequence for after in self.after.values()):
                break
            parts = self._messages.pop(sequence)
            events += sorted((event for part in parts for event in part.events), key=lambda event: event.position)
            through = parts[0].through
        return None if through is None else CompleteRounds(events, through)
