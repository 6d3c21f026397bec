"""Following a log: read, yield, and sleep until something woke us or a short time passed. A wake-up that is lost costs only that time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from kernel.ports import LogPosition, RecordedEvent

POLL_SECONDS_MIN = 0.001
POLL_SECONDS_MAX = 0.25


class Wakeup:
    """Wakes every waiter; one that looks away meanwhile does not miss it, because it waits for a change of `generation`."""

    def __init__(self) -> None:
        self.generation = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """Wake all waiters."""
        self.generation += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, generation: int, timeout_seconds: float) -> bool:
        """Wait until `generation` is past; say whether it is, or the time passed first."""
        if self.generation != generation:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(timeout_seconds, _finish, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
        return self.generation != generation


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _PageReader(Protocol):
    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]: ...


async def follow(
    reader: _PageReader, wakeup: Wakeup, cursor: LogPosition, *, limit: int, poll_seconds_max: float = POLL_SECONDS_MAX
) -> AsyncGenerator[list[RecordedEvent], None]:
    """Yield batches of settled events after the cursor for ever.

    After a wake-up the pauses start short and double, because an event may be committed before it is settled.
    """
    pause_seconds = POLL_SECONDS_MIN
    while True:
        generation = wakeup.generation
        events = await reader.read_after(cursor, limit)
        if events:
            cursor = events[-1].position
            yield events
            pause_seconds = POLL_SECONDS_MIN
        if len(events) < limit:
            woken = await wakeup.wait(generation, pause_seconds)
            pause_seconds = POLL_SECONDS_MIN if woken else min(2 * pause_seconds, poll_seconds_max)
