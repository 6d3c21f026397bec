"""Clients that take no loss for an answer: connections to both replicas, and every command again under its key until it is answered."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller, Endpoint
from tests.e2e.crash.load import Cancel, Command, Create, Replace
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.oms.v1.order_service_pb2_grpc import OrderServiceStub

CALL_SECONDS = 4.0
STREAM_SILENCE_SECONDS = 4.0
RETRY_SECONDS = 0.1
BATCH_MAX = 80
STREAM_WINDOW = 200

RETRIED = frozenset({"UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED", "ABORTED"})
"""What a client may meet while parts of the mesh are gone: ask again with the same key."""

_FIELDS = {Create: "create", Cancel: "cancel", Replace: "replace"}

_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that ended without an answer, or with a refusal. `reason` is of our own ErrorInfo, empty where a transport speaks."""

    code: str
    reason: str
    text: str


@dataclass(slots=True)
class Ledger:
    """What the clients know: the first answer of each key, refusals that ended a command, and what walked away unanswered."""

    answers: dict[tuple[str, str], order_pb2.Order] = field(default_factory=dict)
    refused: dict[tuple[str, str], Failure] = field(default_factory=dict)
    lost: dict[tuple[str, str], Failure] = field(default_factory=dict)
    commands: dict[tuple[str, str], Command] = field(default_factory=dict)
    retried: int = 0

    def of(self, kind: type[Create] | type[Cancel] | type[Replace]) -> list[tuple[Command, order_pb2.Order]]:
        """Return the answered commands of a kind with their first answers."""
        found = ((self.commands[key], order) for key, order in self.answers.items())
        return [(command, order) for command, order in found if isinstance(command.request, kind)]


def status_failure(status: status_pb2.Status) -> Failure:
    """Return the failure that a Status describes."""
    info = error_details_pb2.ErrorInfo()
    found = any(detail.TypeName() == info.DESCRIPTOR.full_name and detail.Unpack(info) for detail in status.details)
    return Failure(code_pb2.Code.Name(status.code), info.reason if found and info.domain == "trademesh" else "", status.message)


def call_failure(error: grpc.aio.AioRpcError) -> Failure:
    """Return the failure that a call ended with."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return status_failure(status_pb2.Status.FromString(value))
    return Failure(error.code().name, "", error.details() or "")


def answered_order(response: Any) -> order_pb2.Order:
    """Return the order of an answer. A replace that risk has refused says so beside it, and in it where a stream answers."""
    order: order_pb2.Order = response.order
    if isinstance(response, order_service_pb2.ReplaceOrderResponse) and response.HasField("reject"):
        order.reject.CopyFrom(response.reject)
    return order


class Connection:
    """One channel to one replica, and what its sidecar would add to the caller's calls."""

    def __init__(self, endpoint: Endpoint, caller: Caller) -> None:
        self.channel = grpc.aio.insecure_channel(endpoint.target, options=_CHANNEL)
        self.metadata = endpoint.metadata(caller)
        self.orders: Any = OrderServiceStub(self.channel)

    async def unary(self, command: Command) -> order_pb2.Order:
        """Carry out one command."""
        method = {Create: self.orders.CreateOrder, Cancel: self.orders.CancelOrder, Replace: self.orders.ReplaceOrder}
        response = await method[type(command.request)](command.request, metadata=self.metadata, timeout=CALL_SECONDS)
        return answered_order(response)

    async def batch(self, requests: Sequence[Create]) -> Sequence[order_service_pb2.BatchCreateOrdersResult]:
        """Place orders together."""
        request = order_service_pb2.BatchCreateOrdersRequest(requests=requests)
        response = await self.orders.BatchCreateOrders(request, metadata=self.metadata, timeout=CALL_SECONDS)
        results: Sequence[order_service_pb2.BatchCreateOrdersResult] = response.results
        return results


