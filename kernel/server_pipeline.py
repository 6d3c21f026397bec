"""What every RPC passes through, bound to its handler once when the server starts.

Not a chain of `grpc.aio` interceptors: each costs a coroutine, a partial and a handler object per call, and sees no request. Here a call is
one object, which gRPC takes for the method's handler; it parses and serializes itself, so a caller without rights costs no parsing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from kernel.errors import (
    DeadlineExceededError,
    InternalError,
    NotFoundError,
    OutcomeUnknownError,
    Reason,
    TrademeshError,
)
from kernel.server_admission import Admission, Lane, Metadata
from kernel.server_context import CallContext, current_call
from kernel.server_journal import RpcJournal
from kernel.server_policy import BoundMethod, MethodPolicy
from kernel.server_streams import CheckedRequests, decode
from kernel.status import Refusal, refusal_of

_logger = logging.getLogger(__name__)

_STREAM_END_SECONDS = 1.0
"""What a stream has to say `end` after its time is over, before it is cut."""


class Route:
    """One method on its way through the pipeline: calling it returns the object that serves one call."""

    __slots__ = ("admission", "call_type", "journal", "lane", "method", "stats", "traced")

    def __init__(self, method: BoundMethod, admission: Admission, journal: RpcJournal, lane: Lane, *, traced: bool) -> None:
        self.method = method
        self.admission = admission
        self.journal = journal
        self.lane = lane
        self.stats = journal.stats(method.path)
        self.traced = traced
        self.call_type: type[_Call] = _UnaryCall
        if method.server_streaming:
            self.call_type = _BidiCall if method.client_streaming else _ServerStreamCall

    def __call__(self, metadata: Metadata) -> Any:
        """Return what gRPC takes for the handler of one call."""
        return self.call_type(self, metadata)


class Pipeline:
    """Makes routes. One per server.

    Args:
        admission: who may call.
        journal: what is noted of calls.
        ordinary: places for unary calls.
        priority: places for unary calls whose policy has priority.
        streams: places for streams.
    """

    def __init__(self, admission: Admission, journal: RpcJournal, *, ordinary: Lane, priority: Lane, streams: Lane) -> None:
        self._admission = admission
        self._journal = journal
        self._ordinary = ordinary
        self._priority = priority
        self._streams = streams

    def route(self, method: BoundMethod) -> Route:
        """Return the route of a method.

        Raises:
            ValueError: a client-streaming method with a single answer; the contracts have none.
        """
        return self._route(method, traced=False)

    def traced_handler(self, method: BoundMethod) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return a handler in gRPC's own form, for calls inside a recorded span."""
        route = self._route(method, traced=True)

        async def unary(data: bytes, grpc_context: Any) -> bytes:
            return await _UnaryCall(route, grpc_context.invocation_metadata()).unary_unary(data, grpc_context)

        async def stream(requests: Any, grpc_context: Any) -> AsyncIterator[bytes]:
            call = _ServerStreamCall(route, grpc_context.invocation_metadata())
            async with aclosing(call.serve(requests, grpc_context)) as answers:
                async for answer in answers:
                    yield answer

        if not method.server_streaming:
            return grpc.unary_unary_rpc_method_handler(unary)
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_stream_rpc_method_handler(stream)

    def _route(self, method: BoundMethod, *, traced: bool) -> Route:
        if method.client_streaming and not method.server_streaming:
            raise ValueError(f"{method.path}: streams of requests are answered by streams")
        lane = self._priority if method.policy.priority else self._ordinary
        return Route(method, self._admission, self._journal, self._streams if method.server_streaming else lane, traced=traced)

    def unknown(self, path: str) -> Route:
        """Return the route of a method that does not exist. It says so to the mesh, and to nobody else."""

        async def refuse(*_: object) -> Message:
            raise NotFoundError(Reason.METHOD_NOT_FOUND, f"no method {path[:200]}")

        policy = MethodPolicy(peers=None, user_required=False, write=False, validate=False)
        method = BoundMethod("(unknown)", refuse, policy, _Anything, client_streaming=False, server_streaming=False)
        return self._route(method, traced=False)


class _Anything:
    """The request type of a method that does not exist."""

    @staticmethod
    def FromString(data: bytes) -> bytes:  # noqa: N802 (protobuf's name)
        return data


