"""Calls to other services: replicas in turn, deadlines handed on, a breaker that opens, typed errors instead of `AioRpcError`.

`MeshChannel` is a `grpc.aio.Channel`, so generated stubs take it as it is. It wraps calls itself rather than by interceptors, which cost
every call a task and some 100 µs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from kernel.breaker import Breaker
from kernel.client_endpoints import Endpoint, Endpoints
from kernel.errors import DeadlineExceededError, Reason, TrademeshError, UnauthenticatedError, UnavailableError
from kernel.server_context import current_call
from kernel.status import from_rpc_error
from kernel.telemetry import Sample

if TYPE_CHECKING:
    from kernel.telemetry_traces import Tracing

_KEEPALIVE_MS = 1_000
"""A replica that stopped (SIGSTOP, a lost route) is noticed within two seconds, not at each call's deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How a dependency is called.

    Attributes:
        dependency: its name, such as `svc-risk`, for messages and metrics.
        targets: its replicas as `unix:/path`, or the own sidecar's egress socket and what to ask it for, `unix:/path?authority=host:9000`.
        health_service: a replica that reports this service as not serving gets no calls; None leaves that to the mesh.
        headers_file: headers to attach, by target; None where a sidecar does.
        idempotent: paths (`/package.Service/Method`) of reads and of calls with a key; a lost answer is retried once, on another replica.
        timeout_seconds: of a call that names none.
        margin_seconds: what is kept of the caller's deadline for our own answer.
        wait_for_ready: whether calls wait for a connection (background work) or fail at once (a request that somebody waits for).
        message_bytes_max: bound of one message, either way.
        failures_max: consecutive transport failures that open the breaker.
        reset_seconds: how long the breaker stays open.
    """

    dependency: str
    targets: tuple[str, ...]
    health_service: str | None = None
    headers_file: Path | None = None
    idempotent: frozenset[str] = frozenset()
    timeout_seconds: float = 5.0
    margin_seconds: float = 0.02
    wait_for_ready: bool = False
    message_bytes_max: int = 16 * 1024 * 1024
    failures_max: int = 5
    reset_seconds: float = 1.0


def _options(config: ClientConfig) -> list[tuple[str, Any]]:
    service: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if config.health_service is not None:
        service["healthCheckConfig"] = {"serviceName": config.health_service}
    return [
        ("grpc.service_config", json.dumps(service)),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.ping_timeout_ms", _KEEPALIVE_MS),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.max_receive_message_length", config.message_bytes_max),
        ("grpc.max_send_message_length", config.message_bytes_max),
    ]


class MeshChannel(grpc.aio.Channel):
    """The way to one dependency. Give it to a generated stub; its calls return messages and raise kernel errors.

    Unary calls raise `UnavailableError` (not connected, breaker open: nothing was done), `OutcomeUnknownError` (the answer to a call that
    is not idempotent was lost), `DeadlineExceededError`, or what the dependency answered. Streams are not guarded by the breaker.

    Args:
        config: how to call.
        tracing: spans for calls made while serving a sampled call; None makes none.
    """

    def __init__(self, config: ClientConfig, *, tracing: Tracing | None = None) -> None:
        self.config = config
        self._tracing = tracing
        interceptors = tracing.client_interceptors() if tracing is not None else []
        self.endpoints = Endpoints(config.targets, _options(config), interceptors, config.headers_file)
        self.breaker = Breaker(
            config.dependency, failures_max=config.failures_max, reset_seconds=config.reset_seconds, is_failure=_is_transport_failure
        )
        self.outcomes: dict[str, int] = {}

    def unary_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Return a callable coroutine `(request, *, timeout=None)`."""
        return _UnaryRpc(self, method, request_serializer, response_deserializer)

    def unary_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Return a callable `(request, *, timeout=None)` that returns an async iterator of responses."""
        return _StreamRpc(self, "unary_stream", method, request_serializer, response_deserializer)

    def stream_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Return a callable `(request_iterator, *, timeout=None)` that returns an async iterator of responses."""
        return _StreamRpc(self, "stream_stream", method, request_serializer, response_deserializer)

    def stream_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Raise ValueError: the contracts have no such method."""
        raise ValueError(f"{method}: streams of requests are answered by streams")

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return READY while any replica is."""
        ready = self.endpoints.ready_count() > 0
        return grpc.ChannelConnectivity.READY if ready else grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state differs from the one given; cancel it to give up."""
        while self.get_state() is last_observed_state:  # noqa: ASYNC110 (gRPC tells of one channel only, and cannot be asked to stop)
            await asyncio.sleep(0.05)

    async def channel_ready(self) -> None:
        """Return when a replica is ready; bound it with a timeout."""
        await self.wait_for_state_change(grpc.ChannelConnectivity.TRANSIENT_FAILURE)

    async def close(self, grace: float | None = None) -> None:
        """Close the connections; calls in progress get `grace` seconds."""
        await self.endpoints.close(grace)

    async def __aenter__(self) -> MeshChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def samples(self) -> list[Sample]:
        """Return the channel's metrics: calls by outcome, replicas ready, and its breaker's."""
        labels = (("dependency", self.config.dependency),)
        counts = [Sample("rpc_client_calls_total", count, (*labels, ("outcome", outcome))) for outcome, count in self.outcomes.items()]
        return [*counts, Sample("rpc_client_ready_replicas", self.endpoints.ready_count(), labels), *self.breaker.samples()]

    def timeout(self, asked: float | None) -> float:
        """Return the seconds that a call gets: what was asked, but never more than the served call has left, less the margin.

        Raises:
            DeadlineExceededError: nothing is left; nothing was sent.
        """
        timeout = self.config.timeout_seconds if asked is None else asked
        call = current_call.get()
        if call is not None:
            timeout = min(timeout, call.remaining_seconds() - self.config.margin_seconds)
        if timeout <= 0:
            raise DeadlineExceededError(Reason.DEADLINE_EXPIRED, f"no time is left to ask {self.config.dependency}")
        return timeout

    def is_traced(self) -> bool:
        """Return whether the call being served is sampled."""
        call = current_call.get()
        return self._tracing is not None and call is not None and call.sampled

    def metadata(self, endpoint: Endpoint, extra: Sequence[tuple[str, str | bytes]] | None, *, traced: bool) -> grpc.aio.Metadata:
        """Return the headers of a call to a replica; the trace goes on, in a span of its own where it is sampled."""
        call = current_call.get()
        trace = (("traceparent", call.traceparent),) if call is not None and call.traceparent and not traced else ()
        return grpc.aio.Metadata(*endpoint.headers, *trace, *(extra or ()))

    def count(self, outcome: str) -> None:
        """Count a call's end."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


