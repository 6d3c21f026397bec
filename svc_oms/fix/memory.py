"""FIX session rows in memory, for tests and simulations. The transaction is whatever the caller uses; it is not looked at."""

from __future__ import annotations

from collections.abc import Sequence

from kernel.fix.steps import ResendRange, Sequences, StoredMessage
from svc_oms.fix.ports import SessionChange


class MemoryVenueSessionStore:
    """Sessions by name. `save` is atomic: it checks before it changes anything."""

    def __init__(self) -> None:
        self._sequences: dict[str, Sequences] = {}
        self._messages: dict[str, dict[int, StoredMessage]] = {}

    async def load(self, transaction: object, session: str) -> Sequences:
        """See `VenueSessionStore.load`."""
        return self._sequences.get(session, Sequences())

    async def save(self, transaction: object, session: str, change: SessionChange) -> None:
        """See `VenueSessionStore.save`. Raises ValueError where a number exists already or the next numbers would fall."""
        before, messages = self._sequences.get(session, Sequences()), self._messages.setdefault(session, {})
        after = change.sequences
        if after.next_in < before.next_in or after.next_out < before.next_out:
            raise ValueError(f"session {session} would fall back from {before} to {after}")
        if any(message.sequence in messages or message.sequence >= after.next_out for message in change.stored):
            raise ValueError(f"session {session} would use a number twice")
        messages.update((message.sequence, message) for message in change.stored)
        self._sequences[session] = after

    async def messages(self, transaction: object, session: str, wanted: ResendRange) -> Sequence[StoredMessage]:
        """See `VenueSessionStore.messages`."""
        messages = self._messages.get(session, {})
        return [messages[number] for number in sorted(messages) if wanted.begin <= number <= wanted.end]
