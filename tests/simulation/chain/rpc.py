"""Calls between hosts: the real client half (`MeshChannel`: replicas in turn, two attempts, breaker, typed errors) over simulated links,
and on the other side the real handlers, with the request decoded and checked and the answer or error encoded as on the wire.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from kernel.breaker import Breaker
from kernel.errors import DeadlineExceededError, InternalError, OutcomeUnknownError, Reason, TrademeshError
from kernel.grpc_client import ClientConfig, MeshChannel, _is_transport_failure
from kernel.identity import Identity
from kernel.server_context import CallContext, current_call
from kernel.server_policy import BoundMethod, ServiceBinding, bound_methods
from kernel.server_streams import decode
from kernel.status import DETAILS_KEY, NEVER_SENT, status_code, to_status
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.network import Network

KEEPALIVE_SECONDS = 2.0
STREAM_SECONDS_MAX = 3_600.0
STREAM_MESSAGES_AHEAD_MAX = 64
"""How many messages a server can write before its client reads."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A handler raised what no caller should ever see."""

    host: str
    method: str
    error: BaseException


class Switchboard:
    """Who serves at which address now."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.defects: list[Defect] = []
        self.doubled: list[bytes] = []
        self._serving: dict[str, tuple[Host, dict[str, BoundMethod]]] = {}

    def serve(self, address: str, host: Host, bindings: Sequence[ServiceBinding]) -> None:
        """Let a host serve at an address until it dies."""
        methods = {method.path: method for binding in bindings for method in bound_methods(binding)}
        self._serving[address] = host, methods

    def at(self, address: str) -> tuple[Host, dict[str, BoundMethod]] | None:
        """Return who serves at an address, None while nobody does."""
        known = self._serving.get(address)
        return known if known is not None and known[0].alive else None


class SimChannel(MeshChannel):
    """The way from one host to the replicas of a service. Generated stubs take it as it is."""

    def __init__(self, switchboard: Switchboard, here: Host, config: ClientConfig, identity: Identity) -> None:
        self.config = config
        self._tracing = None
        self.endpoints = SimEndpoints(switchboard, here, config.targets, identity)  # type: ignore[assignment]
        self.breaker = Breaker(
            config.dependency, failures_max=config.failures_max, reset_seconds=config.reset_seconds, is_failure=_is_transport_failure
        )
        self.outcomes = {}


class SimEndpoints:
    """See `kernel.client_endpoints.Endpoints`."""

    def __init__(self, switchboard: Switchboard, here: Host, targets: Sequence[str], identity: Identity) -> None:
        self._all = [SimEndpoint(switchboard, here, target, identity) for target in targets]
        self._next = switchboard.network.dice.randrange(len(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def pick(self, avoid: SimEndpoint | None = None) -> SimEndpoint:
        """Return the next replica that is up as far as the client knows, else the next one at all."""
        first: SimEndpoint | None = None
        for _ in self._all:
            endpoint = self._all[self._next % len(self._all)]
            self._next += 1
            if endpoint is avoid:
                continue
            if endpoint.up:
                return endpoint
            first = first or endpoint
        return first or self._all[0]

    def ready_count(self) -> int:
        """Return how many replicas are up."""
        return sum(endpoint.up for endpoint in self._all)

    def reload_headers(self) -> bool:
        """There are no headers."""
        return False

    async def close(self, grace: float | None) -> None:
        """There is nothing to close."""


class SimEndpoint:
    """See `kernel.client_endpoints.Endpoint`."""

    def __init__(self, switchboard: Switchboard, here: Host, target: str, identity: Identity) -> None:
        self.headers: tuple[tuple[str, str], ...] = ()
        self.calls: dict[tuple[str, bool], Any] = {}
        self._switchboard = switchboard
        self._here = here
        self._target = target
        self._identity = identity

    @property
    def up(self) -> bool:
        """Whether somebody serves there."""
        return self._switchboard.at(self._target) is not None

    def channel_for(self, *, traced: bool) -> SimEndpoint:
        """Return what makes calls: this."""
        return self

    def unary_unary(self, path: str, serializer: Any, deserializer: Any) -> Any:
        """Return a callable as gRPC makes them."""

        async def call(request: Any, *, timeout: float, metadata: Any = None, wait_for_ready: bool = False) -> Any:
            link = _Link(self._switchboard, self._here, self._target, self._identity)
            return deserializer(await link.call(path, serializer(request), timeout))

        return call

    def unary_stream(self, path: str, serializer: Any, deserializer: Any) -> Any:
        """Return a callable as gRPC makes them."""

        def call(request: Any, *, timeout: float | None, metadata: Any = None, wait_for_ready: bool = False) -> SimStream:
            link = _Link(self._switchboard, self._here, self._target, self._identity)
            return SimStream(link, path, serializer(request), deserializer, timeout or STREAM_SECONDS_MAX)

        return call


class _Link:
    """One attempt of one call."""

    def __init__(self, switchboard: Switchboard, here: Host, target: str, identity: Identity) -> None:
        self._switchboard = switchboard
        self.network = switchboard.network
        self.identity = identity
        self._here = here
        self._target = target

    async def find(self) -> tuple[Host, dict[str, BoundMethod]]:
        """Return who serves at the other end."""
        if not self._here.alive:
            raise _failure(grpc.StatusCode.UNAVAILABLE, "this process was killed")
        serving = self._switchboard.at(self._target)
        if serving is None:
            await asyncio.sleep(self.network.latency())
            raise _failure(grpc.StatusCode.UNAVAILABLE, f"{NEVER_SENT[0]}; connection refused")
        return serving

    async def call(self, path: str, request: bytes, timeout: float) -> bytes:
        """Call once and return the answer."""
        network, dice = self.network, self.network.dice
        there, methods = await self.find()
        try:
            async with asyncio.timeout(timeout):
                await self.cross(there)
                work = self._start(there, methods[path], request, timeout)
                if dice.random() < network.weather.twice_share:
                    self._switchboard.doubled.append(request)
                    self._start(there, methods[path], request, timeout, late=dice.expovariate(2.0))
                answer = await self._answer(there, work, lost=dice.random() < network.weather.loss_share)
        except TimeoutError:
            raise _failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        if isinstance(answer, bytes):
            return answer
        assert isinstance(answer, grpc.aio.AioRpcError)
        raise answer

    async def notice_cut(self, there: Host) -> None:
        """Notice, by keepalive, that the other host cannot be reached."""
        if self.network.healed_at(self._here, there) > self.network.loop.time():
            await asyncio.sleep(KEEPALIVE_SECONDS)
            raise _failure(grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout")

    async def cross(self, there: Host) -> None:
        """Travel one way."""
        await self.notice_cut(there)
        await asyncio.sleep(self.network.latency())
        if not there.alive or not self._here.alive:
            raise _failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    def _start(self, there: Host, method: BoundMethod, request: bytes, timeout: float, *, late: float = 0.0) -> asyncio.Task[Any]:
        return there.spawn(self._serve(there, method, request, self.context(method, timeout), late), name=f"{there.name}{method.path}")

    def context(self, method: BoundMethod, timeout: float) -> CallContext:
        """Return what the handler is told about the call."""
        time = self.network.loop.time
        return CallContext(self.identity, method=method.path, deadline=time() + timeout, monotonic=time)

    async def _serve(self, there: Host, method: BoundMethod, request: bytes, context: CallContext, late: float) -> Any:
        await asyncio.sleep(late)
        current_call.set(context)
        try:
            # As the server's pipeline does: decode, check, bound, answer; whatever ends the call has a status.
            method.policy.authorize(self.identity)
            async with asyncio.timeout(method.policy.timeout_seconds):
                response: Message = await method.handler(decode(method, request), context)
            return response.SerializeToString()
        except TimeoutError:
            unknown = OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "not done in time")
            return _refusal(unknown if method.policy.write else DeadlineExceededError(Reason.DEADLINE_EXPIRED, "not done in time"))
        except Exception as error:  # noqa: BLE001 (a handler's defect is recorded, and fails the run)
            return self.refusal(there, method, error)

    def refusal(self, there: Host, method: BoundMethod, error: Exception) -> grpc.aio.AioRpcError:
        """Return the status that an error ends a call with; a defect is written down."""
        refused = error if isinstance(error, TrademeshError) else InternalError(Reason.INTERNAL, "internal error")
        if isinstance(refused, InternalError) and there.alive:
            self._switchboard.defects.append(Defect(there.name, method.path, error.__cause__ or error))
        return _refusal(refused)

    async def _answer(self, there: Host, work: asyncio.Task[Any], *, lost: bool) -> Any:
        network = self.network
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            # gRPC tells the server that nobody waits any more.
            network.loop.call_later(network.latency(), work.cancel, context=contextvars.Context())
            raise
        await self.notice_cut(there)
        await asyncio.sleep(network.latency())
        if lost or work.cancelled() or work.exception() is not None:
            return _failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return work.result()


class SimStream:
    """One call that is answered by many messages, in order, over one connection that may break."""

    def __init__(self, link: _Link, path: str, request: bytes, deserializer: Any, timeout: float) -> None:
        self._link = link
        self._path = path
        self._request = request
        self._deserializer = deserializer
        self._timeout = timeout
        self._deadline = link.network.loop.time() + timeout
        self._there: Host | None = None
        self._work: asyncio.Task[None] | None = None
        self._sent: asyncio.Queue[bytes | grpc.aio.AioRpcError | None] = asyncio.Queue(STREAM_MESSAGES_AHEAD_MAX)

    def cancel(self) -> None:
        """Hang up; the server hears of it a little later."""
        if self._work is not None:
            network = self._link.network
            network.loop.call_later(network.latency(), self._work.cancel, context=contextvars.Context())

    def __aiter__(self) -> SimStream:
        return self

    async def __anext__(self) -> Any:
        network = self._link.network
        if self._there is None or self._work is None:
            self._there, methods = await self._link.find()
            await self._link.cross(self._there)
            self._work = self._there.spawn(self._serve(self._there, methods[self._path]), name=f"{self._there.name}{self._path}")
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._next(self._there, self._work)
        except TimeoutError:
            raise _failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        if message is None:
            raise StopAsyncIteration
        if isinstance(message, grpc.aio.AioRpcError):
            raise message
        if network.dice.random() < network.weather.loss_share:
            raise _failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return self._deserializer(message)

    async def _next(self, there: Host, work: asyncio.Task[None]) -> bytes | grpc.aio.AioRpcError | None:
        if not self._sent.empty():
            return self._sent.get_nowait()
        getter = asyncio.create_task(self._sent.get())
        try:
            while not getter.done():
                await asyncio.wait({getter, work}, timeout=KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                await self._link.notice_cut(there)
                if work.done() and not getter.done() and self._sent.empty():
                    raise _failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")
                if work.done():
                    await getter
            await asyncio.sleep(self._link.network.latency())
            return getter.result()
        finally:
            getter.cancel()

    async def _serve(self, there: Host, method: BoundMethod) -> None:
        context = self._link.context(method, self._timeout)
        current_call.set(context)
        end: grpc.aio.AioRpcError | None = None
        try:
            method.policy.authorize(self._link.identity)
            async with aclosing(method.handler(decode(method, self._request), context)) as messages:
                async for message in messages:
                    if not there.alive:
                        return
                    await self._sent.put(message.SerializeToString())
        except Exception as error:  # noqa: BLE001 (a handler's defect is recorded, and fails the run)
            end = self._link.refusal(there, method, error)
        await self._sent.put(end)


def _failure(code: grpc.StatusCode, text: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), text)


def _refusal(error: TrademeshError) -> grpc.aio.AioRpcError:
    status = to_status(error)
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(status_code(error), grpc.aio.Metadata(), trailers, status.message)
