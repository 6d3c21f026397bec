"""What happens to a call before its request is looked at: capacity, identity, authorization, deadline, trace. No I/O, no await."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kernel.errors import DeadlineExceededError, Reason, ResourceExhaustedError, UnauthenticatedError, UnavailableError
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, TRUSTED_HEADERS, Authenticator
from kernel.retry_hints import Spread
from kernel.server_context import NO_DEADLINE, CallContext
from kernel.server_policy import BoundMethod
from kernel.status import Refusal, refusal_of

RETRY_AFTER_SECONDS = 0.25
"""The least that a shed caller is told, and twice that the most; long enough for a queue of this size to drain."""
HINTS = 16
"""How many different waiting times a lane tells its shed callers, in turn."""

Metadata = Sequence[tuple[str, Any]]

# Checked whole, because the id in it is written into logs as it is.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
# Ids only have to differ; a system call for each would cost more than the rest of the admission.
_trace_bits = random.Random(random.SystemRandom().getrandbits(128)).getrandbits


class Lane:
    """Places for calls in progress. Lanes keep one kind of work from starving another."""

    __slots__ = ("_refusals", "_turn", "limit", "name", "running", "shed_total")

    def __init__(self, name: str, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"lane {name} needs at least one place")
        self.name = name
        self.limit = limit
        self.running = 0
        self.shed_total = 0
        self._refusals: tuple[Refusal, ...] = ()
        self._turn = 0

    def enter(self) -> bool:
        """Take a place; False when none is free."""
        if self.running >= self.limit:
            self.shed_total += 1
            return False
        self.running += 1
        return True

    def refusal(self) -> Refusal:
        """Return what the next shed caller is told. Serialized beforehand: what costs as much as an answer sheds nothing."""
        if not self._refusals:
            self._refusals = tuple(refusal_of(error) for error in self._overloaded())
        self._turn = (self._turn + 1) % HINTS
        return self._refusals[self._turn]

    def _overloaded(self) -> Iterator[ResourceExhaustedError]:
        spread = Spread()
        for _ in range(HINTS):
            yield ResourceExhaustedError(
                Reason.OVERLOADED,
                f"the service already handles {self.limit} calls of this kind",
                metadata={"subject": f"lane:{self.name}"},
                retry_after_seconds=spread.seconds(RETRY_AFTER_SECONDS),
            )

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1


class Admission:
    """Decides whether a call may begin, and returns its context."""

    def __init__(self, authenticator: Authenticator, *, draining: asyncio.Event, stream_seconds_max: float) -> None:
        self._authenticator = authenticator
        self._draining = draining
        self._stream_seconds_max = stream_seconds_max

    def admit(self, method: BoundMethod, metadata: Metadata, remaining: float | None, *, traced: bool) -> CallContext:
        """Return the context of a call that may begin. `remaining` is the caller's patience in seconds, None without a deadline.

        Raises:
            UnauthenticatedError, PermissionDeniedError: see `Authenticator` and `MethodPolicy`.
            DeadlineExceededError: DEADLINE_EXPIRED, the caller has stopped waiting already.
            UnavailableError: SHUTTING_DOWN.
        """
        headers = dict(metadata)
        if len(headers) != len(metadata):
            _refuse_doubled(metadata)
        get = headers.get
        identity = self._authenticator.authenticate(get(SECRET_HEADER, ""), get(PEER_HEADER, ""), get(CLAIMS_HEADER, ""))
        method.policy.authorize(identity)
        if self._draining.is_set():
            raise UnavailableError(Reason.SHUTTING_DOWN, "the service is draining", retry_after_seconds=RETRY_AFTER_SECONDS)
        traceparent = get("traceparent", "")
        if traced:
            from kernel.telemetry_traces import current_traceparent

            traceparent = current_traceparent()
        if _TRACEPARENT.fullmatch(traceparent) is None:
            traceparent = new_traceparent()
        return CallContext(
            identity,
            method=method.path,
            deadline=self._deadline(method, remaining),
            trace_id=traceparent[3:35],
            traceparent=traceparent,
            draining=self._draining,
        )

    def _deadline(self, method: BoundMethod, remaining: float | None) -> float:
        if remaining is None:
            remaining = NO_DEADLINE
        elif remaining <= 0:
            raise DeadlineExceededError(Reason.DEADLINE_EXPIRED, "the deadline passed before the work began")
        streaming = method.client_streaming or method.server_streaming
        return time.monotonic() + min(remaining, self._stream_seconds_max if streaming else method.policy.timeout_seconds)


def new_traceparent() -> str:
    """Return a fresh, unsampled W3C traceparent, so that the logs of one call share an id although nobody records spans."""
    digits = f"{_trace_bits(192):048x}"
    return f"00-{digits[:32]}-{digits[32:]}-00"


def _refuse_doubled(metadata: Metadata) -> None:
    """Headers that grant identity come once; a second one would be a caller's attempt to add his own."""
    keys = [key for key, _ in metadata]
    doubled = [key for key in TRUSTED_HEADERS if keys.count(key) > 1]
    if doubled:
        raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, f"{', '.join(doubled)} must come exactly once")
