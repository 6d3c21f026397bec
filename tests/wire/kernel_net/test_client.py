"""How a service calls another, over real gRPC with real replicas."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    OutcomeUnknownError,
    Reason,
    ResourceExhaustedError,
    TrademeshError,
    UnauthenticatedError,
    UnavailableError,
)
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.identity import Identity
from kernel.server_context import CallContext, current_call
from tests.wire.kernel_net.serving import Served, forever, headers, order_request, serving, until
from trademesh.oms.v1 import order_service_pb2, order_service_pb2_grpc

CREATE = "/trademesh.oms.v1.OrderService/CreateOrder"


@pytest.fixture
async def replicas() -> AsyncIterator[list[Served]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(f"svc-oms-{number}")) for number in range(2)]


@pytest.fixture
def headers_file(tmp_path: Path) -> Path:
    path = tmp_path / "headers.json"
    write_headers(path, dict(headers()))
    return path


def write_headers(path: Path, values: dict[str, str]) -> None:
    path.write_text(json.dumps({"*": values}))
    path.chmod(0o600)


def client(replicas: list[Served], headers_file: Path | None = None, **config: Any) -> MeshChannel:
    targets = tuple(replica.target for replica in replicas)
    return MeshChannel(ClientConfig(**{"dependency": "svc-oms", "targets": targets, "headers_file": headers_file, **config}))


def stub_of(channel: MeshChannel) -> order_service_pb2_grpc.OrderServiceStub:
    return order_service_pb2_grpc.OrderServiceStub(channel)


async def answered_by(channel: MeshChannel, count: int) -> list[str]:
    stub = stub_of(channel)
    return [(await stub.CreateOrder(order_request())).order.order_id for _ in range(count)]


async def test_ready_replicas_take_turns(replicas: list[Served], headers_file: Path) -> None:
    async with client(replicas, headers_file) as channel:
        await until(lambda: channel.endpoints.ready_count() == 2)
        assert sorted(await answered_by(channel, 6)) == ["svc-oms-0"] * 3 + ["svc-oms-1"] * 3
        assert channel.outcomes == {"OK": 6}


async def test_a_replica_that_does_not_serve_gets_no_calls(replicas: list[Served], headers_file: Path) -> None:
    async with client(replicas, headers_file, health_service="trademesh.oms.v1.OrderService") as channel:
        await until(lambda: channel.endpoints.ready_count() == 2)
        replicas[0].ready = False
        await until(lambda: channel.endpoints.ready_count() == 1)
        assert set(await answered_by(channel, 4)) == {"svc-oms-1"}
        replicas[0].ready = True
        await until(lambda: channel.endpoints.ready_count() == 2)


async def test_a_call_that_was_never_sent_goes_to_another_replica(headers_file: Path) -> None:
    async with serving("alive") as alive:
        config = ClientConfig(dependency="svc-oms", targets=("unix:/tmp/tmk-no-such.sock", alive.target), headers_file=headers_file)
        async with MeshChannel(config) as channel:
            # Not a single failure, whichever replica comes first and before any connection is known.
            assert await answered_by(channel, 4) == ["alive"] * 4


async def test_nothing_there_is_unavailable_by_name_and_opens_the_breaker() -> None:
    config = ClientConfig(dependency="svc-risk", targets=("unix:/tmp/tmk-no-such.sock",), failures_max=2, reset_seconds=60)
    async with MeshChannel(config) as channel:
        for _ in range(2):
            with pytest.raises(UnavailableError, match="svc-risk") as caught:
                await stub_of(channel).CreateOrder(order_request())
            assert caught.value.metadata["never_sent"] == "true"
        assert channel.breaker.state == "open"
        with pytest.raises(UnavailableError, match="svc-risk failed repeatedly"):
            await stub_of(channel).CreateOrder(order_request())
        [state] = [sample.value for sample in channel.samples() if sample.name == "breaker_state"]
        assert state == 2


async def test_an_honest_refusal_does_not_open_the_breaker(replicas: list[Served], headers_file: Path) -> None:
    for replica in replicas:
        replica.orders.script = lambda *_: UnavailableError(Reason.REFERENCE_PRICE_STALE, "no price")
    async with client(replicas, headers_file, failures_max=2) as channel:
        for _ in range(5):
            with pytest.raises(UnavailableError) as caught:
                await stub_of(channel).CreateOrder(order_request())
            assert caught.value.reason is Reason.REFERENCE_PRICE_STALE
        assert channel.breaker.state == "closed"
        assert sum(len(replica.orders.calls) for replica in replicas) == 5


async def test_an_idempotent_call_is_repeated_once_on_another_replica(replicas: list[Served], headers_file: Path) -> None:
    replicas[0].orders.script = lambda *_: UnavailableError(Reason.DATABASE_UNAVAILABLE, "no database")
    async with client(replicas, headers_file, idempotent=frozenset({CREATE})) as channel:
        await until(lambda: channel.endpoints.ready_count() == 2)
        assert await answered_by(channel, 4) == ["svc-oms-1"] * 4
        assert 1 <= len(replicas[0].orders.calls) <= 4


@pytest.mark.parametrize(("idempotent", "error"), [(frozenset(), OutcomeUnknownError), (frozenset({CREATE}), UnavailableError)])
async def test_a_lost_answer_is_unknown_unless_the_call_is_idempotent(
    headers_file: Path, idempotent: frozenset[str], error: type[TrademeshError]
) -> None:
    async with serving(grace_seconds=0.0) as served, client([served], headers_file, idempotent=idempotent) as channel:
        served.orders.script = lambda *_: forever()
        call = asyncio.ensure_future(stub_of(channel).CreateOrder(order_request()))
        await until(lambda: served.orders.calls)
        await served.server.stop()
        with pytest.raises(error):
            await call


async def test_a_deadline_that_passes_leaves_the_outcome_unknown(replicas: list[Served], headers_file: Path) -> None:
    for replica in replicas:
        replica.orders.script = lambda *_: forever()
    async with client(replicas, headers_file) as channel:
        with pytest.raises(OutcomeUnknownError):
            await stub_of(channel).CreateOrder(order_request(), timeout=0.2)
    async with client(replicas, headers_file, idempotent=frozenset({CREATE})) as channel:
        with pytest.raises(DeadlineExceededError):
            await stub_of(channel).CreateOrder(order_request(), timeout=0.2)


async def test_the_served_calls_deadline_and_trace_go_on_less_a_margin(replicas: list[Served], headers_file: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    context = CallContext(Identity("edge", None, ""), deadline=time.monotonic() + 1.0, traceparent=trace)
    token = current_call.set(context)
    try:
        async with client(replicas, headers_file, margin_seconds=0.5) as channel:
            await stub_of(channel).CreateOrder(order_request(), timeout=30)
            [seen] = [call for replica in replicas for call in replica.orders.calls]
            assert seen.trace_id == trace[3:35]
            assert seen.remaining_seconds() < 0.5
            context.deadline = time.monotonic() + 0.4
            with pytest.raises(DeadlineExceededError):
                await stub_of(channel).CreateOrder(order_request())
    finally:
        current_call.reset(token)
    assert sum(len(replica.orders.calls) for replica in replicas) == 1


async def test_errors_come_back_as_the_classes_that_were_raised(replicas: list[Served], headers_file: Path) -> None:
    async with client(replicas, headers_file) as channel:
        with pytest.raises(InvalidArgumentError) as caught:
            await stub_of(channel).CreateOrder(order_request(quantity="-1"))
        assert caught.value.field_violations[0].field == "quantity"
        for replica in replicas:
            replica.orders.script = lambda *_: ResourceExhaustedError(Reason.OVERLOADED, "busy", retry_after_seconds=0.25)
        with pytest.raises(ResourceExhaustedError) as shed:
            await stub_of(channel).CreateOrder(order_request())
        assert shed.value.retry_after_seconds == 0.25


async def test_a_replicas_new_secret_is_read_when_the_old_one_is_refused(replicas: list[Served], headers_file: Path) -> None:
    write_headers(headers_file, dict(headers(secret="the-secret-before-the-restart")))
    async with client(replicas, headers_file) as channel:
        with pytest.raises(UnauthenticatedError):
            await stub_of(channel).CreateOrder(order_request())
        write_headers(headers_file, dict(headers()))
        await stub_of(channel).CreateOrder(order_request())


@pytest.mark.parametrize("content", ["[]", '{"*": []}', '{"*": {"a": 1}}', "{"])
def test_a_malformed_headers_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "headers.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="must be"):
        client([], path, targets=("unix:/tmp/x",))


def test_a_headers_file_open_to_others_is_refused(headers_file: Path) -> None:
    headers_file.chmod(0o640)
    with pytest.raises(ValueError, match="0600"):
        client([], headers_file, targets=("unix:/tmp/x",))


async def test_streams_deliver_and_map_errors(replicas: list[Served], headers_file: Path) -> None:
    async with client(replicas, headers_file) as channel:
        requests = iter([order_service_pb2.EnterOrdersRequest(correlation_id=1, create=order_request())])
        answers = [answer.correlation_id async for answer in stub_of(channel).EnterOrders(requests)]
        assert answers == [1]
        with pytest.raises(InvalidArgumentError):
            async for _ in stub_of(channel).StreamOrderEvents(order_service_pb2.StreamOrderEventsRequest(account_id="bad")):
                pass


class FreezablePath:
    """Carries bytes between a client and a replica until it freezes: connected, and silent, as a stopped process is."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._carrying: list[asyncio.Task[None]] = []

    def freeze(self) -> None:
        self._flowing.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            self._carrying.append(asyncio.create_task(self._carry(source, sink)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
        writer.close()

    async def close(self) -> None:
        self._flowing.set()
        await asyncio.gather(*self._carrying)


async def test_a_stopped_replica_is_noticed_within_seconds_not_at_the_deadline(replicas: list[Served], headers_file: Path) -> None:
    socket = str(replicas[0].socket) + ".path"
    path = FreezablePath(str(replicas[0].socket))
    server = await asyncio.start_unix_server(path.serve, socket)
    config = ClientConfig(dependency="svc-oms", targets=(f"unix:{socket}",), headers_file=headers_file, idempotent=frozenset({CREATE}))
    async with MeshChannel(config) as channel:
        await answered_by(channel, 1)
        path.freeze()
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            await stub_of(channel).CreateOrder(order_request(), timeout=30)
        assert time.monotonic() - started < 10
    await path.close()
    server.close()


def test_a_channel_takes_no_stream_with_a_single_answer() -> None:
    channel = object.__new__(MeshChannel)
    with pytest.raises(ValueError, match="streams"):
        channel.stream_unary("/x/Y")
