"""What the wire tests of all services share: the sidecar's part, servers and whole replicas on sockets of their own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from kernel.errors import Reason
from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from kernel.logs import LineWriter
from kernel.server_policy import ServiceBinding
from kernel.status import from_status
from kernel.telemetry import Telemetry, TelemetryConfig

SECRET = "a-secret-of-this-test-run-alone"
START_SECONDS = 20
USER_SECONDS = 86_400
"""How long users are known for: many are made when tests are collected, long before the last of them runs."""


def key() -> str:
    """Return a fresh request id."""
    return str(uuid.uuid4())


def user(
    *roles: str, tenant: str = "north", accounts: Sequence[str] = ("ACC-1",), principal: str = "ada", seconds: int = USER_SECONDS
) -> User:
    """Return a user, for a day unless told otherwise."""
    return User(principal, tenant, frozenset(roles), frozenset(accounts), int(time.time()) + seconds)


def headers(caller: User | None, peer: str = "edge", secret: str = SECRET) -> list[tuple[str, str]]:
    """Return what the sidecar attaches for a user that came through a peer; None for no user."""
    attached = [(SECRET_HEADER, secret), (PEER_HEADER, xfcc(peer, trust_domain="trademesh.local", namespace="trading"))]
    return attached if caller is None else [*attached, (CLAIMS_HEADER, claims_header(caller))]


def headers_file(folder: Path, peer: str) -> Path:
    """Write what a replica attaches to its calls in its sidecar's place, and return where."""
    file = folder / f"{peer}-headers.json"
    file.write_text(json.dumps({"*": dict(headers(None, peer))}))
    file.chmod(0o600)
    return file


class RefusedError(Exception):
    """A call that ended with a status: its code, our reason, the fields that it blames, and the type and subject of its preconditions."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        status: status_pb2.Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what a call has
        ours = None if status is None else from_status(status)
        self.code = error.code()
        self.reason = None if ours is None else ours.reason
        self.fields = [] if ours is None else [violation.field for violation in ours.field_violations]
        self.preconditions = [] if status is None else _preconditions(status)
        super().__init__(self.code, self.reason, self.fields, error.details())

    @property
    def said(self) -> tuple[str, Reason | None]:
        """Return code and reason."""
        return self.code.name, self.reason


def _preconditions(status: status_pb2.Status) -> list[tuple[str, str]]:
    failure = error_details_pb2.PreconditionFailure()
    found = [failure.violations[0] for detail in status.details if detail.Unpack(failure)]
    return [(violation.type, violation.subject) for violation in found]


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder of one's own, mode 0700, with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="tmw-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def insecure(target: str) -> grpc.aio.Channel:
    """Return a bare channel that shares no connection with other tests."""
    return grpc.aio.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1),))


async def _always() -> bool:
    return True


def server_of(service: str, socket_path: Path, services: Sequence[ServiceBinding], *, grace_seconds: float = 2.0) -> GrpcServer:
    """Return a server of bindings that ends without draining."""
    instance = service.replace("-", "_") + "-0"
    return GrpcServer(
        ServerConfig(
            service=service,
            instance=instance,
            socket_path=socket_path,
            sidecar_secret=SECRET,
            drain_seconds=0.0,
            grace_seconds=grace_seconds,
        ),
        services,
        ready=_always,
        telemetry=Telemetry(TelemetryConfig(service, instance)),
        log_writer=LineWriter(io.BytesIO()),
        now=time.time,
    )


@contextlib.asynccontextmanager
async def serving(service: str, socket_path: Path, services: Sequence[ServiceBinding]) -> AsyncIterator[grpc.aio.Channel]:
    """Serve bindings until the block ends; yield a channel to them."""
    server = server_of(service, socket_path, services)
    async with insecure(f"unix:{socket_path}") as channel:
        try:
            await server.start()
            yield channel
        finally:
            await channel.close()
            await server.stop()


class PlainServer:
    """The server of a service made by hand, without anything of ours around it; `stop` makes it as dead as a killed process.

    Args:
        path: of its UNIX socket.
        register: adds its servicers to a server.
    """

    def __init__(self, path: Path, register: Callable[[grpc.aio.Server], None]) -> None:
        self.target = f"unix:{path}"
        self._register = register
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        server = grpc.aio.server()
        self._register(server)
        server.add_insecure_port(self.target)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@contextlib.contextmanager
def kept_logging() -> Iterator[None]:
    """Give the process's logging back as it was: a replica in this process takes it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.asynccontextmanager
async def replica(
    socket_path: Path, serve: Callable[[asyncio.Event], Awaitable[None]]
) -> AsyncIterator[tuple[grpc.aio.Channel, asyncio.Event]]:
    """Run a whole replica in this process, and stop it in good order; yield a channel to it once it serves, and what stops it."""
    stop = asyncio.Event()
    with kept_logging():
        running = asyncio.ensure_future(serve(stop))
        try:
            async with insecure(f"unix:{socket_path}") as channel:
                ready = asyncio.ensure_future(_until_serving(channel))
                await asyncio.wait([ready, running], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    ready.cancel()
                    running.result()
                await ready
                yield channel, stop
        finally:
            stop.set()
            await running


async def _until_serving(channel: grpc.aio.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    async for answer in health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
