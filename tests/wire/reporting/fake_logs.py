"""The logs of other services, served as they serve them: the real RPC over a world that a test writes."""

from __future__ import annotations

from pathlib import Path

import grpc

from kernel.event_records import from_position, to_position, to_record
from tests.integration.reporting.world import Log
from trademesh.type.v1 import event_log_service_pb2 as pb
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceServicer, add_EventLogServiceServicer_to_server


class FakeLogServer(EventLogServiceServicer):
    """Serves one log on a UNIX socket."""

    def __init__(self, path: Path, log: Log) -> None:
        self.target = f"unix:{path}"
        self._log = log
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        server = grpc.aio.server()
        add_EventLogServiceServicer_to_server(self, server)
        server.add_insecure_port(self.target)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        if self._server is not None:
            await self._server.stop(None)

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
