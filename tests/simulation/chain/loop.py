"""An event loop whose time is made up: it jumps to the next timer, and what is ready runs in an order that the seed decides.

Everything that runs on it belongs to a host (`hosts`), found through a context variable that tasks and callbacks inherit. A host that is
stalled runs nothing until it wakes; meanwhile time goes on without it, as it does for a process that the kernel does not schedule.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
"""A Monday within New York hours."""

TURN_SECONDS = 1e-6
"""Each turn of the loop takes this long, so that time passes even for work that never waits."""

HOST: contextvars.ContextVar[Any] = contextvars.ContextVar("host", default=None)
"""The host that runs (`hosts.Host`)."""


class DeadlockError(Exception):
    """Nothing is ready and no timer runs: whoever waits will wait for ever."""


class StepsExceededError(Exception):
    """The simulation took more turns than any honest run does."""


class SimFuture(asyncio.Future[Any]):
    """A future with a hash that does not depend on its address, so that sets of futures have one order in every run."""

    _numbers = itertools.count()

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = next(self._numbers)

    def __hash__(self) -> int:
        return self._number


class SimTask(asyncio.Task[Any]):
    """A task with such a hash."""

    _numbers = itertools.count()

    def __init__(self, coro: Coroutine[Any, Any, Any], **arguments: Any) -> None:
        # Before the task is initialised, which puts it into a set of asyncio's own.
        self._number = next(self._numbers)
        self.host: Any = None
        super().__init__(coro, **arguments)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """The loop.

    Args:
        seed: decides the order of what is ready.
        turns_max: more turns than this are a livelock.
    """

    def __init__(self, seed: int, *, turns_max: int = 3_000_000) -> None:
        super().__init__()
        SimFuture._numbers, SimTask._numbers = itertools.count(), itertools.count()
        self.random = random.Random(seed)
        self.turns = 0
        self._turns_max = turns_max
        self._now = 0.0
        self.network: Any = None
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Return the made-up time in seconds since the beginning."""
        return self._now

    def create_future(self) -> SimFuture:
        """See `asyncio.AbstractEventLoop.create_future`."""
        return SimFuture(loop=self)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """Connect over the simulated network."""
        return await self.network.connect(protocol_factory, host, port)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """Listen on the simulated network."""
        return self.network.listen(protocol_factory, host, port)

    def _run_once(self) -> None:
        self.turns += 1
        if self.turns > self._turns_max:
            raise StepsExceededError(f"more than {self._turns_max} turns by {self._now:.3f} s")
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if ready:
            self._now += TURN_SECONDS
        elif scheduled:
            self._now = max(self._now + TURN_SECONDS, scheduled[0]._when)
        elif not self._stopping:  # type: ignore[attr-defined]
            raise DeadlockError(f"nothing will ever happen again after {self._now:.3f} s")
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                ready.append(handle)
        batch = list(ready)
        ready.clear()
        self.random.shuffle(batch)
        for handle in batch:
            if handle._cancelled:
                continue
            host = handle._context.get(HOST)
            if host is not None and host.stalled_until > self._now:
                host.parked.append(handle)
            else:
                handle._run()

    def unpark(self, handles: list[Any]) -> None:
        """Let callbacks run that waited for their host to wake."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def _process_events(self, event_list: Any) -> None:
        """There is no selector."""

    def _write_to_self(self) -> None:
        """Nobody else's thread has anything to say here."""


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
    task = SimTask(coro, loop=loop, context=context)
    host = context.get(HOST) if context is not None else HOST.get()
    task.host = host
    if host is not None:
        host.adopt(task)
    return task


class SimClock:
    """The clocks of one host: monotonic time is the loop's, wall time is off by a constant."""

    def __init__(self, loop: SimLoop, wall_offset_seconds: float = 0.0) -> None:
        self._loop = loop
        self._start = START + timedelta(seconds=wall_offset_seconds)

    def now(self) -> datetime:
        """Return the wall time, UTC."""
        return self._start + timedelta(seconds=self._loop.time())

    def now_ns(self) -> int:
        """Return the wall time in nanoseconds since 1970."""
        return (self.now() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000

    def monotonic(self) -> float:
        """Return seconds of the loop's time."""
        return self._loop.time()


async def elapse(seconds: float) -> None:
    """Let made-up time go by; nobody waits for it."""
    await asyncio.sleep(seconds)
