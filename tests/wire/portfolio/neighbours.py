"""What portfolio calls: the logs of svc_oms and svc_risk, and svc_marketdata's prices, each a real server on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from google.protobuf.message import Message

from kernel.clock import SystemClock
from kernel.eventlog_servicer import event_log_binding
from kernel.events.memory import MemoryEventStore
from kernel.grpc_server import GrpcServer
from kernel.ports import Commit, LogPosition, NewEvent, RecordedEvent
from kernel.server_context import CallContext
from kernel.server_policy import ServiceBinding, inside
from tests.wire.serving import server_of
from trademesh.marketdata.v1 import reference_price_service_pb2


class Neighbour:
    """A service that portfolio calls; `stop` makes it as dead as a killed process."""

    def __init__(self, name: str, folder: Path, *bindings: ServiceBinding) -> None:
        self._name = name
        self._socket = folder / f"{name}.sock"
        self._bindings = bindings
        self.target = f"unix:{self._socket}"
        self._server: GrpcServer | None = None

    async def start(self) -> None:
        """Serve."""
        self._server = server_of(self._name, self._socket, self._bindings, grace_seconds=0.5)
        await self._server.start()

    async def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            await self._server.stop()
            self._server = None


class ScriptedLog:
    """A service's log, filled by the test."""

    def __init__(self, name: str, folder: Path) -> None:
        self.store = MemoryEventStore(SystemClock())
        self.server = Neighbour(name, folder, event_log_binding(self.store, "svc-portfolio"))

    async def add(self, *events: RecordedEvent) -> LogPosition:
        """Record events, each at the place that the log gives it; return that of the last."""
        position = LogPosition(0, 0)
        for event in events:
            commit = Commit.single(event.stream_id, event.version - 1, NewEvent(event.type, event.payload))
            (outcome,) = await self.store.commit([commit])
            assert isinstance(outcome, LogPosition)
            position = outcome
        return position


class ScriptedPrices:
    """svc_marketdata: what the test says goes to whoever listens, after what was said before."""

    def __init__(self, folder: Path) -> None:
        self._prices: dict[str, reference_price_service_pb2.ReferencePrice] = {}
        self._said = asyncio.Condition()
        self._count = 0
        self.live = True
        descriptor = reference_price_service_pb2.DESCRIPTOR.services_by_name["ReferencePriceService"]
        policies = {method.name: inside("svc-portfolio", write=False) for method in descriptor.methods}
        self.server = Neighbour("svc-marketdata", folder, ServiceBinding(descriptor, self, policies))

    async def say(self, instrument_id: str, bid: str, ask: str) -> None:
        """Say a price."""
        price = reference_price_service_pb2.ReferencePrice(instrument_id=instrument_id, bid=bid, ask=ask)
        price.venue_time.GetCurrentTime()
        async with self._said:
            self._prices[instrument_id] = price
            self._count += 1
            self._said.notify_all()

    async def StreamReferencePrices(  # noqa: N802 (the contract's name)
        self, request: reference_price_service_pb2.StreamReferencePricesRequest, context: CallContext
    ) -> AsyncIterator[Message]:
        """See the contract."""
        assert request.venue == "XSIM"
        while True:
            seen = self._count
            yield reference_price_service_pb2.StreamReferencePricesResponse(
                prices=self._prices.values(), complete=True, feed_live=self.live
            )
            async with self._said:
                try:
                    await asyncio.wait_for(self._said.wait_for(lambda seen=seen: self._count > seen), 0.3)  # type: ignore[misc]  # a closure
                except TimeoutError:
                    continue
