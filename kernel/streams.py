"""Server streams in the envelope of `trademesh.type.v1`: snapshot, event, heartbeat, resync, end.

A service says what the snapshot is and hands in events; sequences, resume tokens, heartbeats, the slow consumer's resync and the in-band
end are made here, once. Delivery is at least once after a token; nothing is dropped without a `resync` that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from kernel.config import Secret
from kernel.errors import (
    DeadlineExceededError,
    FieldViolation,
    InvalidArgumentError,
    Reason,
    TrademeshError,
    UnauthenticatedError,
    UnavailableError,
)
from kernel.identity import User
from kernel.ports import Clock
from kernel.server_context import CallContext
from kernel.status import to_status
from kernel.tokens import TokenError, TokenSealer
from trademesh.type.v1 import stream_pb2

MAILBOX_MESSAGES_MAX = 1_024
HEARTBEAT_SECONDS = 5.0
END_SECONDS = 0.5
"""How long before a stream's deadline it ends itself, so that the last message still arrives."""

_RESYNC_SLOW = stream_pb2.STREAM_RESYNC_REASON_SLOW_CONSUMER
_RESYNC_EXPIRED = stream_pb2.STREAM_RESYNC_REASON_TOKEN_EXPIRED


class Envelope(Protocol):
    """A stream's response message: `oneof {snapshot, event, heartbeat, resync, end}` and these three fields."""

    sequence: int
    resume_token: str

    @property
    def server_time(self) -> Timestamp: ...
    @property
    def heartbeat(self) -> stream_pb2.StreamHeartbeat: ...
    @property
    def resync(self) -> stream_pb2.StreamResync: ...
    @property
    def end(self) -> stream_pb2.StreamEnd: ...


E = TypeVar("E", bound=Envelope)


@dataclass(frozen=True, slots=True)
class Item(Generic[E]):
    """A message to send, with its payload set, and the place in the source after which a resumed stream goes on (128 characters)."""

    message: E
    position: str


class PositionExpiredError(Exception):
    """A source cannot go on after a position; the stream tells its client and begins with a snapshot."""


class Source(Protocol[E]):
    """Where a stream's messages come from. One per stream."""

    def snapshot(self, mailbox: Mailbox[E]) -> AsyncIterator[Item[E]]:
        """Yield the snapshot's messages, after arranging that every later event reaches the mailbox."""
        ...

    async def resume(self, position: str, mailbox: Mailbox[E]) -> None:
        """Arrange that every event after the position reaches the mailbox.

        Raises:
            PositionExpiredError: the source no longer has all of them.
        """
        ...

    async def close(self) -> None:
        """Stop filling the mailbox."""
        ...


class Mailbox(Generic[E]):
    """What waits for one client, at most 1,024 messages. Full, it empties itself and asks for a resync, once, instead of dropping some."""

    def __init__(self, limit: int = MAILBOX_MESSAGES_MAX) -> None:
        if limit < 1:
            raise ValueError("a mailbox holds at least one message")
        self._limit = limit
        self._items: deque[Item[E]] = deque()
        self._filled = asyncio.Event()
        self._failure: TrademeshError | None = None
        self.resync_reason: stream_pb2.StreamResyncReason.ValueType | None = None

    def put(self, item: Item[E]) -> bool:
        """Add a message; False if the client is too slow and gets a snapshot instead, so the source may stop until it is asked again."""
        if self.resync_reason is not None:
            return False
        if len(self._items) >= self._limit:
            self.request_resync(_RESYNC_SLOW)
            return False
        self._items.append(item)
        self._filled.set()
        return True

    def request_resync(self, reason: stream_pb2.StreamResyncReason.ValueType) -> None:
        """Replace everything that waits by a snapshot: the source had a gap, or the client is too slow."""
        self._items.clear()
        self.resync_reason = reason
        self._filled.set()

    def fail(self, error: TrademeshError) -> None:
        """End the stream with an error once what waits is sent; the source cannot go on."""
        self._failure = error
        self._filled.set()

    def begin_anew(self) -> None:
        """Forget the resync; a snapshot follows."""
        self._items.clear()
        self.resync_reason = None

    async def take(self, timeout_seconds: float) -> Item[E] | None:
        """Return the next message; None after the timeout, or when a resync is due.

        Raises:
            TrademeshError: the source failed.
        """
        if not self._items and self.resync_reason is None and self._failure is None:
            self._filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._filled.wait()
        if self.resync_reason is not None:
            return None
        if self._items:
            return self._items.popleft()
        if self._failure is not None:
            raise self._failure
        return None

    def wake(self) -> None:
        """Let `take` return early."""
        self._filled.set()


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a stream goes on: the sequence of the last message seen, and the source's place after it."""

    sequence: int
    position: str


class ResumeTokens:
    """Resume tokens of one deployment, bound to stream, user and filter."""

    def __init__(self, key: Secret) -> None:
        self._sealer = TokenSealer(key, "resume")

    def issue(self, stream: str, user: User, filters: tuple[str, ...], point: ResumePoint) -> str:
        """Return the token that goes on after a point."""
        return self._sealer.seal(f"{point.sequence}:{point.position}".encode(), (stream, user.tenant, user.principal, *filters))

    def read(self, stream: str, user: User, filters: tuple[str, ...], token: str) -> ResumePoint | None:
        """Return the point of a token; None for an empty one, which begins with a snapshot.

        Raises:
            InvalidArgumentError: RESUME_TOKEN_INVALID, the token is not one of this stream, user and filter.
        """
        if not token:
            return None
        try:
            sequence, _, position = self._sealer.open(token, (stream, user.tenant, user.principal, *filters)).decode().partition(":")
            return ResumePoint(int(sequence), position)
        except (TokenError, ValueError):
            text = "is not a resume token of this stream, user and filter"
            violation = FieldViolation("resume_token", "resume_token", text)
            raise InvalidArgumentError(Reason.RESUME_TOKEN_INVALID, f"resume_token {text}", field_violations=(violation,)) from None


