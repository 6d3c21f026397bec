"""Runs a service's gRPC server: one UNIX socket, health, reflection, the pipeline around every handler, a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from kernel.identity import Authenticator
from kernel.logs import LineWriter
from kernel.server_admission import Admission, Lane
from kernel.server_journal import RpcJournal
from kernel.server_pipeline import Pipeline, Route
from kernel.server_policy import MethodPolicy, ServiceBinding, bound_methods
from kernel.telemetry import Sample, Telemetry

_logger = logging.getLogger(__name__)

SOCKET_PATH_LENGTH_MAX = 107
"""sun_path of Linux, less its terminator."""

_HEALTH_PREFIX = "/grpc.health.v1.Health/"
_PROBE_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server serves.

    Attributes:
        service: the service's name, such as `svc-oms`.
        instance: the replica's name.
        socket_path: the UNIX socket, at most 107 bytes; its folder must be the user's own, mode 0700.
        sidecar_secret: what the instance's sidecar adds to every call, at least 16 characters.
        trust_domain: of the mesh.
        namespace: of the workloads.
        calls_max: unary calls in progress.
        priority_calls_max: further ones for priority methods.
        streams_max: streams in progress.
        message_bytes_max: hard bound of one message; a method's own bound is tighter and answers with a typed error.
        stream_seconds_max: after which a stream is ended, to be resumed.
        drain_seconds: between NOT_SERVING and refusing calls, for balancers to notice.
        grace_seconds: for calls in progress, after that.
    """

    service: str
    instance: str
    socket_path: Path
    sidecar_secret: str
    trust_domain: str = "trademesh.local"
    namespace: str = "trading"
    calls_max: int = 2_048
    priority_calls_max: int = 512
    streams_max: int = 1_024
    message_bytes_max: int = 4 * 1024 * 1024
    stream_seconds_max: float = 3_600.0
    drain_seconds: float = 0.5
    grace_seconds: float = 5.0


class GrpcServer:
    """One service's server.

    Args:
        config: how to serve.
        services: what to serve; reflection and `grpc.health.v1` are added.
        ready: asked every `ready_poll_seconds`; False, an exception or two seconds of silence make health NOT_SERVING until the next True.
        telemetry: takes the RPC statistics; traces sampled calls once started.
        log_writer: takes the canonical log lines.
        now: the wall clock in Unix seconds, against which tokens expire.
    """

    def __init__(
        self,
        config: ServerConfig,
        services: Sequence[ServiceBinding],
        *,
        ready: Callable[[], Awaitable[bool]],
        telemetry: Telemetry,
        log_writer: LineWriter,
        now: Callable[[], float],
        ready_poll_seconds: float = 0.5,
    ) -> None:
        self._ready_poll_seconds = ready_poll_seconds
        self._config = config
        self._services = services
        self._ready = ready
        self._telemetry = telemetry
        self._draining = asyncio.Event()
        self._health = health.aio.HealthServicer()
        self._lanes = (
            Lane("ordinary", config.calls_max),
            Lane("priority", config.priority_calls_max),
            Lane("streams", config.streams_max),
        )
        authenticator = Authenticator(config.sidecar_secret, trust_domain=config.trust_domain, namespace=config.namespace, now=now)
        admission = Admission(authenticator, draining=self._draining, stream_seconds_max=config.stream_seconds_max)
        self._journal = RpcJournal(log_writer, service=config.service, instance=config.instance)
        ordinary, priority, streams = self._lanes
        self._pipeline = Pipeline(admission, self._journal, ordinary=ordinary, priority=priority, streams=streams)
        self._server: grpc.aio.Server | None = None
        self._probe: asyncio.Task[None] | None = None

    @property
    def draining(self) -> asyncio.Event:
        """Set when the server begins to stop."""
        return self._draining

    async def start(self) -> None:
        """Bind and serve. Health is NOT_SERVING until `ready` has said True.

        Raises:
            ValueError: the socket's path is too long, or its folder is open to others.
            OSError, RuntimeError: the socket cannot be bound.
        """
        config = self._config
        _check_socket_path(config.socket_path)
        size = config.message_bytes_max
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", size),
                ("grpc.max_metadata_size", 32 * 1024),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 500),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.so_reuseport", 0),
            )
        )
        handlers = await self._handlers()
        server.add_generic_rpc_handlers((handlers,))
        # The socket must never be reachable by others, not even between bind and chmod.
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{config.socket_path}")
        finally:
            os.umask(before)
        for name in ("", *(binding.descriptor.full_name for binding in self._services)):
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        self._server = server
        self._telemetry.metrics.source(self._samples)
        self._probe = asyncio.get_running_loop().create_task(self._watch_readiness())

    async def _handlers(self) -> _Handlers:
        names = [binding.descriptor.full_name for binding in self._services]
        bindings = [*self._services, _reflection_binding(names)]
        routes: dict[str, Route] = {}
        traced: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        tracing = self._telemetry.tracing
        for method in (method for binding in bindings for method in bound_methods(binding)):
            routes[method.path] = self._pipeline.route(method)
            if tracing is not None:
                traced[method.path] = await tracing.traced(method.path, self._pipeline.traced_handler(method))
        sampled = tracing.sampler.sampled if tracing is not None else None
        return _Handlers(routes, traced, _health_handlers(self._health), sampled, self._pipeline.unknown)

    async def _watch_readiness(self) -> None:
        serving: bool | None = None
        while True:
            ready = await self._is_ready()
            if ready is not serving:
                serving = ready
                status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
                for name in ("", *(binding.descriptor.full_name for binding in self._services)):
                    await self._health.set(name, status)
                _logger.log(logging.INFO if ready else logging.WARNING, "%s", "serving" if ready else "not ready, not serving")
            await asyncio.sleep(self._ready_poll_seconds)

    async def _is_ready(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                return await self._ready()
        except Exception as error:  # noqa: BLE001 (whatever a probe trips over, the answer is: not ready)
            _logger.warning("readiness probe failed: %r", error)
            return False

    def _samples(self) -> list[Sample]:
        samples = self._journal.samples()
        for lane in self._lanes:
            labels = (("lane", lane.name),)
            samples.append(Sample("rpc_server_running", lane.running, labels))
            samples.append(Sample("rpc_server_shed_total", lane.shed_total, labels))
        return samples

    def flush_logs(self) -> None:
        """Hand the canonical lines of all calls ended so far to the log writer."""
        self._journal.flush()

    async def stop(self) -> None:
        """Stop gracefully: NOT_SERVING; then streams are told to end and new calls refused; then calls in progress get their grace."""
        if self._server is None:
            return
        if self._probe is not None:
            self._probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probe
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._config.drain_seconds)
        self._draining.set()
        await self._server.stop(self._config.grace_seconds)
        self._server = None
        self._journal.flush()
        self._config.socket_path.unlink(missing_ok=True)


