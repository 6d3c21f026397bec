"""The relay: tells a service's own log to the bus, as fast as it settles. One replica at a time does it, under a fenced lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from kernel.bus.port import ROUND_EVENTS_MAX, BusPublisher, SequenceTakenError
from kernel.errors import LeaseLostError, UnavailableError
from kernel.leadership import RETRY_SECONDS, lead
from kernel.lease import TTL_SECONDS, LeaseKeeper, PostgresLeases
from kernel.ports import LOG_START, Clock, EventReader, HeldLease, Leases, LogPosition, RecordedEvent
from kernel.postgres.database import Database
from kernel.telemetry import Sample

_logger = logging.getLogger(__name__)

SAVE_SECONDS = 0.5
GATHER_SECONDS = 0.02
"""A round that is not full is followed by a pause, so that a busy log is told in tens of rounds a second and not in hundreds. The first
round after a quiet time goes out at once."""
PUBLISH_RETRY_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class RelayProgress:
    """How far a topic was told: the log up to `cursor`, in rounds up to `sequence`."""

    cursor: LogPosition
    sequence: int


NOTHING_TOLD = RelayProgress(LOG_START, 0)


class RelayMemory(Protocol):
    """Where the relay's progress survives it."""

    async def load(self, topic: str) -> RelayProgress:
        """Return the saved progress; `NOTHING_TOLD` for a new topic."""
        ...

    async def save(self, lease: HeldLease, topic: str, progress: RelayProgress) -> None:
        """Save, if the lease is held.

        Raises:
            LeaseLostError: it is not; nothing was saved.
        """
        ...


class PostgresRelayMemory:
    """Progress in the service's schema (`kernel/migrations/0003_delivery.sql`)."""

    def __init__(self, database: Database, leases: PostgresLeases) -> None:
        self._database = database
        self._leases = leases

    async def load(self, topic: str) -> RelayProgress:
        """See `RelayMemory.load`."""
        row = await self._database.fetchrow("SELECT tx, position, sequence FROM relay_progress WHERE topic = $1", topic)
        return NOTHING_TOLD if row is None else RelayProgress(LogPosition(row["tx"], row["position"]), row["sequence"])

    async def save(self, lease: HeldLease, topic: str, progress: RelayProgress) -> None:
        """See `RelayMemory.save`. Not flushed to disk at once: what is lost only makes consumers read the log once."""
        async with self._database.transaction() as transaction:
            await transaction.execute("SET LOCAL synchronous_commit = off")
            await self._leases.assert_held(transaction, lease)
            await transaction.execute(
                "INSERT INTO relay_progress (topic, tx, position, sequence) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (topic) DO UPDATE SET tx = excluded.tx, position = excluded.position, sequence = excluded.sequence",
                topic,
                progress.cursor.tx,
                progress.cursor.position,
                progress.sequence,
            )


class MemoryRelayMemory:
    """Progress in a dict that several relays may share, for tests and simulation."""

    def __init__(self, leases: Leases, progress: dict[str, RelayProgress] | None = None) -> None:
        self._leases = leases
        self._progress = {} if progress is None else progress

    async def load(self, topic: str) -> RelayProgress:
        """See `RelayMemory.load`."""
        return self._progress.get(topic, NOTHING_TOLD)

    async def save(self, lease: HeldLease, topic: str, progress: RelayProgress) -> None:
        """See `RelayMemory.save`."""
        if not self._leases.still_mine(lease):
            raise LeaseLostError(lease.name, lease.epoch)
        self._progress[topic] = progress


