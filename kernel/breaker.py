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
from kernel.telemetry import Sample

_STATE_VALUES = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}


def is_outage(error: BaseException) -> bool:
    """Say whether an error means that the other side does not work, as opposed to an answer that we do not like."""
    if isinstance(error, TrademeshError):
        return isinstance(error, (UnavailableError, OutcomeUnknownError))
    return not isinstance(error, asyncio.CancelledError)


class _Openings(pybreaker.CircuitBreakerListener):
    """Counts how often a breaker has opened."""

    def __init__(self) -> None:
        self.count = 0

    def state_change(
        self, cb: pybreaker.CircuitBreaker, old_state: pybreaker.CircuitBreakerState | None, new_state: pybreaker.CircuitBreakerState
    ) -> None:
        self.count += new_state.name == pybreaker.STATE_OPEN


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
        self._openings = _Openings()
        self._refused = 0
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures_max,
            reset_timeout=reset_seconds,
            exclude=[self._is_no_failure],
            state_storage=self._storage,
            name=name,
            throw_new_error_on_trip=False,
            listeners=[self._openings],
        )

    @property
    def state(self) -> str:
        """Return `closed`, `open` or `half-open`."""
        state: str = self._breaker.current_state
        return state

    def samples(self) -> list[Sample]:
        """Return its metrics: state (0 closed, 1 half-open, 2 open), how often it has opened, and how many calls it has refused."""
        labels = (("breaker", self.name),)
        return [
            Sample("breaker_state", _STATE_VALUES[self.state], labels),
            Sample("breaker_openings_total", self._openings.count, labels),
            Sample("breaker_refusals_total", self._refused, labels),
        ]

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
        self._refused += 1
        return UnavailableError(
            self._reason,
            f"{self.name} failed repeatedly; not asked again yet",
            metadata={"breaker": self.name, "state": self.state},
            retry_after_seconds=self._reset_seconds,
        )
