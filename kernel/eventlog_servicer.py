"""Serves a service's own log to other services: `trademesh.type.v1.EventLogService`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from kernel.event_records import from_position, from_record, to_position, to_record
from kernel.ports import EventReader, LogPosition, RecordedEvent
from kernel.server_context import CallContext
from kernel.server_policy import ServiceBinding, inside
from trademesh.type.v1 import event_log_service_pb2
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

PAGE_SIZE_DEFAULT = 500
PAGE_BYTES_MAX = 2 * 1024 * 1024
"""Payload bytes of one answer; a page ends early where the next event would exceed it."""

HEARTBEAT_SECONDS = 5.0


class EventLogServicer:
    """Reads from the replica's own database, so any replica answers for the whole log."""

    def __init__(self, reader: EventReader, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._reader = reader
        self._heartbeat_seconds = heartbeat_seconds

    async def ReadEvents(  # noqa: N802 (the contract's name)
        self, request: event_log_service_pb2.ReadEventsRequest, context: CallContext
    ) -> event_log_service_pb2.ReadEventsResponse:
        """See the contract."""
        after, limit = from_position(request.after), request.page_size or PAGE_SIZE_DEFAULT
        events = await self._reader.read_after(after, limit)
        page = _bounded(events)
        context.batch_size = len(page)
        return event_log_service_pb2.ReadEventsResponse(
            events=[to_record(event) for event in page],
            next=to_position(page[-1].position if page else after),
            at_end=len(events) < limit and len(page) == len(events),
        )

    async def SubscribeEvents(  # noqa: N802 (the contract's name)
        self, request: event_log_service_pb2.SubscribeEventsRequest, context: CallContext
    ) -> AsyncIterator[event_log_service_pb2.SubscribeEventsResponse]:
        """See the contract. Ends when the server drains; the caller goes on elsewhere from `next`."""
        cursor = from_position(request.after)
        async for events in self._batches(cursor, request.batch_size or PAGE_SIZE_DEFAULT, context):
            if not events:
                yield _batch([], cursor)
            while events:
                page = _bounded(events)
                cursor = page[-1].position
                yield _batch(page, cursor)
                events = events[len(page) :]
            if context.draining is not None and context.draining.is_set():
                return

    async def _batches(self, cursor: LogPosition, limit: int, context: CallContext) -> AsyncIterator[list[RecordedEvent]]:
        """The log's batches, and an empty one whenever it is time for a heartbeat or the server drains."""
        batches = self._reader.subscribe(cursor, limit=limit)
        drained = asyncio.ensure_future(context.draining.wait()) if context.draining is not None else None
        pending = asyncio.ensure_future(anext(batches))
        try:
            while True:
                watched = {pending} if drained is None else {pending, drained}
                await asyncio.wait(watched, timeout=self._heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED)
                if pending.done():
                    yield pending.result()
                    pending = asyncio.ensure_future(anext(batches))
                else:
                    yield []
        finally:
            pending.cancel()
            if drained is not None:
                drained.cancel()
            await asyncio.gather(pending, return_exceptions=True)
            await batches.aclose()


def _bounded(events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
    """The first events, at least one, that fit into one message."""
    size = 0
    page: list[RecordedEvent] = []
    for event in events:
        size += len(event.payload) + len(event.metadata)
        if page and size > PAGE_BYTES_MAX:
            break
        page.append(event)
    return page


def _batch(events: Sequence[RecordedEvent], cursor: LogPosition) -> event_log_service_pb2.SubscribeEventsResponse:
    return event_log_service_pb2.SubscribeEventsResponse(events=[to_record(event) for event in events], next=to_position(cursor))


def event_log_binding(reader: EventReader, *peers: str) -> ServiceBinding:
    """Return the binding that serves a log to these services and to nobody else."""
    descriptor = event_log_service_pb2.DESCRIPTOR.services_by_name["EventLogService"]
    policies = {method.name: inside(*peers, write=False) for method in descriptor.methods}
    return ServiceBinding(descriptor, EventLogServicer(reader), policies)


class RemoteLog:
    """Another service's log, read by `ReadEvents`; the reading that a projection falls back to."""

    def __init__(self, stub: EventLogServiceStub) -> None:
        self._stub = stub

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """Return at most `limit` (1 to 5,000) settled events after the cursor, in log order; none at the log's end.

        Raises:
            UnavailableError, DeadlineExceededError: no replica answers; try again.
        """
        request = event_log_service_pb2.ReadEventsRequest(after=to_position(cursor), page_size=limit)
        response = await self._stub.ReadEvents(request)
        return [from_record(record) for record in response.events]


READ_PATHS = frozenset({"/trademesh.type.v1.EventLogService/ReadEvents"})
"""The paths that a client of logs declares as idempotent."""