class Clients:
    """Enters commands in every way there is and keeps a ledger. An async context manager.

    Args:
        mesh: a running one.
        caller: the trader.
        source: all chance comes from here.
        connections_per_replica: channels to each replica.
    """

    def __init__(self, mesh: LocalMesh, caller: Caller, source: random.Random, *, connections_per_replica: int = 3) -> None:
        endpoints = sorted(mesh.endpoints("svc_oms"), key=lambda endpoint: endpoint.instance)
        self.connections = [Connection(endpoint, caller) for _ in range(connections_per_replica) for endpoint in endpoints]
        self._turns = itertools.cycle(self.connections)
        self._random = source
        self.ledger = Ledger()
        self.on_answer: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(connection.channel.close() for connection in self.connections))

    def next(self) -> Connection:
        """Return the next connection, replica by turns."""
        return next(self._turns)

    async def enter(
        self, commands: Iterable[Command], *, only_batches: bool = False, unary_at_once: int = 48, timeout_seconds: float = 90.0
    ) -> None:
        """Enter commands by batch, stream and unary calls until each is answered, refused, or given up by its client.

        Raises:
            TimeoutError: some patient client has no answer.
        """
        ways: dict[str, list[Command]] = {"batch": [], "stream": [], "unary": []}
        for command in commands:
            self.ledger.commands[command.account_id, command.key] = command
            choices = ("batch", "stream", "unary") if isinstance(command.request, Create) else ("stream", "unary")
            ways["batch" if only_batches else self._random.choice(choices)].append(command)
        at_once = asyncio.Semaphore(unary_at_once)
        batches_at_once = asyncio.Semaphore(3)
        async with asyncio.timeout(timeout_seconds), asyncio.TaskGroup() as group:
            for command in ways["unary"]:
                group.create_task(self._unary(command, at_once))
            for batch in _batched(ways["batch"]):
                group.create_task(self._batch(batch, batches_at_once))
            half = len(ways["stream"]) // 2
            for share in (ways["stream"][:half], ways["stream"][half:]):
                group.create_task(self._stream(share))

    async def _unary(self, command: Command, at_once: asyncio.Semaphore) -> None:
        async with at_once:
            while True:
                try:
                    order = await self.next().unary(command)
                except grpc.aio.AioRpcError as error:
                    if self._failed(command, call_failure(error)):
                        return
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    self._answered(command, order)
                    return

    async def _batch(self, commands: list[Command], at_once: asyncio.Semaphore) -> None:
        async with at_once:
            while commands:
                try:
                    results = await self.next().batch([command.request for command in commands if isinstance(command.request, Create)])
                except grpc.aio.AioRpcError as error:
                    failure = call_failure(error)
                    commands = [command for command in commands if not self._failed(command, failure)]
                else:
                    assert len(results) == len(commands)
                    commands = [command for command, result in zip(commands, results, strict=True) if not self._settled(command, result)]
                if commands:
                    await asyncio.sleep(RETRY_SECONDS)

    async def _stream(self, commands: Sequence[Command]) -> None:
        waiting = dict(enumerate(commands, start=1))
        while waiting:
            await self._stream_once(waiting)
            if waiting:
                await asyncio.sleep(RETRY_SECONDS)

    async def _stream_once(self, waiting: dict[int, Command]) -> None:
        """Send everything on one stream, and take from `waiting` what is settled by the time it ends."""
        due, sent, window = dict(waiting), set[int](), asyncio.Semaphore(STREAM_WINDOW)
        connection = self.next()
        call = connection.orders.EnterOrders(metadata=connection.metadata)
        sending = asyncio.create_task(_send(call, dict(waiting), sent, window))
        failure = Failure("UNAVAILABLE", "", "the stream ended")
        try:
            while due:
                async with asyncio.timeout(STREAM_SILENCE_SECONDS):
                    result = await call.read()
                if result is grpc.aio.EOF or not result.correlation_id:
                    break
                window.release()
                number = result.correlation_id
                if self._settled(due.pop(number), result):
                    del waiting[number]
        except TimeoutError:
            failure = Failure("DEADLINE_EXCEEDED", "", "the stream fell silent")
        except grpc.aio.AioRpcError as error:
            # What a stream ends with says nothing about a command that has no result. Nor is it what the server said: gRPC's asyncio client
            # reports INTERNAL, "Internal error from Core", where a write meets the end before the status is read (grpc/grpc#36066).
            failure = Failure("UNAVAILABLE", "", f"the stream ended with {error.code().name}: {error.details()}")
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            call.cancel()
        for number in sorted(sent & due.keys()):
            if self._failed(waiting[number], failure):
                del waiting[number]

    def _settled(self, command: Command, result: order_service_pb2.BatchCreateOrdersResult | order_service_pb2.EnterOrdersResponse) -> bool:
        if result.WhichOneof("result") == "error":
            return self._failed(command, status_failure(result.error))
        self._answered(command, result.order)
        return True

    def _answered(self, command: Command, order: order_pb2.Order) -> None:
        self.ledger.answers[command.account_id, command.key] = order
        self.on_answer()

    def _failed(self, command: Command, failure: Failure) -> bool:
        """Note a failure; say whether the client asks no more."""
        key = (command.account_id, command.key)
        if failure.code not in RETRIED:
            self.ledger.refused[key] = failure
            self.on_answer()
            return True
        if not command.patient:
            self.ledger.lost[key] = failure
            return True
        self.ledger.retried += 1
        return False


async def _send(call: Any, commands: dict[int, Command], sent: set[int], window: asyncio.Semaphore) -> None:
    """Write commands, never more than a window ahead of the results."""
    for number, command in commands.items():
        await window.acquire()
        message = order_service_pb2.EnterOrdersRequest(correlation_id=number)
        getattr(message, _FIELDS[type(command.request)]).CopyFrom(command.request)
        sent.add(number)
        await call.write(message)
    await call.done_writing()


def _batched(commands: Sequence[Command]) -> Iterable[list[Command]]:
    return (list(commands[start : start + BATCH_MAX]) for start in range(0, len(commands), BATCH_MAX))
