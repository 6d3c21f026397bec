"""One EnterOrders stream: commands gather while others are under way, and results leave as they come.

No task per command: what has arrived since the last batch goes to the batcher as one. At most `OUTSTANDING_MAX` commands wait for their
results; beyond that the stream is not read, and HTTP/2's flow control holds the client back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from typing import Any

from kernel.batcher import Batcher
from kernel.errors import (
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    Reason,
    TrademeshError,
    UnauthenticatedError,
    UnavailableError,
)
from kernel.ports import Clock
from kernel.server_context import CallContext
from kernel.server_streams import InvalidMessage
from kernel.status import to_status
from kernel.validation import check
from kernel.wire import Serialized
from svc_oms.codec.answers import entered_response
from svc_oms.codec.requests import OrderCommand
from svc_oms.servicer.changes import CancelChange, Changed
from svc_oms.servicer.creates import Created
from svc_oms.servicer.requests import OrderRequests
from trademesh.oms.v1 import order_service_pb2
from trademesh.type.v1 import stream_pb2

OUTSTANDING_MAX = 1_024
BATCHES_UNDER_WAY = 2
BATCH_MAX = 256
_ORDERS_LANE = "orders"

Response = order_service_pb2.EnterOrdersResponse | Serialized
"""A serialized one for an order that was created."""

_Result = order_service_pb2.EnterOrdersResponse


class EntryStream:
    """Serves one stream. Made for it, used once."""

    def __init__(
        self,
        orders: Batcher[OrderCommand, Created],
        requests: OrderRequests,
        context: CallContext,
        clock: Clock,
    ) -> None:
        self._orders = orders
        self._requests = requests
        self._user = context.user
        self._draining = context.draining
        self._clock = clock
        self._creates: list[tuple[int, OrderCommand]] = []
        self._cancels: list[tuple[int, CancelChange]] = []
        self._due: set[int] = set()
        self._results: deque[Response] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def serve(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Response, None]:
        """Yield results until the client has closed its side and every command has its result, or the stream has to end."""
        reader = asyncio.create_task(self._read(requests), name="enter-orders-reader")
        drain = asyncio.create_task(self._draining.wait()) if self._draining is not None else None
        reader.add_done_callback(lambda _: self._changed.set())
        if drain is not None:
            drain.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                self._changed.clear()
                while self._results:
                    yield self._results.popleft()
                draining = drain is not None and drain.done()
                if (reader.done() or draining) and not self._due and not self._results:
                    break
                if not self._results:
                    await self._changed.wait()
            if drain is not None and drain.done() and not reader.done():
                yield _end(UnavailableError(Reason.SHUTTING_DOWN, "the service is draining; open another stream", retry_after_seconds=0.25))
            elif (ended := reader.result()) is not None:
                yield _end(ended)
        finally:
            for task in (reader, drain, *self._tasks):
                if task is not None:
                    task.cancel()

    async def _read(self, requests: AsyncIterator[Any]) -> TrademeshError | None:
        """Take commands until the client closes its side; return why the stream must end, None for its ordinary end."""
        try:
            async for message in requests:
                if self._user.expires_at <= self._clock.now_ns() // 1_000_000_000:
                    return UnauthenticatedError(Reason.TOKEN_EXPIRED, "the user's token has expired")
                if self._draining is not None and self._draining.is_set():
                    return None
                self._take(message)
                if len(self._due) >= OUTSTANDING_MAX:
                    self._room.clear()
                    await self._room.wait()
        except TrademeshError as error:
            return error
        return None

    def _take(self, message: order_service_pb2.EnterOrdersRequest | InvalidMessage) -> None:
        invalid = message if isinstance(message, InvalidMessage) else None
        command: Any = message.request if isinstance(message, InvalidMessage) else message
        number = command.correlation_id
        if invalid is not None:
            self._answer(number, invalid.error)
        elif number in self._due:
            self._answer(number, _bad_field("correlation_id", "unique", f"{number} is the number of a command whose result is still due"))
        else:
            self._due.add(number)
            try:
                self._begin(number, command)
            except TrademeshError as error:
                self._settle(number, error)

    def _begin(self, number: int, command: order_service_pb2.EnterOrdersRequest) -> None:
        kind = command.WhichOneof("command")
        if number < 1:
            raise _bad_field("correlation_id", "int64.gte", "must be 1 or more")
        if kind == "create":
            self._creates.append((number, OrderCommand(command.create, self._user)))
            self._start()
        elif kind == "cancel":
            check(command.cancel)
            self._cancels.append((number, self._requests.cancel_change(command.cancel, self._user)))
            self._start()
        elif kind == "replace":
            check(command.replace)
            self._spawn(self._replace(number, command.replace))
        else:
            raise _bad_field("command", "required", "name a command")

    def _start(self) -> None:
        """Send off what has gathered, unless enough is under way; what comes meanwhile travels together."""
        if self._creates and self._under_way < BATCHES_UNDER_WAY:
            batch, self._creates = self._creates[:BATCH_MAX], self._creates[BATCH_MAX:]
            self._under_way += 1
            self._spawn(self._serve_creates(batch))
        if self._cancels:
            cancels, self._cancels = self._cancels[:BATCH_MAX], self._cancels[BATCH_MAX:]
            self._spawn(self._serve_cancels(cancels))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_creates(self, batch: Sequence[tuple[int, OrderCommand]]) -> None:
        try:
            outcomes = await _each(self._orders.submit_many(_ORDERS_LANE, [order for _, order in batch]), len(batch))
            for (number, _), outcome in zip(batch, outcomes, strict=True):
                self._settle(number, outcome)
        finally:
            self._under_way -= 1
            self._start()

    async def _serve_cancels(self, batch: Sequence[tuple[int, CancelChange]]) -> None:
        outcomes = await _each(self._requests.submit_many([change for _, change in batch]), len(batch))
        for (number, _), outcome in zip(batch, outcomes, strict=True):
            self._settle(number, outcome)

    async def _replace(self, number: int, request: order_service_pb2.ReplaceOrderRequest) -> None:
        outcome: Changed | TrademeshError = _DEFECT
        try:
            outcome = await self._requests.replace(request, self._user)
        except TrademeshError as error:
            outcome = error
        finally:
            # Whatever happened, the command gets a result; a defect also ends the task, which logs it.
            self._settle(number, outcome)

    def _settle(self, number: int, outcome: Created | Changed | TrademeshError) -> None:
        self._due.discard(number)
        if len(self._due) < OUTSTANDING_MAX:
            self._room.set()
        self._answer(number, outcome)

    def _answer(self, number: int, outcome: Created | Changed | TrademeshError) -> None:
        response: Response
        if isinstance(outcome, Created):
            response = entered_response(number, outcome.snapshot, outcome.position)
        elif isinstance(outcome, Changed):
            answer: Any = outcome.response
            response = _Result(correlation_id=number, order=answer.order, log_position=answer.log_position)
            if isinstance(answer, order_service_pb2.ReplaceOrderResponse) and answer.HasField("reject"):
                response.order.reject.CopyFrom(answer.reject)
        else:
            response = _Result(correlation_id=number, error=to_status(outcome))
        self._results.append(response)
        self._changed.set()


_DEFECT = InternalError(Reason.INTERNAL, "the command met a defect in the service; look the order up")


async def _each(work: Coroutine[Any, Any, list[Any]], count: int) -> list[Any]:
    """What became of each item, also where the whole batch failed."""
    try:
        return await work
    except TrademeshError as error:
        return [error] * count


def _end(error: TrademeshError) -> Response:
    return _Result(end=stream_pb2.StreamEnd(status=to_status(error)))


def _bad_field(field: str, rule: str, text: str) -> InvalidArgumentError:
    return InvalidArgumentError(Reason.FIELD_INVALID, f"{field}: {text}", field_violations=[FieldViolation(field, rule, text)])
