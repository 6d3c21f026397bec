"""The logs of other services, served as they serve them: the real RPC over a world that a test writes."""

from __future__ import annotations

from pathlib import Path

import grpc

from kernel.event_records import from_position, to_position, to_record
from tests.integration.reporting.world import Log
from tests.wire.serving import PlainServer
from trademesh.type.v1 import event_log_service_pb2 as pb
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceServicer, add_EventLogServiceServicer_to_server


class FakeLogServer(PlainServer, EventLogServiceServicer):
    """Serves one log on a UNIX socket."""

    def __init__(self, path: Path, log: Log) -> None:
        super().__init__(path, lambda server: add_EventLogServiceServicer_to_server(self, server))
        self._log = log

    async def ReadEvents(  # type: ignore[override]  # noqa: N802 (the contract's name)
        self, request: pb.ReadEventsRequest, context: grpc.aio.ServicerContext[pb.ReadEventsRequest, pb.ReadEventsResponse]
    ) -> pb.ReadEventsResponse:
        """Return a page."""
        after = from_position(request.after)
        events = await self._log.read_after(after, request.page_size)
        last = events[-1].position if events else after
        return pb.ReadEventsResponse(events=[to_record(event) for event in events], next=to_position(last), at_end=True)

    async def SubscribeEvents(  # type: ignore[override]  # noqa: N802 (the contract's name)
        self, request: pb.SubscribeEventsRequest, context: grpc.aio.ServicerContext[pb.SubscribeEventsRequest, pb.SubscribeEventsResponse]
    ) -> None:
        """Refuse: projections read."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "projections read")