class _Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a call: by path in a dict, not by gRPC's walk over one handler per service."""

    def __init__(
        self,
        routes: dict[str, Route],
        traced: dict[str, grpc.RpcMethodHandler[Any, Any]],
        health: dict[str, grpc.RpcMethodHandler[Any, Any]],
        sampled: Callable[[Any], bool] | None,
        unknown: Callable[[str], Route],
    ) -> None:
        self._routes = routes
        self._traced = traced
        self._health = health
        self._sampled = sampled
        self._unknown = unknown

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        path, metadata = handler_call_details.method, handler_call_details.invocation_metadata
        route = self._routes.get(path)
        if route is None:
            return self._health.get(path) or self._unknown(path)(metadata)
        if self._sampled is not None and self._sampled(metadata):
            return self._traced[path]
        handler: grpc.RpcMethodHandler[Any, Any] = route(metadata)
        return handler


def _health_handlers(servicer: health.aio.HealthServicer) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Health answers without the sidecar's secret, and outside the pipeline: balancers ask often, and they are nobody."""
    parse = health_pb2.HealthCheckRequest.FromString
    write = health_pb2.HealthCheckResponse.SerializeToString
    return {
        f"{_HEALTH_PREFIX}Check": grpc.unary_unary_rpc_method_handler(servicer.Check, parse, write),
        f"{_HEALTH_PREFIX}Watch": grpc.unary_stream_rpc_method_handler(servicer.Watch, parse, write),
    }


def _reflection_binding(names: Sequence[str]) -> ServiceBinding:
    servicer = reflection.aio.ReflectionServicer((*names, "grpc.health.v1.Health", reflection.SERVICE_NAME))
    descriptor = cast("ServiceDescriptor", reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
    policy = MethodPolicy(peers=None, user_required=False, write=False)
    return ServiceBinding(descriptor, servicer, {"ServerReflectionInfo": policy})


def _check_socket_path(path: Path) -> None:
    if len(os.fsencode(path)) > SOCKET_PATH_LENGTH_MAX:
        raise ValueError(f"the socket's path is longer than {SOCKET_PATH_LENGTH_MAX} bytes: {path}")
    folder = path.parent.stat()
    if folder.st_uid != os.geteuid() or stat.S_IMODE(folder.st_mode) & 0o077:
        raise ValueError(f"the socket's folder must belong to this user alone (mode 0700): {path.parent}")
