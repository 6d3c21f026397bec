"""The demo at the REST door: the same orders, posted as JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from cli.demo.desk import STEP_SECONDS_MAX, Desk
from cli.orders import TERMINAL
from cli.rest import RestAnswer, RestClient
from kernel.server_context import REPLAYED_HEADER
from trademesh.oms.v1 import order_pb2, order_service_pb2

_OK, _BAD_REQUEST = 200, 400


def rest_orders(desk: Desk) -> None:
    """Place an order by REST, have it filled, replay it by gRPC; and be refused what is not in the contract."""
    desk.transcript.step("The same by REST: JSON in, JSON out; a gRPC client's replay gets the same answer")
    client = desk.session.rest(desk.account)
    try:
        request = desk.request("buy", "3", "NVDA")
        placed = _post(desk, client, request)
        _replay_by_grpc(desk, request, placed)
        _refuse_unknown_field(desk, client)
    finally:
        client.close()


def _post(desk: Desk, client: RestClient, request: order_service_pb2.CreateOrderRequest) -> order_service_pb2.CreateOrderResponse:
    body = MessageToDict(request, preserving_proto_field_name=True)
    answer = _send(desk, client, body)
    desk.transcript.check(answer.status == _OK, f"HTTP {answer.status}")
    placed = ParseDict(dict(answer.document), order_service_pb2.CreateOrderResponse())
    desk.count(placed)
    desk.transcript.check(placed.order.state == order_pb2.ORDER_STATE_PENDING_NEW, "accepted: durable and risk-checked")
    events = desk.listener.await_order(placed.order.order_id, lambda item: item.state in TERMINAL, timeout_seconds=STEP_SECONDS_MAX)
    filled = bool(events) and events[-1].event.order.state == order_pb2.ORDER_STATE_FILLED
    desk.transcript.check(filled, "the gRPC stream shows it filled")
    return placed


def _replay_by_grpc(desk: Desk, request: order_service_pb2.CreateOrderRequest, first: order_service_pb2.CreateOrderResponse) -> None:
    again = desk.send(request)
    identical = again.replayed and again.message == first
    desk.tally.replays_identical = desk.tally.replays_identical and identical
    desk.transcript.check(identical, f"gRPC repeats the REST answer, field by field, marked {REPLAYED_HEADER}")


def _refuse_unknown_field(desk: Desk, client: RestClient) -> None:
    body = MessageToDict(desk.request("buy", "3", "NVDA", Decimal(100)), preserving_proto_field_name=True)
    body["limitPrise"] = body.pop("limit_price")
    answer = _send(desk, client, body)
    details = answer.document.get("details", [{}])
    reason = next((item["reason"] for item in details if "reason" in item), "")
    desk.transcript.tell(f"{reason}: {answer.document.get('message', '')}")
    refused = answer.status == _BAD_REQUEST and reason == "FIELD_UNKNOWN"
    desk.transcript.check(refused, "a misspelt field is refused, not dropped: nothing was placed")


def _send(desk: Desk, client: RestClient, body: dict[str, Any]) -> RestAnswer:
    path = f"/v1/accounts/{body.pop('account_id')}/orders"
    desk.transcript.curl("POST", path, body)
    return client.send("POST", path, body)
