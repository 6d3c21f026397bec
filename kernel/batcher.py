"""The micro-batcher: while one batch is being written, the next one gathers.

There is no timer: an idle lane flushes at once, a busy one as soon as a flush ends. So batches grow with load, and an idle system pays no
wait.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from kernel.errors import (
    DeadlineExceededError,
    InternalError,
    OutcomeUnknownError,
    Reason,
    ResourceExhaustedError,
    TrademeshError,
    UnavailableError,
)
from kernel.ports import Clock
from kernel.retry_hints import Spread

RETRY_SECONDS_MIN = 0.01
RETRY_SECONDS_MAX = 1.0
"""Bounds of what refused callers are told."""
GATHER_ITEMS_MIN = 8

Item = TypeVar("Item")
Result = TypeVar("Result")
Flush = Callable[[str, Sequence[Item]], Awaitable[Sequence[Result | TrademeshError]]]


@dataclass(frozen=True, slots=True)
class Lane:
    """Bounds of one lane. Lanes share nothing, so one lane's load never delays another's items.

    Attributes:
        batch_size_max: items per flush.
        queue_max: items waiting; more are refused.
        flushes_in_flight_max: flushes under way at once. Above 1, items of two flushes have no order among them.
        wait_seconds_max: items that waited longer when their turn comes are refused instead of served late.
        standing_seconds_max: the same while more waits than one flush takes: a queue that outlasts a flush is load that is not served
            in time anyway, and a shorter one a burst that the next flush takes away (CoDel, RFC 8289). `wait_seconds_max` unless given.
        gather_seconds: after a flush of at least 8 items, how long the next one waits to be filled; 0 for not at all.
    """

    batch_size_max: int = 256
    queue_max: int = 4_096
    flushes_in_flight_max: int = 1
    wait_seconds_max: float = 2.0
    gather_seconds: float = 0.0
    standing_seconds_max: float | None = None

    def __post_init__(self) -> None:
        least = self.wait_seconds_max if self.standing_seconds_max is None else min(self.standing_seconds_max, self.wait_seconds_max)
        positive = min(self.batch_size_max, self.flushes_in_flight_max) >= 1 and least > self.gather_seconds >= 0
        if not positive or self.queue_max < self.batch_size_max:
            raise ValueError(f"bounds must be positive, and the queue hold at least a batch: {self}")


@dataclass(slots=True)
class LaneStatistics:
    """Counters of one lane since the start, for metrics and log lines."""

    items: int = 0
    flushes: int = 0
    refused: int = 0
    expired: int = 0
    batch_size_last: int = 0
    flush_seconds_last: float = 0.0


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item]):
    items: Sequence[Item]
    future: asyncio.Future[list[object]]
    enqueued_at: float
    deadline: float | None


@dataclass(slots=True, eq=False)
class _LaneState(Generic[Item]):
    name: str
    bounds: Lane
    queue: deque[_Entry[Item]] = field(default_factory=deque)
    queued: int = 0
    in_flight: int = 0
    scheduled: bool = False
    hints: Spread = field(default_factory=Spread)
    flushed_at: float = float("-inf")
    statistics: LaneStatistics = field(default_factory=LaneStatistics)


class Batcher(Generic[Item, Result]):
    """Gathers items of many callers and serves each batch with one call.

    Args:
        flush: gets the lane's name and the items in order of arrival, and returns one outcome per item, an error for one that is refused.
            What it raises, every caller of the batch gets. It must bound its own time.
        lanes: the lanes by name.
        clock: for deadlines and waits.
    """

    def __init__(self, flush: Flush[Item, Result], lanes: Mapping[str, Lane], clock: Clock) -> None:
        if not lanes:
            raise ValueError("a batcher needs at least one lane")
        self._flush = flush
        self._clock = clock
        self._lanes = {name: _LaneState[Item](name, bounds) for name, bounds in lanes.items()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def submit(self, lane: str, item: Item, *, deadline: float | None = None) -> Result:
        """Queue one item and return its result. Cancelling the caller before the flush begins takes the item out of the queue.

        Args:
            lane: a configured lane.
            item: what `flush` gets.
            deadline: on the clock's monotonic time, in seconds; an item whose turn comes later is not flushed.

        Raises:
            ResourceExhaustedError: the queue is full, or the item waited too long; nothing was done.
            DeadlineExceededError: the deadline passed before the flush; nothing was done.
            UnavailableError: the batcher is closing; nothing was done.
            OutcomeUnknownError: the flush was cut by a shutdown that ran out of time.
            TrademeshError: what `flush` returned for the item, or raised for its batch.
        """
        (outcome,) = await self._enqueue(self._lanes[lane], (item,), deadline)
        if isinstance(outcome, TrademeshError):
            raise outcome
        return cast("Result", outcome)

    async def submit_many(self, lane: str, items: Sequence[Item], *, deadline: float | None = None) -> list[Result | TrademeshError]:
        """Queue items that travel together, at most a batch of them, and return their outcomes in order; they cost one future.

        Raises:
            ValueError: no items, or more than the lane's `batch_size_max`.
            TrademeshError: as for `submit`, for all items at once.
        """
        if not 1 <= len(items) <= self._lanes[lane].bounds.batch_size_max:
            raise ValueError(f"1 to {self._lanes[lane].bounds.batch_size_max} items travel together, not {len(items)}")
        return cast("list[Result | TrademeshError]", await self._enqueue(self._lanes[lane], items, deadline))

    def statistics(self, lane: str) -> LaneStatistics:
        """Return the lane's counters; they go on changing."""
        return self._lanes[lane].statistics

    def queued(self, lane: str) -> int:
        """Return how many items wait in the lane."""
        return self._lanes[lane].queued

    async def close(self, *, timeout_seconds: float = 10.0) -> None:
        """Refuse new items, serve those that wait, and return when all are done; after the timeout, cut what is left."""
        self._closing = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while self._tasks or any(state.queue for state in self._lanes.values()):
            for state in self._lanes.values():
                self._start(state)
            if not self._tasks:
                continue
            await asyncio.wait(self._tasks, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED)
            if loop.time() >= deadline:
                break
        for state in self._lanes.values():
            while state.queue:
                self._fail(state.queue.popleft(), _closing_error())
            state.queued = 0
        remaining = list(self._tasks)
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)

    def _enqueue(self, state: _LaneState[Item], items: Sequence[Item], deadline: float | None) -> asyncio.Future[list[object]]:
        if self._closing:
            raise _closing_error()
        if state.queued + len(items) > state.bounds.queue_max:
            self._drop_cancelled(state)
            if state.queued + len(items) > state.bounds.queue_max:
                state.statistics.refused += len(items)
                raise self._overload(state, "the queue is full")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[object]] = loop.create_future()
        state.queue.append(_Entry(items, future, self._clock.monotonic(), deadline))
        state.queued += len(items)
        full = state.queued >= state.bounds.batch_size_max
        if (full or not state.scheduled) and state.in_flight < state.bounds.flushes_in_flight_max:
            # One turn of the loop later, so that all who are ready now travel together.
            state.scheduled = True
            loop.call_soon(self._start, state)
        return future

    def _start(self, state: _LaneState[Item]) -> None:
        state.scheduled = False
        patience = self._patience_seconds(state)
        if patience > 0:
            state.scheduled = True
            asyncio.get_running_loop().call_later(patience, self._start, state)
            return
        while state.queue and state.in_flight < state.bounds.flushes_in_flight_max:
            batch = self._take(state)
            if batch:
                state.in_flight += 1
                task = asyncio.get_running_loop().create_task(self._serve(state, batch), name=f"batch-{state.name}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _patience_seconds(self, state: _LaneState[Item]) -> float:
        bounds = state.bounds
        busy = bounds.gather_seconds > 0 and state.statistics.batch_size_last >= GATHER_ITEMS_MIN
        if not busy or self._closing or not 0 < state.queued < bounds.batch_size_max:
            return 0.0
        return state.flushed_at + bounds.gather_seconds - self._clock.monotonic()

    def _take(self, state: _LaneState[Item]) -> list[_Entry[Item]]:
        """Take the next batch, leaving out what nobody waits for any more."""
        now, size, batch = self._clock.monotonic(), 0, list[_Entry[Item]]()
        while state.queue and size + len(state.queue[0].items) <= state.bounds.batch_size_max:
            entry = state.queue.popleft()
            state.queued -= len(entry.items)
            if entry.future.done():
                continue
            if entry.deadline is not None and now >= entry.deadline:
                state.statistics.expired += len(entry.items)
                self._fail(entry, DeadlineExceededError(Reason.DEADLINE_EXPIRED, "the deadline passed in the queue"))
            elif now - entry.enqueued_at > self._wait_seconds_max(state, size + len(entry.items)):
                state.statistics.refused += len(entry.items)
                self._fail(entry, self._overload(state, "waited too long in the queue"))
            else:
                batch.append(entry)
                size += len(entry.items)
        return batch

    @staticmethod
    def _wait_seconds_max(state: _LaneState[Item], taken: int) -> float:
        """How long an item may have waited that would be the last of so many in its flush; by then it is out of the queue."""
        bounds = state.bounds
        if bounds.standing_seconds_max is None or taken + state.queued <= bounds.batch_size_max:
            return bounds.wait_seconds_max
        return bounds.standing_seconds_max

    async def _serve(self, state: _LaneState[Item], batch: Sequence[_Entry[Item]]) -> None:
        items = [item for entry in batch for item in entry.items]
        started = self._clock.monotonic()
        try:
            outcomes = await self._flush(state.name, items)
            if len(outcomes) != len(items):
                raise InternalError(Reason.INTERNAL, f"a flush of {len(items)} items returned {len(outcomes)} outcomes")
            self._resolve(batch, outcomes)
        except asyncio.CancelledError:
            self._fail_all(batch, OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "cut by the shutdown; look the key up"))
            raise
        except TrademeshError as error:
            self._fail_all(batch, error)
        except Exception as error:  # noqa: BLE001 (a bug in flush must reach its callers, not end the lane)
            failure = InternalError(Reason.INTERNAL, f"a batch failed ({type(error).__name__})")
            failure.__cause__ = error
            self._fail_all(batch, failure)
        finally:
            state.in_flight -= 1
            state.statistics.items += len(items)
            state.statistics.flushes += 1
            state.statistics.batch_size_last = len(items)
            state.flushed_at = self._clock.monotonic()
            state.statistics.flush_seconds_last = state.flushed_at - started
            self._start(state)

    def _resolve(self, batch: Sequence[_Entry[Item]], outcomes: Sequence[object]) -> None:
        start = 0
        for entry in batch:
            end = start + len(entry.items)
            if not entry.future.done():
                entry.future.set_result(list(outcomes[start:end]))
            start = end

    def _fail_all(self, batch: Sequence[_Entry[Item]], error: TrademeshError) -> None:
        for entry in batch:
            self._fail(entry, copy.copy(error))

    def _fail(self, entry: _Entry[Item], error: TrademeshError) -> None:
        if not entry.future.done():
            entry.future.set_exception(error)

    def _drop_cancelled(self, state: _LaneState[Item]) -> None:
        state.queue = deque(entry for entry in state.queue if not entry.future.done())
        state.queued = sum(len(entry.items) for entry in state.queue)

    def _overload(self, state: _LaneState[Item], why: str) -> ResourceExhaustedError:
        batches = 1 + state.queued / (state.bounds.batch_size_max * state.bounds.flushes_in_flight_max)
        hint = min(max(batches * state.statistics.flush_seconds_last, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX / 2)
        text = f"lane {state.name}: {why}"
        return ResourceExhaustedError(
            Reason.OVERLOADED, text, metadata={"subject": f"lane:{state.name}"}, retry_after_seconds=state.hints.seconds(hint)
        )


def _closing_error() -> UnavailableError:
    return UnavailableError(Reason.SHUTTING_DOWN, "the service is shutting down; nothing was done")
