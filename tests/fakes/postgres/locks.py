"""Row and advisory locks: shared or exclusive, first come first served, with deadlocks found as soon as they close."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import asyncpg

LOCK_SECONDS_MAX = 5.0
"""The statement timeout that `kernel.postgres` sets; only locks make a statement wait here."""


@dataclass(slots=True)
class _Waiter:
    owner: Hashable
    exclusive: bool
    granted: asyncio.Future[None]


@dataclass(slots=True)
class _Lock:
    name: Hashable
    holders: dict[Hashable, bool] = field(default_factory=dict)
    queue: deque[_Waiter] = field(default_factory=deque)

    def blockers(self, owner: Hashable, *, exclusive: bool, before: _Waiter | None = None) -> list[Hashable]:
        """Who has to go first: conflicting holders, and conflicting waiters that came earlier."""
        found = [holder for holder, held in self.holders.items() if holder != owner and (exclusive or held)]
        if owner not in self.holders:
            # Whoever holds the lock already and wants more of it does not queue behind those who wait for it to let go.
            for waiter in self.queue:
                if waiter is before:
                    break
                if waiter.owner != owner and (exclusive or waiter.exclusive):
                    found.append(waiter.owner)
        return found


class Locks:
    """All locks of one server. Owners are transactions."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, _Lock] = {}
        self._held: dict[Hashable, list[Hashable]] = {}
        self._waits: dict[Hashable, tuple[_Lock, _Waiter]] = {}
        self.deadlocks = 0

    async def acquire(self, owner: Hashable, name: Hashable, *, exclusive: bool) -> None:
        """Take a lock until `release`, or wait for it.

        Raises:
            asyncpg.DeadlockDetectedError: waiting would never end.
            asyncpg.QueryCanceledError: it took longer than a statement may.
        """
        lock = self._locks.setdefault(name, _Lock(name))
        held = lock.holders.get(owner)
        if held is not None and (held or not exclusive):
            return
        if lock.blockers(owner, exclusive=exclusive):
            await self._wait(lock, owner, exclusive=exclusive)
        if owner not in lock.holders:
            self._held.setdefault(owner, []).append(name)
        lock.holders[owner] = lock.holders.get(owner, False) or exclusive

    async def _wait(self, lock: _Lock, owner: Hashable, *, exclusive: bool) -> None:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(owner, exclusive, loop.create_future())
        lock.queue.append(waiter)
        self._waits[owner] = lock, waiter
        timer = None
        try:
            if self._closes_a_circle(owner):
                self.deadlocks += 1
                raise asyncpg.DeadlockDetectedError("deadlock detected")
            timer = loop.call_later(LOCK_SECONDS_MAX, _expire, waiter.granted)
            await waiter.granted
        finally:
            if timer is not None:
                timer.cancel()
            del self._waits[owner]
            if waiter in lock.queue:
                lock.queue.remove(waiter)
                self._grant(lock)

    def _closes_a_circle(self, owner: Hashable) -> bool:
        seen: set[Hashable] = set()
        todo = [owner]
        while todo:
            waiting = self._waits.get(todo.pop())
            if waiting is None:
                continue
            lock, waiter = waiting
            for blocker in lock.blockers(waiter.owner, exclusive=waiter.exclusive, before=waiter):
                if blocker == owner:
                    return True
                if blocker not in seen:
                    seen.add(blocker)
                    todo.append(blocker)
        return False

    def release(self, owner: Hashable) -> None:
        """Let go of everything that an owner holds."""
        for name in self._held.pop(owner, ()):
            self._let_go(owner, name)

    def release_one(self, owner: Hashable, name: Hashable) -> None:
        """Let go of one lock."""
        self._held[owner].remove(name)
        self._let_go(owner, name)

    def _let_go(self, owner: Hashable, name: Hashable) -> None:
        lock = self._locks[name]
        del lock.holders[owner]
        self._grant(lock)
        if not lock.holders and not lock.queue:
            del self._locks[name]

    def _grant(self, lock: _Lock) -> None:
        for waiter in list(lock.queue):
            if waiter.granted.done():
                continue
            if not lock.blockers(waiter.owner, exclusive=waiter.exclusive, before=waiter):
                lock.queue.remove(waiter)
                # Held from now on, so that nobody slips in before the waiter runs.
                if waiter.owner not in lock.holders:
                    self._held.setdefault(waiter.owner, []).append(lock.name)
                lock.holders[waiter.owner] = lock.holders.get(waiter.owner, False) or waiter.exclusive
                waiter.granted.set_result(None)


def _expire(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_exception(asyncpg.QueryCanceledError("canceling statement due to statement timeout"))
