"""What the FIX connection needs of its host, and what it hands over. Plain values; the store makes them durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from kernel.fix.steps import AppMessage, ResendRange, Sequences, Step, StoredMessage
from svc_oms.fix.reports import InboundReport

Transaction = TypeVar("Transaction", contravariant=True)


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What a step changes in the rows of a FIX session: the next numbers, and messages that now have one."""

    sequences: Sequences
    stored: tuple[StoredMessage, ...] = ()

    @classmethod
    def of(cls, step: Step) -> SessionChange:
        """The change that a session's step asks for."""
        return cls(step.sequences, tuple(step.stored))


@dataclass(frozen=True, slots=True)
class InboundBatch:
    """Everything that one read from the socket brought, in order; `reports` is empty where only the numbers moved.

    `confirmed_sequence` is the highest number of ours that the venue was known to have processed before this read: see
    `routing.is_evidence`.
    """

    reports: tuple[InboundReport, ...]
    change: SessionChange
    confirmed_sequence: int


class VenueSessionStore(Protocol[Transaction]):
    """The rows `fix_session(session, next_in, next_out)` and `fix_message(session, seq, msg_type, order_id, body, sent_time)`.

    Every method takes part in the caller's transaction, which has asserted the lease before (`Leases.assert_held`).
    """

    async def load(self, transaction: Transaction, session: str) -> Sequences:
        """The next numbers; 1 and 1 for a session that was never used."""
        ...

    async def save(self, transaction: Transaction, session: str, change: SessionChange) -> None:
        """Insert the messages and set the numbers. A number that exists already is a bug: fail, never overwrite."""
        ...

    async def messages(self, transaction: Transaction, session: str, wanted: ResendRange) -> Sequence[StoredMessage]:
        """The stored messages of the range, ascending by number."""
        ...


class SessionHost(Protocol):
    """Who owns the store. Each method is one transaction under the session's lease.

    Any error ends the connection; the next one starts from `load`. LeaseLostError ends the session for this process.
    """

    async def load(self) -> Sequences:
        """The session's next numbers. The first call of each connection."""
        ...

    async def on_reports(self, batch: InboundBatch) -> None:
        """Commit what the reports mean together with `batch.change`, all or nothing.

        `next_in` never passes a report that is not recorded: reports that fit no rule are recorded too, as anomalies.
        """
        ...

    async def messages_to_resend(self, wanted: ResendRange) -> Sequence[StoredMessage]:
        """The stored messages of the range that `routing.resend` keeps, ascending; the rest is gap-filled."""
        ...


Number = Callable[[Sequence[AppMessage]], SessionChange]
"""Gives messages their sequence numbers: to be called at most once inside a transaction that then persists the change."""

Persist = Callable[[Number], Awaitable[None]]
"""A transaction that decides which messages go out (under the locks of their orders and of the kill switch), numbers and stores them."""
