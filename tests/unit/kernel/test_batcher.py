from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from kernel.batcher import Batcher, Lane
from kernel.clock import ManualClock
from kernel.errors import (
    DeadlineExceededError,
    InternalError,
    NotFoundError,
    OutcomeUnknownError,
    Reason,
    ResourceExhaustedError,
    TrademeshError,
    UnavailableError,
)

LANES = {"orders": Lane(batch_size_max=4, queue_max=8, wait_seconds_max=2.0), "control": Lane(batch_size_max=4, queue_max=8)}


class Recorder:
    """A flush that records its batches and can be held back."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: BaseException | None = None

    async def __call__(self, lane: str, items: Sequence[int]) -> Sequence[int | TrademeshError]:
        self.batches.append((lane, list(items)))
        if lane == "orders":
            await self.open.wait()
        if self.error is not None:
            raise self.error
        return [NotFoundError(Reason.ORDER_NOT_FOUND, "odd") if item < 0 else item * 10 for item in items]


@pytest.fixture
async def flush() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def batcher(flush: Recorder, clock: ManualClock) -> Batcher[int, int]:
    return Batcher(flush, LANES, clock)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def start(batcher: Batcher[int, int], *items: int, lane: str = "orders") -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(lane, item)) for item in items]


async def test_an_idle_lane_flushes_at_once_and_alone(batcher: Batcher[int, int], flush: Recorder) -> None:
    assert await batcher.submit("orders", 1) == 10
    assert flush.batches == [("orders", [1])]


async def test_who_is_ready_together_travels_together(batcher: Batcher[int, int], flush: Recorder) -> None:
    assert await asyncio.gather(*start(batcher, 1, 2, 3)) == [10, 20, 30]
    assert flush.batches == [("orders", [1, 2, 3])]


async def test_while_one_batch_is_under_way_the_next_gathers(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.open.clear()
    first = start(batcher, 1)
    await settle()
    rest = start(batcher, 2, 3, 4, 5, 6, 7)
    await settle()
    assert flush.batches == [("orders", [1])]
    assert batcher.queued("orders") == 6
    flush.open.set()
    assert await asyncio.gather(*first, *rest) == [10, 20, 30, 40, 50, 60, 70]
    assert flush.batches == [("orders", [1]), ("orders", [2, 3, 4, 5]), ("orders", [6, 7])]
    assert batcher.statistics("orders").flushes == 3
    assert batcher.statistics("orders").items == 7


async def test_an_item_that_is_refused_fails_alone(batcher: Batcher[int, int]) -> None:
    results = await asyncio.gather(*start(batcher, 1, -2, 3), return_exceptions=True)
    assert results[0::2] == [10, 30]
    assert isinstance(results[1], NotFoundError)


async def test_a_batch_that_fails_fails_all_its_callers_with_errors_of_their_own(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.error = UnavailableError(Reason.RISK_UNAVAILABLE, "down", retry_after_seconds=1)
    first, second = await asyncio.gather(*start(batcher, 1, 2), return_exceptions=True)
    assert isinstance(first, UnavailableError)
    assert isinstance(second, UnavailableError)
    assert first is not second
    assert (first.reason, first.retry_after_seconds) == (Reason.RISK_UNAVAILABLE, 1)
    flush.error = ZeroDivisionError()
    with pytest.raises(InternalError, match="ZeroDivisionError") as caught:
        await batcher.submit("orders", 1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    flush.error = None
    assert await batcher.submit("orders", 1) == 10


async def test_a_flush_that_answers_for_too_few_is_a_bug() -> None:
    async def short(lane: str, items: Sequence[int]) -> Sequence[int | TrademeshError]:
        return items[1:]

    with pytest.raises(InternalError, match="0 outcomes"):
        await Batcher(short, LANES, ManualClock()).submit("orders", 1)


async def test_the_queue_is_bounded(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.open.clear()
    running = start(batcher, 0)
    await settle()
    waiting = start(batcher, *range(1, 9))
    await settle()
    with pytest.raises(ResourceExhaustedError) as caught:
        await batcher.submit("orders", 9)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_seconds
    assert 0.01 <= caught.value.retry_after_seconds <= 1.0
    waiting[0].cancel()
    await settle()
    late = start(batcher, 9)
    await settle()
    flush.open.set()
    assert await asyncio.gather(*running, *waiting[1:], *late) == [0, *range(20, 100, 10)]


async def test_expired_items_are_not_flushed(batcher: Batcher[int, int], flush: Recorder, clock: ManualClock) -> None:
    flush.open.clear()
    running = start(batcher, 1)
    await settle()
    doomed = asyncio.create_task(batcher.submit("orders", 2, deadline=clock.monotonic() + 1))
    lasting = asyncio.create_task(batcher.submit("orders", 3, deadline=clock.monotonic() + 10))
    await settle()
    clock.advance(1.5)
    flush.open.set()
    with pytest.raises(DeadlineExceededError) as caught:
        await doomed
    assert caught.value.reason is Reason.DEADLINE_EXPIRED
    assert await asyncio.gather(*running, lasting) == [10, 30]
    assert flush.batches == [("orders", [1]), ("orders", [3])]
    assert batcher.statistics("orders").expired == 1


async def test_items_that_waited_too_long_are_shed(batcher: Batcher[int, int], flush: Recorder, clock: ManualClock) -> None:
    flush.open.clear()
    running = start(batcher, 1)
    await settle()
    stale = start(batcher, 2)
    await settle()
    clock.advance(2.5)
    fresh = start(batcher, 3)
    await settle()
    flush.open.set()
    with pytest.raises(ResourceExhaustedError, match="waited too long"):
        await stale[0]
    assert await asyncio.gather(*running, *fresh) == [10, 30]


async def test_a_queue_that_outlasts_a_flush_is_cut_to_what_is_fresh(flush: Recorder, clock: ManualClock) -> None:
    batcher = Batcher(flush, {"orders": Lane(batch_size_max=4, queue_max=16, wait_seconds_max=2.0, standing_seconds_max=0.5)}, clock)
    flush.open.clear()
    running = start(batcher, 0)
    await settle()
    old = start(batcher, 1, 2, 3)
    await settle()
    clock.advance(0.6)
    fresh = start(batcher, 4, 5, 6)
    await settle()
    flush.open.set()
    # Two of the old ones go, which makes the rest one flush; the third is old too, but nobody is served sooner without it.
    shed = await asyncio.gather(*old[:2], return_exceptions=True)
    assert [type(error) for error in shed] == [ResourceExhaustedError] * 2
    assert await asyncio.gather(*running, old[2], *fresh) == [0, 30, 40, 50, 60]
    assert [items for _, items in flush.batches] == [[0], [3, 4, 5, 6]]
    assert batcher.statistics("orders").refused == 2


async def test_a_burst_that_the_next_flush_takes_is_served_however_old(flush: Recorder, clock: ManualClock) -> None:
    batcher = Batcher(flush, {"orders": Lane(batch_size_max=4, queue_max=16, wait_seconds_max=2.0, standing_seconds_max=0.5)}, clock)
    flush.open.clear()
    running = start(batcher, 0)
    await settle()
    burst = start(batcher, 1, 2, 3, 4)
    await settle()
    clock.advance(1.9)
    flush.open.set()
    assert await asyncio.gather(*running, *burst) == [0, 10, 20, 30, 40]


async def test_who_is_refused_together_is_not_called_back_together(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.open.clear()
    running = start(batcher, 0)
    await settle()
    waiting = start(batcher, *range(1, 9))
    await settle()
    hints = set()
    for _ in range(8):
        with pytest.raises(ResourceExhaustedError) as caught:
            await asyncio.wait_for(batcher.submit("orders", 9), 5)
        hints.add(caught.value.retry_after_seconds)
    assert len(hints) == 8
    flush.open.set()
    await asyncio.gather(*running, *waiting)


async def test_control_is_never_behind_orders(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.open.clear()
    orders = start(batcher, *range(8))
    await settle()
    assert await asyncio.wait_for(batcher.submit("control", 5), 5) == 50
    assert not any(task.done() for task in orders)
    flush.open.set()
    await asyncio.gather(*orders)


async def test_a_lane_may_have_several_flushes_under_way(flush: Recorder, clock: ManualClock) -> None:
    batcher = Batcher(flush, {"orders": Lane(batch_size_max=2, queue_max=8, flushes_in_flight_max=2)}, clock)
    flush.open.clear()
    tasks = start(batcher, 1, 2, 3, 4, 5)
    await settle()
    assert [items for _, items in flush.batches] == [[1, 2], [3, 4]]
    flush.open.set()
    await asyncio.gather(*tasks)


async def test_a_caller_that_gives_up_before_the_flush_is_left_out(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.open.clear()
    running = start(batcher, 1)
    await settle()
    gone, staying = start(batcher, 2, 3)
    await settle()
    gone.cancel()
    running[0].cancel()
    await settle()
    flush.open.set()
    assert await staying == 30
    assert flush.batches == [("orders", [1]), ("orders", [3])]


async def test_items_that_travel_together_come_back_together(batcher: Batcher[int, int], flush: Recorder) -> None:
    single = start(batcher, 1, 2)
    many = asyncio.create_task(batcher.submit_many("orders", [3, -4, 5]))
    outcomes = await many
    assert outcomes[0::2] == [30, 50]
    assert isinstance(outcomes[1], NotFoundError)
    assert await asyncio.gather(*single) == [10, 20]
    assert [items for _, items in flush.batches] == [[1, 2], [3, -4, 5]]
    for wrong in ([], [0] * 5):
        with pytest.raises(ValueError, match="travel together"):
            await batcher.submit_many("orders", wrong)


async def test_closing_serves_those_who_wait_and_refuses_others(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.open.clear()
    tasks = start(batcher, *range(6))
    await settle()
    closing = asyncio.create_task(batcher.close())
    await settle()
    with pytest.raises(UnavailableError) as caught:
        await batcher.submit("orders", 9)
    assert caught.value.reason is Reason.SHUTTING_DOWN
    flush.open.set()
    await closing
    assert [task.result() for task in tasks] == [0, 10, 20, 30, 40, 50]
    await batcher.close()


async def test_closing_cuts_what_does_not_end(batcher: Batcher[int, int], flush: Recorder) -> None:
    flush.open.clear()
    tasks = start(batcher, *range(6))
    await settle()
    await batcher.close(timeout_seconds=0.01)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknownError] * 4 + [UnavailableError] * 2
    assert flush.batches == [("orders", [0, 1, 2, 3])]


def test_bounds_are_checked() -> None:
    for bounds in (
        {"batch_size_max": 0},
        {"batch_size_max": 8, "queue_max": 4},
        {"flushes_in_flight_max": 0},
        {"wait_seconds_max": 0},
        {"standing_seconds_max": 0},
    ):
        with pytest.raises(ValueError, match="bounds"):
            Lane(**bounds)
