"""Hosts: what lives and dies together. A replica is a host; so is a database server, the venue, and everybody's clients together."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.chain.loop import HOST, SimLoop

REAP_SECONDS = 0.01
REAP_ROUNDS_MAX = 200


class Host:
    """A machine with one process on it.

    Args:
        name: for messages.
        loop: the simulation's.
    """

    def __init__(self, name: str, loop: SimLoop) -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.stalled_until = 0.0
        self.parked: list[Any] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.context = contextvars.Context()
        self.context.run(HOST.set, self)
        self._on_death: list[Callable[[], None]] = []

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Count a task as one of the host's."""
        self.tasks[task] = None
        task.add_done_callback(self._forget, context=self.context)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Start work on the host."""
        return self.loop.create_task(work, name=name, context=self.context.copy())

    def on_death(self, action: Callable[[], None]) -> None:
        """Run an action first thing when the host dies: cut what connects it to others."""
        self._on_death.append(action)

    def stall(self, seconds: float) -> None:
        """Run nothing for a while. The dead are not stalled: they must unwind."""
        if not self.alive:
            return
        self.stalled_until = max(self.stalled_until, self.loop.time() + seconds)
        self.loop.call_at(self.stalled_until, self._wake, context=contextvars.Context())

    def _wake(self) -> None:
        if self.stalled_until <= self.loop.time():
            parked, self.parked = self.parked, []
            self.loop.unpark(parked)

    def kill(self) -> None:
        """Die at once, as by SIGKILL: nothing that the process does afterwards reaches anybody.

        Its coroutines are unwound in the background, cut off from everything, because Python cannot simply forget them.
        """
        if not self.alive:
            return
        self.alive = False
        self.stalled_until = 0.0
        self._wake()
        for action in self._on_death:
            action()
        self.loop.create_task(self._reap(), context=contextvars.Context())

    async def _reap(self) -> None:
        for _ in range(REAP_ROUNDS_MAX):
            if not self.tasks:
                return
            for task in list(self.tasks):
                task.cancel()
            await asyncio.sleep(REAP_SECONDS)
        raise AssertionError(f"{self.name} does not die: {list(self.tasks)[:3]}")
