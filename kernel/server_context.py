"""What a handler knows about the call that it serves, besides the request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar

from kernel.errors import Reason, UnauthenticatedError
from kernel.identity import Identity, User

NO_DEADLINE = float("inf")
REPLAYED_HEADER = "idempotency-replayed"
"""Initial metadata of an answer that repeats the first one to the same key; its value is `true`."""
_ODD = frozenset("13579bdf")


class CallContext:
    """One call: who, until when, and what the answer carries besides its message.

    Attributes:
        identity: the authenticated peer and user.
        method: the RPC's path, `/package.Service/Method`.
        deadline: the moment at which the caller stops waiting, in seconds of `monotonic`; infinite on streams without one.
        trace_id: 32 hex digits, for logs.
        traceparent: what goes on to the next service (W3C Trace Context).
        draining: set when the server is about to stop; streams end in good order then.
        batch_size: for the canonical log line; a handler sets it where it served many items at once.
    """

    __slots__ = ("_monotonic", "batch_size", "deadline", "draining", "identity", "initial_metadata", "method", "trace_id", "traceparent")

    def __init__(
        self,
        identity: Identity,
        *,
        method: str = "",
        deadline: float = NO_DEADLINE,
        trace_id: str = "",
        traceparent: str = "",
        draining: asyncio.Event | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self.method = method
        self.deadline = deadline
        self.trace_id = trace_id
        self.traceparent = traceparent
        self.draining = draining
        self.batch_size = 0
        self.initial_metadata: tuple[tuple[str, str], ...] = ()
        self._monotonic = monotonic

    @property
    def user(self) -> User:
        """Return the user.

        Raises:
            UnauthenticatedError: the call carries none; a method whose policy requires a user never sees this.
        """
        user = self.identity.user
        if user is None:
            raise UnauthenticatedError(Reason.USER_UNAUTHENTICATED, "the method requires a user")
        return user

    @property
    def sampled(self) -> bool:
        """Return whether the call's trace is recorded (W3C Trace Context, the last bit of the flags)."""
        return self.traceparent[-1:] in _ODD

    def remaining_seconds(self) -> float:
        """Return the time that is left, 0 or more, infinite without a deadline."""
        return max(self.deadline - self._monotonic(), 0.0)

    def set_initial_metadata(self, key: str, value: str) -> None:
        """Send a header with the answer. Initial metadata, because HTTP/1.1 clients lose trailers."""
        self.initial_metadata = (*self.initial_metadata, (key, value))

    def mark_replayed(self) -> None:
        """Say that the answer is the first one to the same key again."""
        self.set_initial_metadata(REPLAYED_HEADER, "true")

    def take_initial_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the headers set so far and forget them, because they go out once."""
        taken, self.initial_metadata = self.initial_metadata, ()
        return taken


current_call: ContextVar[CallContext | None] = ContextVar("current_call", default=None)
"""The call that the running task serves; outbound calls take their deadline and trace from it. None in background work."""
