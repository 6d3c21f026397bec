"""Whatever callers do and however long flushes take: every item is served at most once, in order, and every caller gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from kernel.batcher import Batcher, Lane
from kernel.clock import ManualClock
from kernel.errors import DeadlineExceededError, ResourceExhaustedError, TrademeshError, UnavailableError

steps = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(["orders", "control"]), st.integers(0, 3)),
    st.tuples(st.just("many"), st.sampled_from(["orders", "control"]), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.just(""), st.integers(0, 40)),
    st.tuples(st.just("finish"), st.just(""), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.just(""), st.integers(0, 3)),
    st.tuples(st.just("pass"), st.just(""), st.integers(0, 2)),
)


class World:
    """A batcher, its callers, and flushes that end only when told."""

    def __init__(self, in_flight: int) -> None:
        self.clock = ManualClock()
        self.bounds = Lane(batch_size_max=3, queue_max=6, flushes_in_flight_max=in_flight, wait_seconds_max=4.0)
        self.batcher: Batcher[int, int] = Batcher(self.flush, {"orders": self.bounds, "control": self.bounds}, self.clock)
        self.under_way: list[asyncio.Event] = []
        self.running = {"orders": 0, "control": 0}
        self.served: dict[str, list[int]] = {"orders": [], "control": []}
        self.callers: list[tuple[list[int], asyncio.Task[list[int | TrademeshError]]]] = []
        self.next_item = 0
        self.draining = False

    async def flush(self, lane: str, items: Sequence[int]) -> Sequence[int | TrademeshError]:
        assert 1 <= len(items) <= self.bounds.batch_size_max
        self.running[lane] += 1
        assert self.running[lane] <= self.bounds.flushes_in_flight_max
        self.served[lane].extend(items)
        gate = asyncio.Event()
        self.under_way.append(gate)
        if not self.draining:
            await gate.wait()
        self.running[lane] -= 1
        return [-item for item in items]

    async def submit(self, lane: str, items: list[int], deadline: float | None) -> list[int | TrademeshError]:
        if len(items) == 1:
            return [await self.batcher.submit(lane, items[0], deadline=deadline)]
        return await self.batcher.submit_many(lane, items, deadline=deadline)

    async def step(self, kind: str, lane: str, number: int) -> None:
        if kind in ("submit", "many"):
            count = number if kind == "many" else 1
            items = [self.next_item + i for i in range(count)]
            self.next_item += count
            deadline = self.clock.monotonic() + number if kind == "submit" and number else None
            self.callers.append((items, asyncio.create_task(self.submit(lane, items, deadline))))
        elif kind == "cancel" and self.callers:
            self.callers[number % len(self.callers)][1].cancel()
        elif kind == "finish" and self.under_way:
            self.under_way.pop(number % len(self.under_way)).set()
        elif kind == "wait":
            self.clock.advance(number)
        elif kind == "pass":
            for _ in range(number * 3):
                await asyncio.sleep(0)
        assert all(self.batcher.queued(name) <= self.bounds.queue_max for name in ("orders", "control"))


@given(st.lists(steps, max_size=60), st.integers(1, 2))
async def test_every_caller_gets_its_own_answer_once(script: list[tuple[str, str, int]], in_flight: int) -> None:
    world = World(in_flight)
    for kind, lane, number in script:
        await world.step(kind, lane, number)
    world.draining = True
    for gate in world.under_way:
        gate.set()
    await asyncio.wait_for(world.batcher.close(), 10)

    served = world.served["orders"] + world.served["control"]
    assert len(served) == len(set(served))
    assert all(lane == sorted(lane) for lane in world.served.values())
    for items, task in world.callers:
        if not task.done():
            # Its first step came after the close.
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, list):
            assert result == [-item for item in items]
            assert set(items) <= set(served)
        elif not isinstance(result, asyncio.CancelledError):
            assert isinstance(result, (DeadlineExceededError, ResourceExhaustedError, UnavailableError))
            assert not set(items) & set(served)
