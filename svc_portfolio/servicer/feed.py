"""What happens to positions, for the streams of clients: one tail of our log per replica, fanned out, and a regular look at marks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from kernel.errors import InternalError, Reason, TrademeshError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import LogPosition, RecordedEvent
from svc_portfolio.codec.positions import POSITION_CHANGED, changed_position
from svc_portfolio.domain.valuation import Holding
from svc_portfolio.store.reference import ReferenceStore
from trademesh.portfolio.v1 import events_pb2, position_pb2

MARK_SECONDS = 0.5
"""Between looks at the marks: a stream tells the latest mark of each position at most so often."""

_RETRY_SECONDS = 0.5
_PAGE = 1_000

_logger = logging.getLogger(__name__)


class Moved(NamedTuple):
    """A change of a position: where our log has it, what it was, and the position after it."""

    position: LogPosition
    change: position_pb2.PositionChange
    holding: Holding


class Listener(Protocol):
    """Who is told of one account."""

    @property
    def account_id(self) -> str: ...

    def offer(self, moved: Moved) -> None:
        """Take a change of the account."""
        ...

    def look(self) -> None:
        """Take what marks have changed."""
        ...

    def fail(self, error: TrademeshError) -> None:
        """End: the feed cannot go on."""
        ...


class PortfolioFeed:
    """Tails the log while anybody listens."""

    def __init__(self, log: PostgresEventStore, reference: ReferenceStore, *, mark_seconds: float = MARK_SECONDS) -> None:
        self._log = log
        self._reference = reference
        self._mark_seconds = mark_seconds
        self._listeners: dict[str, dict[Listener, None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._cursor: LogPosition | None = None
        self._starting = asyncio.Lock()

    async def enter(self, listener: Listener) -> LogPosition:
        """Hand the listener every later change; return the position of our log after which they come."""
        async with self._starting:
            if self._cursor is None:
                self._cursor = await self._log.horizon()
                self._tasks = [
                    asyncio.create_task(self._guarded(self._tail), name="portfolio-feed"),
                    asyncio.create_task(self._guarded(self._watch), name="portfolio-marks"),
                ]
            self._listeners.setdefault(listener.account_id, {})[listener] = None
            return self._cursor

    async def leave(self, listener: Listener) -> None:
        """Forget a listener; the tail ends with the last one."""
        listeners = self._listeners.get(listener.account_id)
        if listeners is not None:
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[listener.account_id]
        if not self._listeners:
            await self.close()

    async def close(self) -> None:
        """Stop tailing."""
        tasks, self._tasks, self._cursor = self._tasks, [], None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def between(self, after: LogPosition, upto: LogPosition, account_id: str, events_max: int) -> list[Moved] | None:
        """Return the changes of an account in a part of our log; None where that part has more than `events_max` events of anybody."""
        found: list[Moved] = []
        read = 0
        while after < upto:
            events = await self._log.read_after(after, _PAGE)
            read += len(events)
            if read > events_max:
                return None
            moved = await self._moved([event for event in events if event.position <= upto], account_id)
            found += [item for item in moved if item.change.account_id == account_id]
            if len(events) < _PAGE:
                break
            after = events[-1].position
        return found

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            _logger.exception("the portfolio feed met a defect")
            for listener in self._all():
                listener.fail(InternalError(Reason.INTERNAL, "the stream met a defect; open it again"))
            # Whoever enters next starts it anew.
            tasks, self._tasks, self._cursor = self._tasks, [], None
            for task in tasks:
                if task is not asyncio.current_task():
                    task.cancel()

    async def _tail(self) -> None:
        while True:
            cursor = self._cursor
            assert cursor is not None
            batches = self._log.subscribe(cursor)
            try:
                async for events in batches:
                    # First: whoever enters while this batch is read starts behind it, and has its events from the database.
                    self._cursor = events[-1].position
                    for moved in await self._moved(events):
                        for listener in tuple(self._listeners.get(moved.change.account_id, ())):
                            listener.offer(moved)
                    cursor = self._cursor
            except TrademeshError as error:
                self._cursor = cursor
                _logger.warning("portfolio feed failed", extra={"fields": {"reason": str(error)}})
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                await batches.aclose()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._mark_seconds)
            for listener in self._all():
                listener.look()

    def _all(self) -> list[Listener]:
        return [listener for listeners in self._listeners.values() for listener in listeners]

    async def _moved(self, events: Sequence[RecordedEvent], account_id: str | None = None) -> list[Moved]:
        """The changes in these events that somebody listens to, or those of one account."""
        changes = [
            (event.position, events_pb2.PositionChanged.FromString(event.payload).change)
            for event in events
            if event.type == POSITION_CHANGED
        ]
        wanted = {account_id} if account_id is not None else self._listeners.keys()
        changes = [(position, change) for position, change in changes if change.account_id in wanted]
        if not changes:
            return []
        known = await self._reference.instruments({change.instrument_id for _, change in changes})
        moved = []
        for position, change in changes:
            row = known.get(change.instrument_id)
            currency, venue = ("", "") if row is None else (row.currency, row.venue)
            holding = Holding(change.account_id, change.instrument_id, changed_position(change), currency, venue)
            moved.append(Moved(position, change, holding))
        return moved
