"""Orders in the states that the router and the mapping meet, made by the domain itself."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from kernel.fix.codec import encode_body, frame, parse
from kernel.fix.message import Body, Message
from kernel.fix.steps import AppMessage, Delivery
from svc_oms.domain import Action, Order, OrderType, Side, Terms, TimeInForce, decide, fold
from svc_oms.domain import commands as c
from svc_oms.fix.reports import OrderReport, read_delivery

NOW = datetime(2026, 8, 3, 9, 30, tzinfo=UTC)
ORDER_ID = "1f0e7c52-8a3b-5d11-9a55-0123456789ab"


def terms(order_id: str = ORDER_ID, kind: OrderType = OrderType.LIMIT, time_in_force: TimeInForce = TimeInForce.DAY) -> Terms:
    price = Decimal("101.50") if kind is OrderType.LIMIT else None
    return Terms(order_id, "client-1", "ACC-1", "t", "alice", "AAPL", Side.SELL, kind, time_in_force, Decimal(100), price, {}, b"h", "XSIM")


def received(msg_type: str, body: Body) -> Message:
    """A message as the reader gives it, from the venue."""
    data = frame("FIX.4.4", msg_type, sequence=5, sender="XSIM", target="TM", sending_time="20260803-09:30:00.500", body=encode_body(body))
    return parse(data)


def sent(message: AppMessage) -> dict[int, str]:
    """The body of a message of ours, as the venue reads it."""
    return dict(received(message.msg_type, message.body).fields[5:])


def delivered(message: Message) -> Delivery:
    return Delivery(message, 5)


def execution_report(client_order_id: str, fields: Body) -> Message:
    """An ExecutionReport of a sell order in AAPL; `fields` are what matters, the rest is filled in."""
    usual: dict[int, Any] = {6: "0", 11: client_order_id, 14: "0", 17: "E-1", 37: "V-1", 39: "0", 54: "2", 55: "AAPL", 150: "0", 151: "0"}
    return received("8", list({**usual, 60: "20260803-09:30:00.250", **dict(fields)}.items()))


def after(order: Order | None, *commands: c.Command) -> Order:
    for command in commands:
        order = fold(decide(order, command), order)
    assert order is not None
    return order


def placed(order_id: str = ORDER_ID, **options: Any) -> Order:
    return after(None, c.PlaceOrder(terms(order_id, **options), None, NOW))


def routed(sequence: int = 7, order_id: str = ORDER_ID) -> Order:
    return after(placed(order_id), c.RouteRequest(Action.NEW, order_id, sequence, NOW))


def acknowledged(order_id: str = ORDER_ID) -> Order:
    report = [(17, "E-1"), (37, "V-1"), (39, "0"), (150, "0")]
    return reported(routed(order_id=order_id), report)


def reported(order: Order, fields: Body) -> Order:
    (read,) = read_delivery(delivered(execution_report(order.order_id, fields)), "XSIM")
    assert isinstance(read, OrderReport)
    return after(order, c.RecordReport(read.report, NOW))


def cancelling(order: Order, *, sent: bool = False) -> Order:
    order = after(order, c.RequestCancel("alice", "r-1", NOW))
    return sent_request(order) if sent else order


def replacing(order: Order, quantity: int = 50, *, sent: bool = False) -> Order:
    order = after(order, c.RequestReplace("alice", "r-2", Decimal(quantity), Decimal("101.25"), b"h", "", None, NOW))
    return sent_request(order) if sent else order


def sent_request(order: Order, sequence: int = 9) -> Order:
    request = order.requests[-1]
    return after(order, c.RouteRequest(request.action, request.venue_client_order_id, sequence, NOW))


def refused_request(order: Order) -> Order:
    """The venue refuses the last request."""
    fields = [(11, order.requests[-1].venue_client_order_id), (37, "V-1"), (39, "0"), (41, order.order_id), (102, "0"), (434, "1")]
    (read,) = read_delivery(delivered(received("9", fields)), "XSIM")
    assert isinstance(read, OrderReport)
    return after(order, c.RecordReport(read.report, NOW))


def unknown(order: Order) -> Order:
    return after(order, c.MarkUnknown(order.venue_client_order_id, NOW + timedelta(seconds=10)))
