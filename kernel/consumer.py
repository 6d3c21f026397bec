"""Projections and sagas over another service's events: the bus when it runs, the producer's log whenever it does not.

A projection begins at the log, from the cursor that was committed with its read model. Then it listens to the bus, and goes back to the
log on a gap, on silence, on a flush and on failure. So a bus that loses everything costs time, and no event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from tenacity import AsyncRetrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from kernel.bus.port import BusReader
from kernel.consumer_rounds import Rounds
from kernel.errors import UnavailableError
from kernel.leadership import RETRY_SECONDS, TRANSIENT_ERRORS, lead
from kernel.lease import TTL_SECONDS, LeaseKeeper
from kernel.ports import LOG_START, Clock, Leases, LogPosition, RecordedEvent
from kernel.projection_store import ProjectionStore, ReadModel, VersionGapError
from kernel.telemetry import Sample

_logger = logging.getLogger(__name__)

PAGE_EVENTS = 1_000
GATHER_SECONDS = 0.1
"""Pause after a round that was not full: a round costs a transaction, however few its events are."""

SILENCE_SECONDS = 1.0
POISON_ATTEMPTS = 5


class LogSource(Protocol):
    """The producer's log: `RemoteLog`, or a store in the same process."""

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """Return at most `limit` settled events after the cursor, in log order; none at the end."""
        ...


class ProjectionStoppedError(Exception):
    """The projection met an event that it cannot apply and has stopped; a person has to look.

    Nothing after the event was applied, but for plain streams (`ReadModel.plain`) of the same round.
    """

    def __init__(self, projection: str, event: RecordedEvent) -> None:
        super().__init__(f"projection {projection} cannot apply {event.type} {event.event_id} at log position {event.position}")
        self.event_id = event.event_id


