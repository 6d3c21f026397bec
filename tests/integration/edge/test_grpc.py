"""gRPC and gRPC-Web through the edge: HTTP/2 with TLS by a real client, deadlines, and refusals as clients of gRPC know them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from grpc_status import rpc_status

from kernel.errors import OutcomeUnknownError, Reason, TrademeshError
from kernel.status import from_status
from tests.integration.edge.backend import Orders
from tests.integration.edge.world import Edge
from trademesh.oms.v1 import order_service_pb2 as oms
from trademesh.oms.v1.order_service_pb2_grpc import OrderServiceStub

ORDER_ID = "9b2f0000-0000-7000-8000-000000000000"
GET = oms.GetOrderRequest(account_id="ACC-1", order_id=ORDER_ID)


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, TrademeshError | None, dict[str, Any]]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    found = rpc_status.from_call(error)
    assert isinstance(found, status_pb2.Status | None)
    return error.code(), from_status(found) if found is not None else None, dict(error.trailing_metadata() or ())


def test_a_unary_call_and_a_stream(edge: Edge, orders: Orders) -> None:
    orders.events = [oms.StreamOrderEventsResponse(sequence=number) for number in (1, 2, 3)]
    with edge.channel() as channel:
        stub = OrderServiceStub(channel)
        assert isinstance(stub.GetOrder(GET, metadata=edge.metadata()), oms.GetOrderResponse)
        stream: Any = stub.StreamOrderEvents(oms.StreamOrderEventsRequest(account_id="ACC-1"), metadata=edge.metadata())
        assert [message.sequence for message in stream] == [1, 2, 3]


def test_a_stream_both_ways(edge: Edge, orders: Orders) -> None:
    commands = [oms.EnterOrdersRequest(correlation_id=number, cancel=oms.CancelOrderRequest(account_id="A")) for number in (1, 2)]
    with edge.channel() as channel:
        answers: Any = OrderServiceStub(channel).EnterOrders(iter(commands), metadata=edge.metadata())
        assert [answer.correlation_id for answer in answers] == [1, 2]


def test_a_deadline_is_set_cut_and_kept(edge: Edge, orders: Orders) -> None:
    with edge.channel() as channel:
        stub = OrderServiceStub(channel)
        for timeout in (None, 100, 2):
            stub.GetOrder(GET, timeout=timeout, metadata=edge.metadata())
    unset, long, short = orders.deadlines
    assert 9 < unset <= 10
    assert 9 < long <= 10
    assert 1 < short < 2.5


def test_refusals_carry_their_details(edge: Edge, orders: Orders) -> None:
    with edge.channel() as channel:
        stub = OrderServiceStub(channel)
        code, error, trailers = refusal(lambda: stub.GetOrder(GET))
        assert (code, error and error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.USER_UNAUTHENTICATED)
        assert trailers["www-authenticate"] == "Bearer"
        code, error, _ = refusal(lambda: stub.GetOrder(GET, metadata=edge.metadata(edge.issuer.token(exp=1))))
        assert (code, error and error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_EXPIRED)
        viewer = edge.metadata(edge.issuer.token(roles=["viewer"]))
        code, error, _ = refusal(lambda: stub.CreateOrder(oms.CreateOrderRequest(), metadata=viewer))
        assert (code, error and error.reason) == (grpc.StatusCode.PERMISSION_DENIED, Reason.ROLE_REQUIRED)
    assert not orders.requests


@pytest.mark.parametrize(
    "path",
    [
        "/trademesh.risk.v1.PreTradeService/CheckOrders",
        "/trademesh.oms.v1.OrderControlService/ResolveOrder",
        "/trademesh.type.v1.EventLogService/ReadEvents",
        "/trademesh.marketdata.v1.ReferencePriceService/StreamReferencePrices",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/trademesh.oms.v1.OrderService/Nothing",
        "/trademesh.oms.v1.OrderService/CreateOrder?x=1",
        "/v1/accounts/ACC-1/orders",
    ],
)
def test_services_inside_cannot_be_called(edge: Edge, orders: Orders, path: str) -> None:
    with edge.channel() as channel:
        method = channel.unary_unary(path, lambda request: request, lambda answer: answer)
        code, error, _ = refusal(lambda: method(b"", metadata=edge.metadata(edge.issuer.token(roles=["trader", "admin", "risk-officer"]))))
    assert (code, error and error.reason) == (grpc.StatusCode.UNIMPLEMENTED, Reason.METHOD_NOT_FOUND)
    assert not orders.requests


def test_a_service_that_cannot_be_reached_has_done_nothing(edge: Edge) -> None:
    with edge.channel() as channel:
        method = channel.unary_unary("/trademesh.risk.v1.RiskService/ListLimits", lambda request: request, lambda answer: answer)
        code, error, trailers = refusal(lambda: method(b"", metadata=edge.metadata()))
    assert (code, error and error.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.DEPENDENCY_UNAVAILABLE)
    assert trailers["retry-after"] == "1"


def test_an_unknown_outcome_stays_unknown(edge: Edge, orders: Orders) -> None:
    orders.script = lambda request, context: OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "the commit's answer was lost")
    with edge.channel() as channel:
        code, error, _ = refusal(lambda: OrderServiceStub(channel).CancelOrder(_cancel(), metadata=edge.metadata()))
    assert (code, error and error.reason) == (grpc.StatusCode.UNKNOWN, Reason.OUTCOME_UNKNOWN)


def _cancel() -> oms.CancelOrderRequest:
    return oms.CancelOrderRequest(account_id="ACC-1", order_id=ORDER_ID, request_id=ORDER_ID)


def test_grpc_web(edge: Edge, orders: Orders) -> None:
    body = GET.SerializeToString()
    framed = b"\0" + struct.pack(">I", len(body)) + body
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    answer = edge.call("POST", "/trademesh.oms.v1.OrderService/GetOrder", framed, headers=headers)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/grpc-web+proto")
    assert orders.requests == [GET]
    assert answer.body[0] == 0
    assert b"grpc-status:0" in answer.body.replace(b" ", b"")
    refused = edge.call("POST", "/trademesh.oms.v1.OrderService/GetOrder", framed, headers=headers, token=None)
    assert refused.headers["grpc-status"] == "16"
    inside = edge.call("POST", "/trademesh.risk.v1.PreTradeService/CheckOrders", framed, headers=headers)
    assert inside.headers["grpc-status"] == "12"
