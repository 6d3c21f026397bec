"""A pool of order entry that is full: refusals that say so, the most of them before anything else is asked, and a door that opens again."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.edge.backend import Backend, Orders
from tests.integration.edge.world import Edge, Pool, running, until
from trademesh.oms.v1 import order_service_pb2 as oms

ORDERS = "/trademesh.oms.v1.OrderService/"
PATH = "/v1/accounts/ACC-1/orders"
ORDER_ID = "9b2f0000-0000-7000-8000-000000000000"
PLACES = 3
CALLS = 40


@pytest.fixture
def edge(backend: Backend, sockets: Path) -> Iterator[Edge]:
    """Return an edge whose orders go where nobody answers, three at a time, and everything else to the order service."""
    with socket.socket(socket.AF_UNIX) as silent:
        path = sockets / "entry"
        path.unlink(missing_ok=True)
        silent.bind(str(path))
        silent.listen(16)
        with running({"svc-oms": backend.socket}, entry=Pool(path, PLACES)) as found:
            yield found


def create(channel: Any, edge: Edge, *, token: str = "") -> Any:
    """Begin an order, and return it under way."""
    return channel.unary_unary(f"{ORDERS}CreateOrder").future(b"", timeout=30, metadata=edge.metadata(token))


def refused(call: Any) -> bool:
    """Say whether the pool refused a call that has ended."""
    return bool(call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)


def filled(channel: Any, edge: Edge) -> list[Any]:
    """Take every place, and return who has them."""
    taken: list[Any] = []
    while len(taken) < PLACES:
        taken.extend(_placed(channel, edge))
    return taken


def _placed(channel: Any, edge: Edge) -> list[Any]:
    """Try once, and return the call if it has a place. Nobody answers, so who has one is silent; refusals come at once."""
    before, call = _under_way(edge), create(channel, edge)
    until(lambda: call.done() or _under_way(edge) > before)
    return [] if call.done() else [call]


def _under_way(edge: Edge) -> int:
    return edge.stat(r"^cluster\.outbound\|9000\|orders\|.*upstream_rq_active$")


def test_a_full_pool_refuses_most_before_it_asks_who_calls(edge: Edge, orders: Orders) -> None:
    with edge.channel() as channel:
        taken = filled(channel, edge)
        rest = [create(channel, edge) for _ in range(CALLS)]
        until(lambda: all(call.done() for call in rest))
        assert all(refused(call) for call in rest)
        status = rpc_status.from_call(rest[-1])
        assert status is not None
        (info,) = _details(status, error_details_pb2.ErrorInfo)
        (retry,) = _details(status, error_details_pb2.RetryInfo)
        assert (info.reason, info.domain) == ("OVERLOADED", "trademesh")
        assert 1.0 <= retry.retry_delay.ToTimedelta().total_seconds() <= 1.75
        assert "x-trademesh-full" not in dict(rest[-1].trailing_metadata())

        def how() -> Counter[str]:
            return Counter(str(line["details"]) for line in edge.log_lines() if line["path"] == f"{ORDERS}CreateOrder")

        until(lambda: how().total() >= CALLS)
        assert how()["lua_response"] >= CALLS // 2, how()
        assert how()["upstream_reset_before_response_started{overflow}"] >= 1, how()
        # Cancels have their own way, and REST is told the same.
        cancel = channel.unary_unary(f"{ORDERS}CancelOrder")
        request = oms.CancelOrderRequest(account_id="ACC-1", order_id=ORDER_ID, request_id=ORDER_ID)
        cancel(request.SerializeToString(), timeout=5, metadata=edge.metadata())
        answer = edge.call("POST", PATH, {"client_order_id": "k"})
        assert (answer.status, answer.json["code"], answer.reason) == (429, 8, "OVERLOADED")
        assert "x-trademesh-full" not in answer.headers
        for call in taken:
            call.cancel()


def test_the_door_opens_when_a_place_is_free(edge: Edge, orders: Orders) -> None:
    with edge.channel() as channel:
        taken = filled(channel, edge)
        until(lambda: _refused_now(channel, edge))
        taken.pop().cancel()
        until(lambda: _under_way(edge) < PLACES)
        while len(taken) < PLACES:
            taken.extend(_placed(channel, edge))
        for call in taken:
            call.cancel()
        until(lambda: _under_way(edge) == 0)
        # While the door is open the first question is who calls.
        until(lambda: _code(channel.unary_unary(f"{ORDERS}CreateOrder")) is grpc.StatusCode.UNAUTHENTICATED)


def _refused_now(channel: Any, edge: Edge) -> bool:
    call = create(channel, edge)
    until(call.done)
    return refused(call)


def _code(method: Any) -> Any:
    try:
        method(b"", timeout=5)
    except grpc.RpcError as error:
        return error.code()
    return None


def _details(status: Any, kind: type[Any]) -> list[Any]:
    found = []
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            detail.Unpack(message)
            found.append(message)
    return found