class Projection:
    """Applies one source's events to one read model, on one replica at a time.

    Args:
        name: of the projection, unique in the service; the lease is `projection:<name>:<source>`.
        source: the producer and bus topic, such as `oms`.
        model: what the events change; see `ReadModel`.
        store: keeps cursor and inbox with the read model.
        log: the producer's log.
        bus: None to read the log alone.
        leases: of the consuming service.
        clock: monotonic time.
        gather_seconds: pause after a round that was not full. The first event after silence is applied at once.
        silence_seconds: without a message before the log is asked; also the poll interval without a bus.
        poison_attempts: times that an event is tried before the projection stops.
    """

    def __init__(
        self,
        name: str,
        source: str,
        model: ReadModel,
        store: ProjectionStore,
        log: LogSource,
        bus: BusReader | None,
        leases: Leases,
        clock: Clock,
        *,
        gather_seconds: float = GATHER_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        poison_attempts: int = POISON_ATTEMPTS,
        poison_wait_seconds_max: float = 5.0,
        retry_seconds: float = RETRY_SECONDS,
        renew_every_seconds: float = TTL_SECONDS / 3,
    ) -> None:
        self.name = name
        self.source = source
        self._model = model
        self._store = store
        self._log = log
        self._bus = bus
        self._leases = leases
        self._clock = clock
        self._gather_seconds = gather_seconds
        self._silence_seconds = silence_seconds
        self._poison_attempts = poison_attempts
        self._poison_wait_seconds_max = poison_wait_seconds_max
        self._retry_seconds = retry_seconds
        self._renew_every_seconds = renew_every_seconds
        self.cursor = LOG_START
        self.leading = False
        self.stopped = False
        self.applied_events = 0
        self.log_readings = 0
        self.failures = 0

    async def run(self) -> None:
        """Apply events whenever the lease is ours, until cancelled.

        Raises:
            ProjectionStoppedError: an event cannot be applied; `projection_stopped` is 1 from then on.
        """
        name = f"projection:{self.name}:{self.source}"
        try:
            await lead(self._leases, name, self._lead, retry_seconds=self._retry_seconds, renew_every_seconds=self._renew_every_seconds)
        except ProjectionStoppedError:
            self.stopped = True
            _logger.critical("projection %s stopped", self.name, exc_info=True)
            raise

    def samples(self) -> list[Sample]:
        """Return the projection's metrics; `projection_stopped` above 0 is an alarm."""
        labels = (("projection", self.name), ("source", self.source))
        return [
            Sample("projection_stopped", self.stopped, labels),
            Sample("projection_leading", self.leading, labels),
            Sample("projection_applied_events_total", self.applied_events, labels),
            Sample("projection_failures_total", self.failures, labels),
            Sample("projection_log_readings_total", self.log_readings, labels),
        ]

    async def _lead(self, keeper: LeaseKeeper) -> None:
        self.leading = True
        try:
            self.cursor = await self._store.load(self.name, self.source)
            while True:
                # Before the log: whatever the bus told up to here, the log shows.
                tails = await self._tails()
                await self._catch_up(keeper)
                if tails is None:
                    await asyncio.sleep(self._silence_seconds)
                else:
                    await self._follow(keeper, tails)
        except TRANSIENT_ERRORS:
            self.failures += 1
            raise
        finally:
            self.leading = False

    async def _tails(self) -> dict[int, int] | None:
        if self._bus is None:
            return None
        try:
            return await self._bus.tails(self.source)
        except UnavailableError as error:
            _logger.warning("projection %s reads the log alone: %s", self.name, error)
            return None

    async def _catch_up(self, keeper: LeaseKeeper) -> None:
        self.log_readings += 1
        while events := await self._log.read_after(self.cursor, PAGE_EVENTS):
            try:
                await self._apply(keeper, events)
            except VersionGapError as error:
                raise ProjectionStoppedError(self.name, error.event) from error
            if len(events) < PAGE_EVENTS:
                await asyncio.sleep(self._gather_seconds)

    async def _follow(self, keeper: LeaseKeeper, tails: dict[int, int]) -> None:
        """Apply rounds from the bus until it is silent, has a gap or is away; then the log says what is true."""
        assert self._bus is not None
        rounds = Rounds(tails)
        incomplete_since = self._clock.monotonic()
        while True:
            try:
                messages = await self._bus.read(self.source, rounds.after, self._silence_seconds)
            except UnavailableError as error:
                _logger.warning("projection %s lost the bus: %s", self.name, error)
                return
            if not messages or not rounds.add(messages):
                return
            complete = rounds.take()
            if complete is not None:
                try:
                    await self._apply(keeper, _after(self.cursor, complete))
                except VersionGapError as error:
                    _logger.warning("projection %s asks the log: %s", self.name, error)
                    return
                if len(complete) < PAGE_EVENTS:
                    await asyncio.sleep(self._gather_seconds)
                incomplete_since = self._clock.monotonic()
            elif self._clock.monotonic() - incomplete_since > self._silence_seconds:
                return

    async def _apply(self, keeper: LeaseKeeper, events: Sequence[RecordedEvent]) -> None:
        """Apply events in pages: a backlog on the bus can be many rounds, and what it locks must stay bounded."""
        for start in range(0, len(events), PAGE_EVENTS):
            await self._apply_page(keeper, events[start : start + PAGE_EVENTS])

    async def _apply_page(self, keeper: LeaseKeeper, events: Sequence[RecordedEvent]) -> None:
        try:
            await self._apply_once(keeper, events)
        except (*TRANSIENT_ERRORS, VersionGapError):
            raise
        except Exception:
            _logger.warning("projection %s failed on a batch of %d; one by one now", self.name, len(events), exc_info=True)
            for event in events:
                await self._apply_alone(keeper, event)

    async def _apply_once(self, keeper: LeaseKeeper, events: Sequence[RecordedEvent]) -> None:
        through = events[-1].position
        self.applied_events += await self._store.apply(keeper.current, self.name, self.source, through, events, self._model)
        self.cursor = through

    async def _apply_alone(self, keeper: LeaseKeeper, event: RecordedEvent) -> None:
        """Apply one event, which may be the poison: patiently, then never again."""
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(self._poison_attempts),
                wait=wait_exponential(multiplier=0.1, max=self._poison_wait_seconds_max),
                retry=retry_if_not_exception_type(TRANSIENT_ERRORS),
                reraise=True,
            ):
                with attempt:
                    await self._apply_once(keeper, [event])
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:
            raise ProjectionStoppedError(self.name, event) from error


def _after(cursor: LogPosition, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
    """The events after the cursor, each once and in log order: rounds repeat themselves when a relay takes over."""
    by_position = {event.position: event for event in events if event.position > cursor}
    return [by_position[position] for position in sorted(by_position)]
