"""The pulse: one call of every kind after the other, all the while, so that an outage shows by kind, by its length and by its words."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc

from tests.chaos.calls import CALL_SECONDS, Calls, NoAnswerError

BEAT_SECONDS = 0.1
CHANGE_SECONDS = 0.3
STOCK = 60
"""Orders that rest before the first beat. Changes come more rarely than orders: there are some to cancel while none can be placed."""
IN_A_ROW = 3
"""So many successes after the last failure make a kind well again."""
STOCK_SECONDS = 60.0
LAST_ANSWER_SECONDS = 30.0
LOOK_SECONDS = 0.02

ORDER, REPLACE, CANCEL, READ, VENUE = "order", "replace", "cancel", "read", "venue"
DEPOSIT, POSITIONS, QUOTES, REPORTS = "deposit", "positions", "quotes", "reports"
KINDS = (ORDER, REPLACE, CANCEL, READ, VENUE, DEPOSIT, POSITIONS, QUOTES, REPORTS)


class NotRecoveredError(Exception):
    """Some kind of call does not succeed again; the text says which, and with which words."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One call: from when to when by the monotonic clock, and why nobody answered; empty where somebody did."""

    began: float
    ended: float
    failure: str = ""


def recovery_of(beats: Sequence[Beat], since: float) -> float | None:
    """Return how long after `since` the first success ended that no failure followed; 0 where none failed, None while it is too early."""
    first = len(beats)
    while first and not beats[first - 1].failure and beats[first - 1].ended >= since:
        first -= 1
    row = [beat for beat in beats[first:] if beat.began >= since]
    if len(row) < IN_A_ROW:
        return None
    failed = first > 0 and beats[first - 1].failure and beats[first - 1].ended >= since
    return beats[first].ended - since if failed else 0.0


class Pulse:
    """Beats from enter to exit. An async context manager; what it has asked is answered, or reported, when it ends.

    Args:
        calls: who calls.
        quiet: kinds that this mesh cannot answer.
    """

    def __init__(self, calls: Calls, *, quiet: frozenset[str] = frozenset()) -> None:
        self.calls = calls
        tries: dict[str, Callable[[], Awaitable[bool]]] = {
            ORDER: calls.order,
            REPLACE: calls.replace,
            CANCEL: calls.cancel,
            READ: calls.read,
            VENUE: calls.venue,
            DEPOSIT: calls.deposit,
            POSITIONS: calls.positions,
            QUOTES: calls.quotes,
            REPORTS: calls.reports,
        }
        self._tries = {kind: attempt for kind, attempt in tries.items() if kind not in quiet}
        self.beats: dict[str, list[Beat]] = defaultdict(list)
        self._ending = asyncio.Event()
        self.unanswered: list[str] = []

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(STOCK_SECONDS):
            while len(self.calls.placed) < STOCK:
                with contextlib.suppress(NoAnswerError):
                    await self.calls.order()
        self._tasks = [asyncio.create_task(self._beat(kind), name=f"pulse {kind}") for kind in self._tries]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        if error is not None:
            for task in self._tasks:
                task.cancel()
        done, late = await asyncio.wait(self._tasks, timeout=LAST_ANSWER_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self.calls.channel.close()
        self.unanswered = self.calls.unanswered
        if error is None:
            for task in done:
                task.result()

    async def recovered(self, since: float, *, timeout_seconds: float) -> float:
        """Return how long after `since`, on the monotonic clock, every kind of call succeeds again, 0 where none failed.

        Raises:
            NotRecoveredError: not in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            found = {kind: recovery_of(self.beats[kind], since) for kind in self._tries}
            known = [seconds for seconds in found.values() if seconds is not None]
            if len(known) == len(found):
                return max(known)
            if time.monotonic() > deadline:
                missing = [f"{kind} ({self._last_failure(kind)})" for kind, seconds in found.items() if seconds is None]
                raise NotRecoveredError(f"after {timeout_seconds:g} s still not well: {', '.join(missing)}")
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(LOOK_SECONDS)

    def since(self, kind: str, since: float) -> list[Beat]:
        """Return the calls of a kind that began after `since`, on the monotonic clock, and have ended."""
        return [beat for beat in self.beats[kind] if beat.began >= since]

    def failures(self, since: float) -> dict[str, Counter[str]]:
        """Return why calls that ended after `since` were not answered, by kind."""
        found = {
            kind: Counter(beat.failure for beat in beats if beat.ended >= since and beat.failure) for kind, beats in self.beats.items()
        }
        return {kind: failures for kind, failures in found.items() if failures}

    def _last_failure(self, kind: str) -> str:
        return next((beat.failure for beat in reversed(self.beats[kind]) if beat.failure), "no call has ended")

    async def _beat(self, kind: str) -> None:
        attempt = self._tries[kind]
        while True:
            began, failure = time.monotonic(), ""
            try:
                async with asyncio.timeout(2 * CALL_SECONDS):
                    tried = await attempt()
            except (NoAnswerError, TimeoutError) as error:
                tried, failure = True, str(error) or "no token in time"
            except grpc.aio.AioRpcError as error:
                # A read that is refused is an answer, and not the one that this call is to have.
                failure = f"{error.code().name} {error.details()}"[:200]
                tried = True
            if tried:
                self.beats[kind].append(Beat(began, time.monotonic(), failure))
            if self._ending.is_set() and not failure:
                return
            await asyncio.sleep(CHANGE_SECONDS if kind in (REPLACE, CANCEL) else BEAT_SECONDS)
