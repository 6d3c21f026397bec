"""A service behind the edge: the order contract on a UNIX socket, with the real pipeline and a servicer that does what a test says."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from kernel.errors import TrademeshError
from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.logs import LineWriter
from kernel.server_context import CallContext
from kernel.status import to_status
from kernel.telemetry import Telemetry, TelemetryConfig
from svc_oms.main import order_binding
from trademesh.oms.v1 import order_pb2, order_service_pb2

SECRET = "a-secret-of-this-test-run"
SERVICE = order_service_pb2.DESCRIPTOR.services_by_name["OrderService"]


class Orders:
    """Answers each RPC by `script`; keeps what was asked, by whom, and how long they wait."""

    def __init__(self) -> None:
        self.script: Callable[[Message, CallContext], Message | Exception | None] | None = None
        self.requests: list[Any] = []
        self.contexts: list[CallContext] = []
        self.deadlines: list[float] = []
        self.events: list[order_service_pb2.StreamOrderEventsResponse | TrademeshError | float] = []
        self.ended = threading.Event()

    def __getattr__(self, name: str) -> Any:
        if name not in SERVICE.methods_by_name:
            raise AttributeError(name)

        async def answer(request: Message, context: CallContext) -> Any:
            self._note(request, context)
            outcome = self.script(request, context) if self.script is not None else None
            if isinstance(outcome, Exception):
                raise outcome
            return outcome if outcome is not None else _empty(name)

        return answer

    def _note(self, request: Message, context: CallContext) -> None:
        self.requests.append(request)
        self.contexts.append(context)
        self.deadlines.append(context.remaining_seconds())

    async def EnterOrders(self, requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Any]:  # noqa: N802 (the contract's name)
        async for item in requests:
            self._note(item, context)
            yield order_service_pb2.EnterOrdersResponse(correlation_id=item.correlation_id, order=order_pb2.Order())

    async def StreamOrderEvents(self, request: Any, context: CallContext) -> AsyncIterator[Any]:  # noqa: N802 (as above)
        self._note(request, context)
        try:
            for event in list(self.events):
                if isinstance(event, TrademeshError):
                    ending = order_service_pb2.StreamOrderEventsResponse()
                    ending.end.status.CopyFrom(to_status(event))
                    yield ending
                elif isinstance(event, float):
                    await asyncio.sleep(event)
                else:
                    yield event
        finally:
            self.ended.set()


def _empty(name: str) -> Any:
    output = SERVICE.methods_by_name[name].output_type.name
    message = getattr(order_service_pb2, output)()
    if output == "CreateOrderResponse":
        message.order.order_id = "9b2f0000-0000-7000-8000-000000000000"
        message.log_position.position = 7
    return message


class Backend:
    """The server in a thread of its own, so that tests may block."""

    def __init__(self, socket: Path, orders: Orders) -> None:
        self.socket = socket
        self.orders = orders
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: GrpcServer | None = None

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self) -> None:
        config = ServerConfig(
            service="svc-oms", instance="svc-oms-0", socket_path=self.socket, sidecar_secret=SECRET, drain_seconds=0, grace_seconds=0.5
        )

        async def ready() -> bool:
            return True

        self._server = GrpcServer(
            config,
            [order_binding(self.orders)],
            ready=ready,
            telemetry=Telemetry(TelemetryConfig("svc-oms", "svc-oms-0")),
            log_writer=LineWriter(io.BytesIO()),
            now=time.time,
        )
        await self._server.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        assert self._server is not None
        await self._server.stop()
        # Lets transports that the server has closed say so before the loop is gone.
        for _ in range(3):
            await asyncio.sleep(0)


class Recorder:
    """A gRPC server that takes every method and answers with an empty message; keeps the bytes of the last request."""

    def __init__(self, socket: Path) -> None:
        self.last = b""
        self.count = 0
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._take)
        self._server = grpc.server(_executor(), handlers=[_Everything(handler)])
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def _take(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.last, self.count = request, self.count + 1
        return b""

    def stop(self) -> None:
        self._server.stop(0).wait()


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


def _executor() -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max_workers=2)
