"""A circuit breaker that opens on asynchronous calls.

pybreaker's decorator sees an `async def` return a coroutine and counts that as success, so it never opens. Here its context manager
surrounds the await itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pybreaker

from kernel.errors import OutcomeUnknownError, Reason, TrademeshError, UnavailableError


def is_outage(error: BaseException) -> bool:
    """Say whether an error means that the other side does not work, as opposed to an answer that we do not like."""
    if isinstance(error, TrademeshError):
        return isinstance(error, (UnavailableError, OutcomeUnknownError))
    return not isinstance(error, asyncio.CancelledError)


class Breaker:
    """Refuses calls at once after repeated failures, and lets one probe through at a time until one succeeds.

    Args:
        name: what is guarded, for messages.
        failures_max: consecutive failures that open it; at least 1.
        reset_seconds: how long it stays open before a probe.
        reason: the reason of its refusals.
        is_failure: which errors count; answers that merely displease do not.
        storage: where pybreaker keeps its state; in memory by default.
    """

    def __init__(
        self,
        name: str,
        *,
        failures_max: int = 5,
        reset_seconds: float = 1.0,
        reason: Reason = Reason.DEPENDENCY_UNAVAILABLE,
        is_failure: Callable[[BaseException], bool] = is_outage,
        storage: pybreaker.CircuitMemoryStorage | None = None,
    ) -> None:
        self.name = name
        self._reason = reason
        self._reset_seconds = reset_seconds
        self._is_failure = is_failure
        self._storage = storage or pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._probing = False
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures_max,
            reset_timeout=reset_seconds,
            exclude=[self._is_no_failure],
            state_storage=self._storage,
            name=name,
            throw_new_error_on_trip=False,
        )

    @property
    def state(self) -> str:
        """Return `closed`, `open` or `half-open`."""
        state: str = self._breaker.current_state
        return state

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Surround a call, awaits included.

        Raises:
            UnavailableError: the breaker is open, or half open with a probe under way; the body did not run.
        """
        if self._probing:
            raise self._refusal()
        failures = self._storage.counter
        self._probing = probe = self._breaker.current_state != pybreaker.STATE_CLOSED
        try:
            with self._breaker.calling():
                yield
        except pybreaker.CircuitBreakerError as error:
            raise self._refusal() from error
        except asyncio.CancelledError:
            # Who stops waiting says nothing about the other side; pybreaker would count it as a success and forget the failures.
            while not probe and self._storage.counter < failures:
                self._storage.increment_counter()
            raise
        finally:
            if probe:
                self._probing = False

    def _is_no_failure(self, error: BaseException) -> bool:
        if isinstance(error, asyncio.CancelledError):
            return not self._probing
        return not self._is_failure(error)

    def _refusal(self) -> UnavailableError:
        return UnavailableError(
            self._reason,
            f"{self.name} failed repeatedly; not asked again yet",
            metadata={"breaker": self.name, "state": self.state},
            retry_after_seconds=self._reset_seconds,
        )