def _is_transport_failure(error: BaseException) -> bool:
    """A dependency that answers "unavailable" works; one that does not answer at all does not. Only gRPC's own statuses name their code."""
    return isinstance(error, TrademeshError) and error.metadata.get("grpc_code") in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"}


class _Rpc:
    def __init__(self, channel: MeshChannel, kind: str, path: str, serializer: Any, deserializer: Any) -> None:
        self._channel = channel
        self._kind = kind
        self._path = path
        self._serializer = serializer
        self._deserializer = deserializer
        self._repeatable = path in channel.config.idempotent

    def _on(self, endpoint: Endpoint, *, traced: bool) -> Any:
        key = (self._path, traced)
        call = endpoint.calls.get(key)
        if call is None:
            make = getattr(endpoint.channel_for(traced=traced), self._kind)
            call = endpoint.calls[key] = make(self._path, self._serializer, self._deserializer)
        return call

    def _error(self, error: grpc.aio.AioRpcError) -> TrademeshError:
        return from_rpc_error(error, dependency=self._channel.config.dependency, repeatable=self._repeatable)


class _UnaryRpc(_Rpc):
    def __init__(self, channel: MeshChannel, path: str, serializer: Any, deserializer: Any) -> None:
        super().__init__(channel, "unary_unary", path, serializer, deserializer)

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        wait_for_ready: bool | None = None,
    ) -> Any:
        channel = self._channel
        deadline = asyncio.get_running_loop().time() + channel.timeout(timeout)
        try:
            with channel.breaker.guard():
                answer = await self._attempts(request, deadline, metadata, wait_for_ready)
        except TrademeshError as error:
            channel.count(error.reason.value)
            raise
        channel.count("OK")
        return answer

    async def _attempts(self, request: Any, deadline: float, metadata: Any, wait_for_ready: bool | None) -> Any:
        """At most two: the second goes to another replica, and only when the first was never executed or the call is idempotent."""
        last: Endpoint | None = None
        async for attempt in AsyncRetrying(stop=stop_after_attempt(2), retry=retry_if_exception(self._may_repeat), reraise=True):
            with attempt:
                endpoint = last = self._channel.endpoints.pick(avoid=last)
                return await self._once(endpoint, request, deadline, metadata, wait_for_ready)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _may_repeat(self, error: BaseException) -> bool:
        if isinstance(error, UnauthenticatedError) and error.reason is Reason.PEER_UNAUTHENTICATED:
            return self._channel.endpoints.reload_headers()
        if len(self._channel.endpoints) < 2 or not isinstance(error, UnavailableError):
            return False
        return self._repeatable or error.metadata.get("never_sent") == "true"

    async def _once(self, endpoint: Endpoint, request: Any, deadline: float, metadata: Any, wait_for_ready: bool | None) -> Any:
        channel = self._channel
        traced = channel.is_traced()
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            raise DeadlineExceededError(Reason.DEADLINE_EXPIRED, f"no time is left to ask {channel.config.dependency}")
        waits = channel.config.wait_for_ready if wait_for_ready is None else wait_for_ready
        try:
            return await self._on(endpoint, traced=traced)(
                request, timeout=remaining, metadata=channel.metadata(endpoint, metadata, traced=traced), wait_for_ready=waits
            )
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error


class _StreamRpc(_Rpc):
    async def __call__(
        self,
        request: Any | AsyncIterable[Any],
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        wait_for_ready: bool | None = None,
    ) -> AsyncIterator[Any]:
        channel = self._channel
        endpoint = channel.endpoints.pick()
        traced = channel.is_traced()
        waits = channel.config.wait_for_ready if wait_for_ready is None else wait_for_ready
        call = self._on(endpoint, traced=traced)(
            request, timeout=timeout, metadata=channel.metadata(endpoint, metadata, traced=traced), wait_for_ready=waits
        )
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            channel.count(error.code().name)
            raise self._error(error) from error
        finally:
            call.cancel()
