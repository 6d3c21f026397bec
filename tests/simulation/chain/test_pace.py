"""How a projection paces its rounds, on made-up time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from kernel.bus.memory import MemoryBus
from kernel.consumer import GATHER_SECONDS, PAGE_EVENTS, Projection
from kernel.lease import MemoryLeases
from kernel.ports import LogPosition, RecordedEvent
from kernel.projection_store import Inboxed, MemoryProjectionStore
from tests.simulation.chain.loop import SimClock, SimLoop, elapse

MOMENT = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)


class Following:
    """A log, a bus that tells it, and a projection that notes when it applied how many events."""

    def __init__(self, loop: SimLoop, *, bus: bool) -> None:
        self.loop = loop
        self.log: list[RecordedEvent] = []
        self.rounds: list[tuple[float, int]] = []
        self.bus = MemoryBus() if bus else None
        leases = MemoryLeases({}, SimClock(loop), "a")
        store = MemoryProjectionStore(leases)
        self.projection = Projection("test", "oms", Inboxed(self._apply), store, self, self.bus, leases, SimClock(loop))

    async def _apply(self, _: None, events: Sequence[RecordedEvent]) -> None:
        self.rounds.append((self.loop.time(), len(events)))

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """See `LogSource.read_after`."""
        return [event for event in self.log if event.position > cursor][:limit]

    async def record(self, count: int) -> None:
        """Record events, and tell the bus of them as a round."""
        start = len(self.log)
        new = [
            RecordedEvent(LogPosition(number + 1, 1), f"order-{number}", 1, "test.v1.Happened", b"", b"", MOMENT)
            for number in range(start, start + count)
        ]
        self.log += new
        if self.bus is not None:
            await self.bus.publish("oms", await self.bus.last_sequence("oms") + 1, new[-1].position, new)


def run(story: Callable[[Following], Awaitable[None]], *, bus: bool) -> Following:
    loop = SimLoop(1)

    async def main() -> Following:
        following = Following(loop, bus=bus)
        task = asyncio.ensure_future(following.projection.run())
        await story(following)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return following

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


async def _steady(following: Following) -> None:
    await elapse(3.0)
    for _ in range(100):
        await following.record(1)
        await elapse(0.01)
    await elapse(3.0)


def test_events_that_come_one_by_one_are_gathered_from_the_bus_and_from_the_log() -> None:
    for bus in (True, False):
        rounds = run(_steady, bus=bus).rounds
        assert sum(count for _, count in rounds) == 100
        assert all(later - earlier >= GATHER_SECONDS for (earlier, _), (later, _) in itertools.pairwise(rounds))
        assert len(rounds) <= 1.0 / GATHER_SECONDS + 2


def test_the_first_event_after_silence_does_not_wait() -> None:
    told: list[float] = []

    async def story(following: Following) -> None:
        for seconds in (3.0, 7.5, GATHER_SECONDS + 0.01):
            await elapse(seconds)
            told.append(following.loop.time())
            await following.record(2)
        await elapse(1.0)

    rounds = run(story, bus=True).rounds
    assert [count for _, count in rounds] == [2, 2, 2]
    assert all(0 <= applied - recorded < 0.001 for (applied, _), recorded in zip(rounds, told, strict=True))


def test_a_backlog_is_read_without_a_pause() -> None:
    async def story(following: Following) -> None:
        await following.record(3 * PAGE_EVENTS + 1)
        await elapse(3.0)

    rounds = run(story, bus=False).rounds
    assert [count for _, count in rounds] == [PAGE_EVENTS] * 3 + [1]
    assert rounds[-1][0] - rounds[0][0] < GATHER_SECONDS


def test_a_backlog_on_the_bus_is_applied_in_pages() -> None:
    """Rounds that wait together come in one reading; what they lock at once stays bounded."""

    async def story(following: Following) -> None:
        await following.record(1)
        await elapse(0.01)
        for _ in range(8):
            await following.record(PAGE_EVENTS // 2 + 1)
        await elapse(3)

    rounds = run(story, bus=True).rounds
    assert sum(count for _, count in rounds) == 1 + 8 * (PAGE_EVENTS // 2 + 1)
    assert max(count for _, count in rounds) == PAGE_EVENTS
