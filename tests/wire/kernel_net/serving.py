"""A real server of the order contract on a UNIX socket, with a scripted servicer behind the real pipeline."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from kernel.logs import LineWriter
from kernel.server_context import CallContext
from kernel.server_policy import MethodPolicy, ServiceBinding, inside, outside
from kernel.server_streams import InvalidMessage
from kernel.status import to_status
from kernel.telemetry import Telemetry, TelemetryConfig
from tests.wire.serving import USER_SECONDS
from trademesh.oms.v1 import order_pb2, order_service_pb2

SECRET = "a-secret-of-this-test-run"
SERVICE = order_service_pb2.DESCRIPTOR.services_by_name["OrderService"]


def user(**changes: Any) -> User:
    fields = {"principal": "alice", "tenant": "acme", "roles": frozenset({"trader"}), "accounts": frozenset({"ACC-1"})}
    return User(**{**fields, "expires_at": int(time.time()) + USER_SECONDS, **changes})


def headers(peer: str = "edge", caller: User | None = None, secret: str = SECRET) -> tuple[tuple[str, str], ...]:
    return (
        (SECRET_HEADER, secret),
        (PEER_HEADER, xfcc(peer, trust_domain="trademesh.local", namespace="trading")),
        (CLAIMS_HEADER, claims_header(caller or user())),
    )


def order_request(**changes: Any) -> order_service_pb2.CreateOrderRequest:
    fields: dict[str, Any] = {"account_id": "ACC-1", "client_order_id": "c-1", "instrument_id": "AAPL", "quantity": "100"}
    fields |= {"side": 1, "type": 2, "time_in_force": 1, "limit_price": "187.25"}
    return order_service_pb2.CreateOrderRequest(**{**fields, **changes})


class ScriptedOrders:
    """Answers each RPC by `script`, echoing the client's key unless told otherwise."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.script: Callable[[Any, CallContext], Any] | None = None
        self.calls: list[CallContext] = []
        self.stream_ended = asyncio.Event()

    async def _answer(self, request: Any, context: CallContext) -> order_service_pb2.CreateOrderResponse:
        self.calls.append(context)
        if self.script is not None:
            outcome = self.script(request, context)
            if asyncio.iscoroutine(outcome):
                outcome = await outcome
            if isinstance(outcome, BaseException):
                raise outcome
        order = order_pb2.Order(order_id=self.name, client_order_id=getattr(request, "client_order_id", ""))
        return order_service_pb2.CreateOrderResponse(order=order)

    def __getattr__(self, name: str) -> Any:
        if name in SERVICE.methods_by_name:
            return self._answer
        raise AttributeError(name)

    async def EnterOrders(self, requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Any]:  # noqa: N802 (the contract's name)
        self.calls.append(context)
        try:
            async for item in requests:
                if isinstance(item, InvalidMessage):
                    yield order_service_pb2.EnterOrdersResponse(
                        correlation_id=item.request.correlation_id,  # type: ignore[attr-defined]
                        error=to_status(item.error),
                    )
                else:
                    yield order_service_pb2.EnterOrdersResponse(correlation_id=item.correlation_id, order=order_pb2.Order())
        finally:
            self.stream_ended.set()

    async def StreamOrderEvents(self, request: Any, context: CallContext) -> AsyncIterator[Any]:  # noqa: N802 (as above)
        self.calls.append(context)
        context.set_initial_metadata("x-stream", "yes")
        sequence = 1
        try:
            yield order_service_pb2.StreamOrderEventsResponse(sequence=sequence)
            assert context.draining is not None
            await context.draining.wait()
            yield order_service_pb2.StreamOrderEventsResponse(sequence=sequence + 1)
        finally:
            self.stream_ended.set()


POLICIES: dict[str, MethodPolicy] = {
    **{name: outside("trader", write=True) for name in SERVICE.methods_by_name},
    "GetOrder": outside("trader", "viewer", write=False),
    "CancelOrder": outside("trader", write=True, priority=True),
    "CancelAllOrders": inside("svc-risk", write=True),
    "EnterOrders": outside("trader", write=True, pass_invalid=True),
    "LookupOrder": outside("trader", write=False, timeout_seconds=0.05),
    "ReplaceOrder": outside("trader", write=True, timeout_seconds=0.05),
    "CreateOrder": outside("trader", write=True, request_bytes_max=4096),
}


class Served:
    """A running server and what a test looks at."""

    def __init__(self, server: GrpcServer, orders: ScriptedOrders, socket: Path, log: io.BytesIO, writer: LineWriter) -> None:
        self.server = server
        self.orders = orders
        self.socket = socket
        self.target = f"unix:{socket}"
        self.ready = True
        self.clock_skew_seconds = 0.0
        self._log = log
        self._writer = writer

    def log_lines(self) -> list[dict[str, Any]]:
        self.server.flush_logs()
        self._writer.flush()
        return [json.loads(line) for line in self._log.getvalue().splitlines()]


@asynccontextmanager
async def serving(name: str = "svc-oms-0", *, telemetry: Telemetry | None = None, **config: Any) -> AsyncIterator[Served]:
    """Serve the order contract until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="tmk-", dir="/tmp"))
    log = io.BytesIO()
    writer = LineWriter(log)
    orders = ScriptedOrders(name)
    settings: dict[str, Any] = {"service": "svc-oms", "instance": name, "socket_path": folder / "grpc.sock", "sidecar_secret": SECRET}
    settings |= {"drain_seconds": 0.0, "grace_seconds": 2.0, **config}

    async def ready() -> bool:
        return served.ready

    server = GrpcServer(
        ServerConfig(**settings),
        [ServiceBinding(SERVICE, orders, POLICIES)],
        ready=ready,
        telemetry=telemetry or Telemetry(TelemetryConfig("svc-oms", name)),
        log_writer=writer,
        now=lambda: time.time() + served.clock_skew_seconds,
        ready_poll_seconds=0.02,
    )
    served = Served(server, orders, settings["socket_path"], log, writer)
    try:
        await server.start()
        yield served
    finally:
        await server.stop()
        shutil.rmtree(folder)


async def until(condition: Callable[[], Any], *, seconds: float = 5.0) -> None:
    """Wait until a condition holds, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def forever() -> None:
    """Never return; a handler that hangs."""
    await asyncio.Event().wait()
