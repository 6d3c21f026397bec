"""A service's log, read by another service over real gRPC."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from kernel.clock import SystemClock
from kernel.errors import InvalidArgumentError, PermissionDeniedError, TrademeshError, UnauthenticatedError
from kernel.event_records import decode_metadata, encode_metadata
from kernel.eventlog_servicer import PAGE_BYTES_MAX, READ_PATHS, EventLogServicer, RemoteLog, event_log_binding
from kernel.events.memory import MemoryEventStore
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.logs import LineWriter
from kernel.ports import LOG_START, Commit, LogPosition, NewEvent
from kernel.telemetry import Telemetry, TelemetryConfig
from tests.wire.kernel_net.serving import SECRET, headers
from trademesh.type.v1 import event_log_service_pb2
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

METADATA = encode_metadata({"principal": "alice", "trace_id": "ab"})


class Log:
    """A served log and a stub that reads it as a peer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryEventStore(SystemClock())
        binding = event_log_binding(self.store, "svc-risk")
        assert isinstance(binding.servicer, EventLogServicer)
        binding.servicer._heartbeat_seconds = 0.05

        async def ready() -> bool:
            return True

        self.server = GrpcServer(
            ServerConfig(service="svc-oms", instance="svc-oms-0", socket_path=folder / "s", sidecar_secret=SECRET, drain_seconds=0.0),
            [binding],
            ready=ready,
            telemetry=Telemetry(TelemetryConfig("svc-oms", "svc-oms-0")),
            log_writer=LineWriter(BytesIO()),
            now=time.time,
        )

    def channel(self, peer: str = "svc-risk") -> MeshChannel:
        path = self.folder / f"headers-{peer}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"*": dict(headers(peer)[:2])}))
        config = ClientConfig(dependency="svc-oms", targets=(f"unix:{self.folder / 's'}",), headers_file=path, idempotent=READ_PATHS)
        return MeshChannel(config)

    async def record(self, count: int, payload: bytes = b"x") -> None:
        start = (await self.store.heads(["order-1"]))["order-1"]
        for version in range(start, start + count):
            await self.store.commit([Commit.single("order-1", version, NewEvent("test.v1.Happened", payload, METADATA))])


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    folder = Path(tempfile.mkdtemp(prefix="tml-", dir="/tmp"))
    served = Log(folder)
    await served.server.start()
    yield served
    await served.server.stop()
    shutil.rmtree(folder)


async def test_pages_are_the_log(log: Log) -> None:
    await log.record(7)
    async with log.channel() as channel:
        remote, cursor, found = RemoteLog(EventLogServiceStub(channel)), LOG_START, []
        while page := await remote.read_after(cursor, 3):
            cursor = page[-1].position
            found += page
    assert found == await log.store.read_after(LOG_START, 100)
    assert decode_metadata(found[0].metadata) == {"principal": "alice", "trace_id": "ab"}


async def test_an_answer_says_where_to_read_on_and_whether_that_was_all(log: Log) -> None:
    await log.record(4)
    async with log.channel() as channel:
        stub = EventLogServiceStub(channel)
        first = await stub.ReadEvents(event_log_service_pb2.ReadEventsRequest(page_size=3))
        assert (len(first.events), first.at_end) == (3, False)
        second = await stub.ReadEvents(event_log_service_pb2.ReadEventsRequest(page_size=3, after=first.next))
        assert (len(second.events), second.at_end) == (1, True)
        third = await stub.ReadEvents(event_log_service_pb2.ReadEventsRequest(page_size=3, after=second.next))
        assert (len(third.events), third.at_end, third.next) == (0, True, second.next)


async def test_a_page_is_bounded_in_bytes(log: Log) -> None:
    await log.record(12, payload=b"x" * 256 * 1024)
    async with log.channel() as channel:
        page = await EventLogServiceStub(channel).ReadEvents(event_log_service_pb2.ReadEventsRequest(page_size=5000))
        assert page.ByteSize() < PAGE_BYTES_MAX + 300_000
        assert not page.at_end
        found, cursor = 0, LOG_START
        while events := await RemoteLog(EventLogServiceStub(channel)).read_after(cursor, 5_000):
            found, cursor = found + len(events), events[-1].position
    assert found == 12


@pytest.mark.parametrize("size", [-1, 5_001])
async def test_page_sizes_have_bounds(log: Log, size: int) -> None:
    async with log.channel() as channel:
        with pytest.raises(InvalidArgumentError):
            await EventLogServiceStub(channel).ReadEvents(event_log_service_pb2.ReadEventsRequest(page_size=size))


@pytest.mark.parametrize(("peer", "error"), [("edge", PermissionDeniedError), ("svc-custody", PermissionDeniedError)])
async def test_a_log_is_for_the_services_that_are_named(log: Log, peer: str, error: type[Exception]) -> None:
    async with log.channel(peer) as channel:
        with pytest.raises(error):
            await RemoteLog(EventLogServiceStub(channel)).read_after(LOG_START, 1)


async def test_a_log_is_for_nobody_without_a_sidecar(log: Log) -> None:
    async with MeshChannel(ClientConfig(dependency="svc-oms", targets=(f"unix:{log.folder / 's'}",))) as channel:
        with pytest.raises(UnauthenticatedError):
            await RemoteLog(EventLogServiceStub(channel)).read_after(LOG_START, 1)


async def test_a_subscription_tells_the_past_then_the_present_and_lives(log: Log) -> None:
    await log.record(3)
    async with log.channel() as channel:
        stream: Any = EventLogServiceStub(channel).SubscribeEvents(event_log_service_pb2.SubscribeEventsRequest(batch_size=2))
        versions: list[int] = []
        heartbeats = 0
        async with asyncio.timeout(5):
            async for batch in stream:
                versions += [event.version for event in batch.events]
                heartbeats += not batch.events
                if len(versions) == 3 and heartbeats == 2:
                    await log.record(2)
                if len(versions) == 5:
                    break
        assert versions == [1, 2, 3, 4, 5]
        assert LogPosition(batch.next.tx, batch.next.position) == (await log.store.read_after(LOG_START, 9))[-1].position
        await stream.aclose()


async def test_a_subscription_ends_when_the_server_drains(log: Log) -> None:
    async with log.channel() as channel:
        stream: Any = EventLogServiceStub(channel).SubscribeEvents(event_log_service_pb2.SubscribeEventsRequest())
        await anext(stream)
        stopping = asyncio.create_task(log.server.stop())
        broken: TrademeshError | None = None
        async with asyncio.timeout(5):
            try:
                async for _ in stream:
                    pass
            except TrademeshError as error:
                broken = error
            await stopping
    # A ping that meets the closed socket makes gRPC report the connection instead of the end that had already arrived.
    assert broken is None or broken.metadata["grpc_code"] == "UNAVAILABLE"
