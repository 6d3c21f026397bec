"""One socket: its calls run side by side, and each reads its service only as fast as the client reads the socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import WSMsgType, web
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from kernel.errors import InternalError, InvalidArgumentError, Reason, ResourceExhaustedError, TrademeshError
from kernel.identity import Identity
from kernel.server_admission import new_traceparent
from kernel.server_context import CallContext, current_call
from kernel.status import code_of, to_status
from svc_gateway.clients.backends import Backends
from svc_gateway.codec.catalogue import Catalogue, Method
from svc_gateway.codec.frames import FrameError, end_frame, error_frame, message_frame, parse_frame
from svc_gateway.codec.strict_json import parse_request
from svc_gateway.domain.protocol import CLOSE_DEFECT, CLOSE_UNSUPPORTED, CLOSE_VIOLATION, Call, Cancel
from svc_gateway.domain.quotas import Rates
from trademesh.type.v1.stream_pb2 import StreamEnd

FINISH_SECONDS = 2.0
"""How long a client that does not read may hold up the ends of its calls."""

_CANCELLED = status_pb2.Status(code=code_pb2.CANCELLED, message="cancelled by the client")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Bounds of one socket: calls at a time, the milliseconds between two calls on average, and how many may begin at once."""

    calls_max: int = 64
    call_interval_ms: int = 20
    calls_burst: int = 200


@dataclass(slots=True)
class Counters:
    """What the sockets of a process have done."""

    calls: int = 0
    calls_running: int = 0
    messages: int = 0
    ends: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Sent:
    messages: int = 0


class _Running:
    """A call under way. `ending` is the status that it ends with, once that is known."""

    __slots__ = ("ending", "started", "task")

    def __init__(self) -> None:
        self.ending: status_pb2.Status | None = None
        self.started = False
        self.task: asyncio.Task[None] | None = None

    def end(self, status: status_pb2.Status) -> None:
        """End the call, unless its end is on the way already."""
        if self.ending is not None:
            return
        self.ending = status
        # A task that has not begun would never learn of its cancellation; it looks at `ending` when it begins.
        if self.started and self.task is not None:
            self.task.cancel()