class EnvelopeStream(Generic[E]):
    """One client's stream.

    Args:
        envelope: the response message's class.
        source: where messages come from.
        context: the call; its deadline, its user's token and the server's drain end the stream, in good order and with a reason.
        tokens: seals resume tokens.
        clock: wall time for `server_time` and token expiry, monotonic time for heartbeats.
        filters: all the request's texts that select messages.
        heartbeat_seconds: between heartbeats while nothing else moves.
        mailbox_messages_max: that may wait for this client.
    """

    def __init__(
        self,
        envelope: Callable[[], E],
        source: Source[E],
        context: CallContext,
        tokens: ResumeTokens,
        clock: Clock,
        *,
        filters: tuple[str, ...],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        mailbox_messages_max: int = MAILBOX_MESSAGES_MAX,
    ) -> None:
        self._envelope = envelope
        self._source = source
        self._context = context
        self._tokens = tokens
        self._clock = clock
        self._filters = filters
        self._heartbeat_seconds = heartbeat_seconds
        self._mailbox: Mailbox[E] = Mailbox(mailbox_messages_max)
        self._sequence = 0
        self._position = ""

    async def run(self, resume_token: str) -> AsyncGenerator[E, None]:
        """Yield the stream's messages; the last one is `end`.

        Raises:
            InvalidArgumentError: RESUME_TOKEN_INVALID, before the first message.
        """
        point = self._tokens.read(self._context.method, self._context.user, self._filters, resume_token)
        drain = asyncio.create_task(self._wake_on_drain())
        try:
            async for message in self._messages(point):
                yield message
        except TrademeshError as error:
            yield self._end(to_status(error))
        finally:
            drain.cancel()
            await self._source.close()

    async def _messages(self, point: ResumePoint | None) -> AsyncIterator[E]:
        if point is not None:
            self._sequence, self._position = point.sequence, point.position
        if not self._position:
            # A new stream, or one that ended before it had shown anything that counts.
            self._mailbox.request_resync(stream_pb2.STREAM_RESYNC_REASON_UNSPECIFIED)
        else:
            try:
                await self._source.resume(self._position, self._mailbox)
            except PositionExpiredError:
                self._mailbox.request_resync(_RESYNC_EXPIRED)
        while True:
            reason = self._mailbox.resync_reason
            if reason is not None:
                self._mailbox.begin_anew()
                if reason != stream_pb2.STREAM_RESYNC_REASON_UNSPECIFIED:
                    yield self._resync(reason)
                async for item in self._source.snapshot(self._mailbox):
                    yield self._numbered(item)
            taken = await self._mailbox.take(self._wait_seconds())
            self._check_time()
            if taken is not None:
                yield self._numbered(taken)
            elif self._mailbox.resync_reason is None:
                yield self._heartbeat()

    def _wait_seconds(self) -> float:
        token_seconds = self._context.user.expires_at - self._clock.now_ns() / 1e9
        return max(min(self._heartbeat_seconds, self._context.remaining_seconds() - END_SECONDS, token_seconds), 0.0)

    def _check_time(self) -> None:
        context = self._context
        if context.draining is not None and context.draining.is_set():
            raise UnavailableError(Reason.SHUTTING_DOWN, "the service is draining; resume the stream", retry_after_seconds=0.25)
        if context.user.expires_at <= self._clock.now_ns() / 1e9:
            raise UnauthenticatedError(Reason.TOKEN_EXPIRED, "the user's token has expired; resume with a new one")
        if context.remaining_seconds() <= END_SECONDS:
            raise DeadlineExceededError(Reason.DEADLINE_EXPIRED, "the stream's time is over; resume it")

    async def _wake_on_drain(self) -> None:
        if self._context.draining is not None:
            await self._context.draining.wait()
            self._mailbox.wake()

    def _numbered(self, item: Item[E]) -> E:
        self._sequence += 1
        self._position = item.position
        return self._stamped(item.message)

    def _stamped(self, message: E) -> E:
        point = ResumePoint(self._sequence, self._position)
        message.sequence = self._sequence
        message.resume_token = self._tokens.issue(self._context.method, self._context.user, self._filters, point)
        message.server_time.FromNanoseconds(self._clock.now_ns())
        return message

    def _heartbeat(self) -> E:
        message = self._envelope()
        message.heartbeat.last_sequence = self._sequence
        return self._stamped(message)

    def _resync(self, reason: stream_pb2.StreamResyncReason.ValueType) -> E:
        message = self._envelope()
        message.resync.reason = reason
        # Whoever resumes from here has dropped what was known, and gets the snapshot that was announced.
        return self._numbered(Item(message, ""))

    def _end(self, status: status_pb2.Status) -> E:
        message = self._envelope()
        message.end.status.CopyFrom(status)
        return self._numbered(Item(message, self._position))


def heartbeat_seconds(interval: Duration) -> float:
    """Return the heartbeat interval that a request asks for; 5 seconds where it asks for none."""
    return interval.ToNanoseconds() / 1e9 or HEARTBEAT_SECONDS