class _Call:
    """One call: what gRPC takes for its handler (by its attributes), its place in a lane and its entry in the journal."""

    request_streaming = False
    response_streaming = False
    request_deserializer = None
    response_serializer = None

    def __init__(self, route: Route, metadata: Metadata) -> None:
        self.route = route
        self.metadata = metadata
        self.started = time.perf_counter()
        self.context: CallContext | None = None

    def note(self, code: str, reason: str = "") -> None:
        route, context = self.route, self.context
        if context is None:
            route.journal.record(route.stats, None, code, reason, self.started, 0, "")
        else:
            route.journal.record(route.stats, context.identity, code, reason, self.started, context.batch_size, context.trace_id)

    def begin(self, remaining: float | None) -> CallContext:
        route = self.route
        context = self.context = route.admission.admit(route.method, self.metadata, remaining, traced=route.traced)
        current_call.set(context)
        return context

    async def fail(self, grpc_context: Any, error: BaseException) -> NoReturn:
        """End a call that did not answer: the caller gets a typed status, the log a line, a defect its stack trace under the trace id."""
        if isinstance(error, TrademeshError):
            known: TrademeshError = error
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            trace_id = self.context.trace_id if self.context is not None else ""
            _logger.error("unexpected error in %s", self.route.method.path, exc_info=error, extra={"fields": {"trace_id": trace_id}})
            known = InternalError(Reason.INTERNAL, "internal error", metadata={"trace_id": trace_id})
        else:
            # Cancelled by the caller, by its deadline or by the server's stop; or aborted by the handler. gRPC knows already.
            expired = isinstance(error, asyncio.CancelledError) and grpc_context.time_remaining() == 0
            self.note("DEADLINE_EXCEEDED" if expired else "CANCELLED")
            raise error
        await self.refuse(grpc_context, refusal_of(known))

    async def refuse(self, grpc_context: Any, refusal: Refusal) -> NoReturn:
        """End a call with what stands in a refusal."""
        self.note(refusal.code.name, refusal.reason)
        await grpc_context.abort(refusal.code, refusal.message, refusal.trailers)
        raise AssertionError("abort returned")


class _UnaryCall(_Call):
    async def unary_unary(self, data: bytes, grpc_context: Any) -> bytes:
        route = self.route
        method, lane = route.method, route.lane
        if not lane.enter():
            await self.refuse(grpc_context, lane.refusal())
        try:
            remaining = grpc_context.time_remaining()
            context = self.begin(remaining)
            request = decode(method, data)
            if remaining is None or remaining > method.policy.timeout_seconds:
                response = await _bounded(method.handler(request, context), method)
            else:
                response = await method.handler(request, context)
            if context.initial_metadata:
                await grpc_context.send_initial_metadata(context.initial_metadata)
            answer: bytes = response.SerializeToString()
        except BaseException as error:  # noqa: BLE001 (the boundary: whatever ends a call is answered, noted and counted)
            await self.fail(grpc_context, error)
        finally:
            lane.leave()
        self.note("OK")
        return answer


class _ServerStreamCall(_Call):
    response_streaming = True

    async def serve(self, requests: Any, grpc_context: Any) -> AsyncGenerator[bytes, None]:
        route = self.route
        method, lane = route.method, route.lane
        if not lane.enter():
            await self.refuse(grpc_context, lane.refusal())
        try:
            context = self.begin(grpc_context.time_remaining())
            request = CheckedRequests(method, requests) if method.client_streaming else decode(method, requests)
            async with asyncio.timeout(context.remaining_seconds() + _STREAM_END_SECONDS):
                async with aclosing(method.handler(request, context)) as responses:
                    async for response in responses:
                        if context.initial_metadata:
                            await grpc_context.send_initial_metadata(context.take_initial_metadata())
                        yield response.SerializeToString()
        except BaseException as error:  # noqa: BLE001 (the boundary: whatever ends a call is answered, noted and counted)
            await self.fail(grpc_context, error)
        finally:
            lane.leave()
        self.note("OK")

    unary_stream = serve


class _BidiCall(_ServerStreamCall):
    request_streaming = True
    stream_stream = _ServerStreamCall.serve


async def _bounded(work: Awaitable[Message], method: BoundMethod) -> Message:
    """For a caller with no deadline, or with one beyond the method's bound, which gRPC itself would not enforce."""
    try:
        async with asyncio.timeout(method.policy.timeout_seconds):
            return await work
    except TimeoutError:
        text = f"not done within {method.policy.timeout_seconds} s"
        if method.policy.write:
            raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, f"{text}; look the outcome up by its key") from None
        raise DeadlineExceededError(Reason.DEADLINE_EXPIRED, text) from None