class Relay:
    """Publishes one log to one topic.

    Rounds keep their numbers across restarts. What was published but not saved shows as a topic that is ahead of the memory; the relay
    then leaves one number out, so that consumers see a gap and ask the log, and never has to guess what those rounds held.

    Args:
        topic: the service's name, such as `oms`.
        reader: the service's own log.
        bus: where to publish.
        memory: where progress survives.
        leases: the lease `relay:<topic>` is taken here.
        clock: monotonic time between saves.
        save_seconds: how long progress goes unsaved at most, whether the log grows or is quiet.
        gather_seconds: the pause after a round that was not full.
    """

    def __init__(
        self,
        topic: str,
        reader: EventReader,
        bus: BusPublisher,
        memory: RelayMemory,
        leases: Leases,
        clock: Clock,
        *,
        save_seconds: float = SAVE_SECONDS,
        gather_seconds: float = GATHER_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        renew_every_seconds: float = TTL_SECONDS / 3,
    ) -> None:
        self._topic = topic
        self._reader = reader
        self._bus = bus
        self._memory = memory
        self._leases = leases
        self._clock = clock
        self._save_seconds = save_seconds
        self._gather_seconds = gather_seconds
        self._retry_seconds = retry_seconds
        self._renew_every_seconds = renew_every_seconds
        self.progress = self._saved = NOTHING_TOLD
        self.leading = False
        self.published_events = 0

    async def run(self) -> None:
        """Publish whenever the lease is ours, until cancelled. A bus or database that is away is waited for."""
        name = f"relay:{self._topic}"
        await lead(self._leases, name, self._lead, retry_seconds=self._retry_seconds, renew_every_seconds=self._renew_every_seconds)

    def samples(self) -> list[Sample]:
        """Return the relay's metrics."""
        labels = (("topic", self._topic),)
        return [
            Sample("relay_leading", self.leading, labels),
            Sample("relay_published_events_total", self.published_events, labels),
            Sample("relay_sequence", self.progress.sequence, labels),
        ]

    async def _lead(self, keeper: LeaseKeeper) -> None:
        self.leading = True
        self.progress = self._saved = await self._memory.load(self._topic)
        try:
            async for attempt in _patiently():
                with attempt:
                    last = await self._bus.last_sequence(self._topic)
            if last > self.progress.sequence:
                self.progress = RelayProgress(self.progress.cursor, last + 1)
            async with aclosing(self._reader.subscribe(self.progress.cursor, limit=ROUND_EVENTS_MAX)) as batches:
                await self._tell(keeper, batches)
        finally:
            self.leading = False
            if self._leases.still_mine(keeper.current):
                await self._save(keeper)

    async def _tell(self, keeper: LeaseKeeper, batches: AsyncGenerator[list[RecordedEvent], None]) -> None:
        saved_at = self._clock.monotonic()
        coming = asyncio.ensure_future(anext(batches))
        try:
            while True:
                await asyncio.wait((coming,), timeout=self._save_seconds)
                is_quiet = not coming.done()
                if not is_quiet:
                    events = coming.result()
                    self.progress = await self._publish(keeper, self.progress, events)
                    if len(events) < ROUND_EVENTS_MAX:
                        await asyncio.sleep(self._gather_seconds)
                    coming = asyncio.ensure_future(anext(batches))
                if is_quiet or self._clock.monotonic() - saved_at >= self._save_seconds:
                    await self._save(keeper)
                    saved_at = self._clock.monotonic()
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _save(self, keeper: LeaseKeeper) -> None:
        if self.progress != self._saved:
            await self._memory.save(keeper.current, self._topic, self.progress)
            self._saved = self.progress

    async def _publish(self, keeper: LeaseKeeper, progress: RelayProgress, events: Sequence[RecordedEvent]) -> RelayProgress:
        told = RelayProgress(events[-1].position, progress.sequence + 1)
        async for attempt in _patiently():
            with attempt:
                if not self._leases.still_mine(keeper.current):
                    raise LeaseLostError(keeper.current.name, keeper.current.epoch)
                try:
                    await self._bus.publish(self._topic, told.sequence, told.cursor, events)
                except SequenceTakenError:
                    # An attempt whose answer was lost, or another relay. Either way a number that is left out sends consumers to the log.
                    told = RelayProgress(told.cursor, await self._bus.last_sequence(self._topic) + 2)
                    await self._bus.publish(self._topic, told.sequence, told.cursor, events)
        self.published_events += len(events)
        return told


def _patiently() -> AsyncRetrying:
    """The bus may be away for long; events wait in the log, and the lease decides who waits."""
    return AsyncRetrying(
        retry=retry_if_exception_type(UnavailableError),
        wait=wait_exponential(multiplier=0.05, max=PUBLISH_RETRY_SECONDS_MAX),
        before_sleep=lambda state: _logger.warning("the bus is away: %s", state.outcome.exception() if state.outcome else ""),
        reraise=True,
    )
