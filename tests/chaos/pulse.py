"""The pulse: one call of every kind after the other, all the while, so that an outage shows by kind, by its length and by its words."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc

from tests.chaos.calls import CALL_SECONDS, Calls, NoAnswerError

BEAT_SECONDS = 0.1
CHANGE_SECONDS = 0.2
"""Of changes, so that there are orders to cancel while none can be placed."""
STOCK = 80
"""Orders that rest before the first beat."""
IN_A_ROW = 3
"""So many successes after the last failure make a kind well again."""
STOCK_SECONDS = 60.0
LAST_ANSWER_SECONDS = 30.0
LOOK_SECONDS = 0.02

ORDER, REPLACE, CANCEL, READ, VENUE = "order", "replace", "cancel", "read", "venue"
DEPOSIT, POSITIONS, QUOTES, REPORTS = "deposit", "positions", "quotes", "reports"
STREAM, SOCKET = "stream", "socket"
KINDS = (ORDER, REPLACE, CANCEL, READ, VENUE, DEPOSIT, POSITIONS, QUOTES, REPORTS, STREAM, SOCKET)


_PAUSES = dict.fromkeys((REPLACE, CANCEL), CHANGE_SECONDS)


class NotRecoveredError(Exception):
    """Some kind of call does not succeed again; the text says which, and with which words."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One call: from when to when by the monotonic clock, and why nobody answered; empty where somebody did."""

    began: float
    ended: float
    failure: str = ""


def well(beats: Sequence[Beat], since: float) -> bool:
    """Say whether the last calls succeeded, enough of them that began after `since`; what still hangs is not among them."""
    first = len(beats)
    while first and not beats[first - 1].failure:
        first -= 1
    return sum(beat.began >= since for beat in beats[first:]) >= IN_A_ROW


def outage_of(beats: Sequence[Beat], since: float, until: float) -> float:
    """Return how long after `since` the first success ended that followed the last failure from then on; 0 where none failed.

    Failures count by when they ended, up to `until`, and the call that was under way at `since` counts too. Where no success followed, the
    last failure's end stands for it.
    """
    failed = [number for number, beat in enumerate(beats) if beat.failure and since <= beat.ended < until]
    if not failed:
        return 0.0
    after = next((beat for beat in beats[failed[-1] + 1 :] if not beat.failure), beats[failed[-1]])
    return after.ended - since


def interruption_of(beats: Sequence[Beat], since: float, until: float) -> float:
    """Return the longest time from the begin of a call that failed, by its end, to the end of the next success; infinite if none."""
    longest, broken = 0.0, math.inf
    for beat in beats:
        if beat.failure and since <= beat.ended < until:
            broken = min(broken, beat.began)
        elif not beat.failure:
            longest, broken = max(longest, beat.ended - broken), math.inf
    return longest if broken == math.inf else math.inf


class Pulse:
    """Beats from enter to exit. An async context manager; what it has asked is answered, or reported, when it ends.

    Args:
        calls: who calls.
    """

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self._tries: dict[str, Callable[[], Awaitable[bool]]] = {
            ORDER: calls.order,
            REPLACE: calls.replace,
            CANCEL: calls.cancel,
            READ: calls.read,
            VENUE: calls.venue,
            DEPOSIT: calls.deposit,
            POSITIONS: calls.positions,
            QUOTES: calls.quotes,
            REPORTS: calls.reports,
            STREAM: calls.stream,
            SOCKET: calls.socket,
        }
        self.beats: dict[str, list[Beat]] = defaultdict(list)
        self._ending = asyncio.Event()
        self.unanswered: list[str] = []

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(STOCK_SECONDS):
            await self.calls.stock(STOCK)
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
        await self.calls.close()
        self.unanswered = self.calls.unanswered
        if error is None:
            for task in done:
                task.result()

    async def recovered(self, since: float, *, timeout_seconds: float) -> None:
        """Return once every kind of call succeeds, and has for some calls since `since`, on the monotonic clock.

        Which is no proof that none will fail any more: `outage` says how long it took, when more is known.

        Raises:
            NotRecoveredError: not in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while missing := [kind for kind in self._tries if not well(self.beats[kind], since)]:
            if time.monotonic() > deadline:
                missing = [f"{kind} ({self._last_failure(kind)})" for kind in missing]
                raise NotRecoveredError(f"after {timeout_seconds:g} s still not well: {', '.join(missing)}")
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(LOOK_SECONDS)

    def since(self, kind: str, since: float) -> list[Beat]:
        """Return the calls of a kind that began after `since`, on the monotonic clock, and have ended."""
        return [beat for beat in self.beats[kind] if beat.began >= since]

    def outage(self, since: float, until: float, *, but: Container[str] = ()) -> float:
        """Return how long after `since` the last kind of call, but these, succeeded again, by failures up to `until`; 0 without one."""
        return max((outage_of(self.beats[kind], since, until) for kind in self._tries if kind not in but), default=0.0)

    def failures(self, since: float, until: float = math.inf) -> dict[str, Counter[str]]:
        """Return why calls that ended after `since`, and before `until`, were not answered, by kind."""
        found = {
            kind: Counter(beat.failure for beat in beats if since <= beat.ended < until and beat.failure)
            for kind, beats in self.beats.items()
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
            await asyncio.sleep(_PAUSES.get(kind, BEAT_SECONDS))
