"""Rows of the FIX sessions to venues. Every method takes part in a transaction that has asserted the session's lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kernel.fix.steps import ResendRange, Sequences, StoredMessage
from kernel.postgres import Transaction

MESSAGES_KEPT = 100_000
"""Messages that can be resent. Older ones are gap-filled, as stale orders are anyway; states are then asked for one by one."""

_LOAD = "SELECT next_in, next_out FROM fix_session WHERE session = $1"
_SAVE = """
INSERT INTO fix_session AS held (session, next_in, next_out) VALUES ($1, $2, $3)
ON CONFLICT (session) DO UPDATE SET next_in = excluded.next_in, next_out = excluded.next_out
    WHERE held.next_in <= excluded.next_in AND held.next_out <= excluded.next_out
RETURNING next_in
"""
_STORE = """
INSERT INTO fix_message (session, sequence, msg_type, order_id, body, sent_time)
SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::text[])
"""
_MESSAGES = """
SELECT sequence, msg_type, body, sent_time, order_id FROM fix_message
WHERE session = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence
"""
_PURGE = "DELETE FROM fix_message WHERE session = $1 AND sequence < (SELECT next_out - $2 FROM fix_session WHERE session = $1)"


class Change(Protocol):
    """What a step of the session changes: the next numbers, and messages that now have one."""

    @property
    def sequences(self) -> Sequences:
        """The next numbers, in and out."""
        ...

    @property
    def stored(self) -> tuple[StoredMessage, ...]:
        """The messages."""
        ...


class FixSessions:
    """The sessions' rows (`svc_oms.fix.ports.VenueSessionStore`)."""

    async def load(self, transaction: Transaction, session: str) -> Sequences:
        """Return the next numbers; 1 and 1 for a session that was never used."""
        row = await transaction.fetchrow(_LOAD, session)
        return Sequences() if row is None else Sequences(row["next_in"], row["next_out"])

    async def save(self, transaction: Transaction, session: str, change: Change) -> None:
        """Insert the messages and set the numbers.

        Raises:
            AlreadyExistsError: a message has a number that was given before; a bug.
            AssertionError: a number would go back; a bug.
        """
        sequences, stored = change.sequences, change.stored
        if stored:
            await transaction.execute(
                _STORE,
                session,
                [message.sequence for message in stored],
                [message.msg_type for message in stored],
                [message.reference for message in stored],
                [message.body for message in stored],
                [message.sent_time for message in stored],
            )
        saved = await transaction.fetchval(_SAVE, session, sequences.next_in, sequences.next_out)
        assert saved is not None, f"numbers of session {session} would go back to {sequences}"

    async def messages(self, transaction: Transaction, session: str, wanted: ResendRange) -> Sequence[StoredMessage]:
        """Return the stored messages of the range, ascending by number."""
        rows = await transaction.fetch(_MESSAGES, session, wanted.begin, wanted.end)
        return [StoredMessage(row["sequence"], row["msg_type"], row["body"], row["sent_time"], row["order_id"]) for row in rows]

    async def purge(self, transaction: Transaction, session: str) -> None:
        """Delete messages that are too old to be resent."""
        await transaction.execute(_PURGE, session, MESSAGES_KEPT)