class Bridge:
    """The calls of one socket, for one user.

    What waits for the client is one frame per call at most, beside the connection's own buffers: a call hands its frame over before it asks
    its service for the next message.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        identity: Identity,
        authorization: str,
        backends: Backends,
        catalogue: Catalogue,
        limits: SocketLimits,
        counters: Counters,
    ) -> None:
        self._socket = socket
        self._identity = identity
        self._user = CallContext(identity).user
        self._authorization = authorization
        self._backends = backends
        self._catalogue = catalogue
        self._limits = limits
        self._counters = counters
        self._running: dict[str, _Running] = {}
        self._writing = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._finished: asyncio.Event | None = None
        self._rates = Rates(limits.call_interval_ms, limits.calls_burst)

    async def run(self) -> None:
        """Serve frames until the client leaves, breaks the protocol or is finished with; calls still running are cancelled then."""
        self._reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait([self._reader])
            if self._finished is not None:
                await self._finished.wait()
        finally:
            self._reader.cancel()
            [outcome] = await asyncio.gather(self._reader, return_exceptions=True)
            await self._abandon()
            if isinstance(outcome, Exception):
                _log.error("reading a socket failed", exc_info=outcome)
                await self._socket.close(code=CLOSE_DEFECT, message=Reason.INTERNAL.value.encode())

    async def _read(self) -> None:
        try:
            async for frame in self._socket:
                if frame.type is not WSMsgType.TEXT:
                    await self._socket.close(code=CLOSE_UNSUPPORTED, message=b"frames are JSON texts")
                    return
                if not await self._take(frame.data):
                    return
        except ConnectionError:
            _log.debug("the client left in the middle of a frame")

    async def _take(self, text: str) -> bool:
        """Act on a frame; False when the socket was closed because of it."""
        try:
            frame = parse_frame(text)
            self._check_id(frame)
        except FrameError as error:
            await self._write(end_frame(error.call_id, to_status(error.error)))
            return True
        except InvalidArgumentError as error:
            await self._write(error_frame(error))
            await self._socket.close(code=CLOSE_VIOLATION, message=error.reason.value.encode())
            return False
        if isinstance(frame, Cancel):
            running = self._running.get(frame.call_id)
            # One that has just ended is no mistake of the client's: its end is on the way.
            if running is not None:
                running.end(_CANCELLED)
            return True
        try:
            self._rates.take(self._user.principal, time.monotonic_ns())
            self._require_room()
        except ResourceExhaustedError as error:
            await self._write(end_frame(frame.call_id, to_status(error)))
            return True
        self._begin(frame)
        return True

    def _check_id(self, frame: Call | Cancel) -> None:
        if isinstance(frame, Call) and frame.call_id in self._running:
            # An end under this id would be taken for the other call's.
            raise InvalidArgumentError(Reason.FIELD_INVALID, "id: names a call that is still running", metadata={"id": frame.call_id})

    def _require_room(self) -> None:
        if len(self._running) >= self._limits.calls_max:
            text = f"a socket runs at most {self._limits.calls_max} calls at a time"
            raise ResourceExhaustedError(Reason.QUOTA_EXCEEDED, text, metadata={"subject": self._user.principal}, retry_after_seconds=1.0)

    def _begin(self, call: Call) -> None:
        running = self._running[call.call_id] = _Running()
        running.task = asyncio.create_task(self._serve(call, running))

    async def _serve(self, call: Call, running: _Running) -> None:
        try:
            status = await self._status(call, running)
            await self._write(end_frame(call.call_id, status))
        except ConnectionError:
            _log.debug("the client left before a call's end")
        finally:
            self._running.pop(call.call_id, None)

    async def _status(self, call: Call, running: _Running) -> status_pb2.Status:
        """Run a call and return how it ended; logged once, whatever happens."""
        began, counters = time.monotonic(), self._counters
        counters.calls += 1
        counters.calls_running += 1
        running.started = True
        sent = _Sent()
        trace = new_traceparent()
        # A trace of its own for each call: the logs of gateway and service share an id.
        current_call.set(CallContext(self._identity, method=call.method, trace_id=trace[3:35], traceparent=trace))
        try:
            if running.ending is None:
                running.ending = await self._answer(call, sent)
        except asyncio.CancelledError:
            if running.ending is None:
                raise
        finally:
            counters.calls_running -= 1
            code = code_of(_CANCELLED if running.ending is None else running.ending).name
            counters.ends[code] = counters.ends.get(code, 0) + 1
            fields: dict[str, Any] = {"method": call.method[:256], "principal": self._user.principal, "tenant": self._user.tenant}
            fields |= {
                "trace_id": trace[3:35],
                "code": code,
                "messages": sent.messages,
                "duration_ms": round((time.monotonic() - began) * 1_000, 3),
            }
            _log.info("bridged call", extra={"fields": fields})
        return running.ending

    async def _answer(self, call: Call, sent: _Sent) -> status_pb2.Status:
        """Send the call's messages and return how it ended."""
        try:
            method = self._catalogue.find(call.method)
            request = parse_request(call.request, method.request_type)
            if method.streaming:
                return await self._stream(call.call_id, method, request, sent)
            answer = await self._backends.call(method, request, self._authorization)
            await self._send(call.call_id, answer, sent)
        except TrademeshError as error:
            return to_status(error)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 (one call's defect ends that call, not the socket's others)
            _log.exception("a bridged call failed")
            return to_status(InternalError(Reason.INTERNAL, "an unexpected error; the logs have it"))
        return status_pb2.Status()

    async def _stream(self, call_id: str, method: Method, request: Message, sent: _Sent) -> status_pb2.Status:
        status = status_pb2.Status()
        async with contextlib.aclosing(self._backends.stream(method, request, self._authorization)) as messages:
            async for message in messages:
                await self._send(call_id, message, sent)
                if _is_end(message):
                    # The service says in band why the stream is over; the call's end repeats it.
                    status = cast("Any", message).end.status
        return status

    async def _send(self, call_id: str, message: Message, sent: _Sent) -> None:
        await self._write(message_frame(call_id, message))
        sent.messages += 1
        self._counters.messages += 1

    async def _write(self, text: str) -> None:
        async with self._writing:
            await self._socket.send_str(text)

    async def finish(self, error: TrademeshError, code: int) -> None:
        """End every call with an error and close the socket with a code; a client that does not read is given two seconds."""
        if self._finished is not None:
            return
        self._finished = asyncio.Event()
        try:
            if self._reader is not None:
                # No more frames are taken in, and the closing handshake is read by `close`, not beside it.
                self._reader.cancel()
                await asyncio.wait([self._reader])
            status = to_status(error)
            for running in list(self._running.values()):
                running.end(status)
            tasks = [running.task for running in self._running.values() if running.task is not None]
            if tasks:
                await asyncio.wait(tasks, timeout=FINISH_SECONDS)
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(FINISH_SECONDS):
                    await self._socket.close(code=code, message=error.reason.value.encode())
        finally:
            self._finished.set()

    async def _abandon(self) -> None:
        tasks = [running.task for running in self._running.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()


def _is_end(message: Message) -> bool:
    field = message.DESCRIPTOR.fields_by_name.get("end")
    return field is not None and field.message_type is StreamEnd.DESCRIPTOR and message.HasField("end")
