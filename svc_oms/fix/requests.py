"""Orders and requests as FIX 4.4 messages to a venue (FIX 4.4 Volume 4).

ClOrdIDs: a new order goes out under its order id; a cancel or replace under the id that its event gave it, which begins with the order
id. OrigClOrdID (41) names the last request that was not refused (FIX 4.4 Appendix D, "sequencing and chaining").
"""

from __future__ import annotations

import re
from datetime import datetime

from kernel.fix import tags
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.message import Field
from kernel.fix.steps import AppMessage, StoredMessage
from kernel.values import format_decimal
from svc_oms.domain import Action, Order, OrderType, PendingRequest, Side, TimeInForce

_AUTOMATED_NO_INTERVENTION = "1"
_ALL_ORDERS = "7"
_ORDER_ID_LENGTH = 36
_ORDER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

SIDES = {Side.BUY: "1", Side.SELL: "2"}
ORDER_TYPES = {OrderType.MARKET: "1", OrderType.LIMIT: "2"}
TIMES_IN_FORCE = {TimeInForce.DAY: "0", TimeInForce.GTC: "1", TimeInForce.IOC: "3", TimeInForce.FOK: "4"}


def venue_client_order_id(order: Order, request: PendingRequest | None) -> str:
    """The ClOrdID (11) of a request, or of the order itself where `request` is None."""
    return order.order_id if request is None else request.venue_client_order_id


def order_id_of(client_order_id: str) -> str:
    """The order that a ClOrdID of ours names; empty where it is not of our form."""
    head = client_order_id[:_ORDER_ID_LENGTH]
    ours = _ORDER_ID.fullmatch(head) is not None and client_order_id[_ORDER_ID_LENGTH : _ORDER_ID_LENGTH + 1] in ("", "-")
    return head if ours else ""


def body_fields(message: StoredMessage) -> dict[int, str]:
    """The body of a message of ours as it was stored; none has a repeating group."""
    pairs = (field.split("=", 1) for field in message.body.decode("latin-1").split("\x01") if field)
    return {int(tag): text for tag, text in pairs}


def new_order(order: Order, time: datetime) -> AppMessage:
    """NewOrderSingle (D) with the terms in force. `time` is the TransactTime (60)."""
    body = _identity(order, venue_client_order_id(order, None), time)
    body += _terms(order.terms.type, order.terms.time_in_force)
    body.append((tags.ORDER_QTY, format_decimal(order.quantity)))
    if order.limit_price is not None:
        body.append((tags.PRICE, format_decimal(order.limit_price)))
    return AppMessage(tags.NEW_ORDER_SINGLE, body, order.order_id)


def request_message(order: Order, request: PendingRequest, time: datetime) -> AppMessage:
    """OrderCancelRequest (F) or OrderCancelReplaceRequest (G). Replaces state the whole new terms, as FIX asks."""
    body = _identity(order, request.venue_client_order_id, time)
    body.append((tags.ORIG_CL_ORD_ID, last_not_refused(order, request)))
    if order.venue_order_id:
        body.append((tags.ORDER_ID, order.venue_order_id))
    if request.action is Action.CANCEL:
        body.append((tags.ORDER_QTY, format_decimal(order.quantity)))
        return AppMessage(tags.ORDER_CANCEL_REQUEST, body, order.order_id)
    assert request.quantity is not None, "a replace carries its quantity"
    body += _terms(order.terms.type, order.terms.time_in_force)
    body.append((tags.ORDER_QTY, format_decimal(request.quantity)))
    if request.limit_price is not None:
        body.append((tags.PRICE, format_decimal(request.limit_price)))
    return AppMessage(tags.ORDER_CANCEL_REPLACE_REQUEST, body, order.order_id)


def last_not_refused(order: Order, request: PendingRequest) -> str:
    """The ClOrdID that a request chains to: the last one sent that the venue has not refused."""
    sent = [other for other in order.requests if other.sent and other.action is Action.REPLACE and other is not request]
    return sent[-1].venue_client_order_id if sent else order.venue_client_order_id


def status_request(order: Order, request_id: str) -> AppMessage:
    """OrderStatusRequest (H) for the order under its present ClOrdID. `request_id` comes back as OrdStatusReqID (790)."""
    body: list[Field] = [
        (tags.CL_ORD_ID, order.venue_client_order_id or order.order_id),
        (tags.SIDE, SIDES[order.terms.side]),
        (tags.SYMBOL, order.terms.instrument_id),
        (tags.ORD_STATUS_REQ_ID, request_id),
    ]
    if order.venue_order_id:
        body.append((tags.ORDER_ID, order.venue_order_id))
    return AppMessage(tags.ORDER_STATUS_REQUEST, body, order.order_id)


def mass_status_request(request_id: str) -> AppMessage:
    """OrderMassStatusRequest (AF) for all our orders at the venue. `request_id` comes back as MassStatusReqID (584)."""
    return AppMessage(tags.ORDER_MASS_STATUS_REQUEST, [(tags.MASS_STATUS_REQ_ID, request_id), (tags.MASS_STATUS_REQ_TYPE, _ALL_ORDERS)])


def _identity(order: Order, client_order_id: str, time: datetime) -> list[Field]:
    return [
        (tags.ACCOUNT, order.terms.account_id),
        (tags.CL_ORD_ID, client_order_id),
        (tags.SIDE, SIDES[order.terms.side]),
        (tags.SYMBOL, order.terms.instrument_id),
        (tags.TRANSACT_TIME, format_timestamp(time)),
    ]


def _terms(kind: OrderType, time_in_force: TimeInForce) -> list[Field]:
    return [
        (tags.HANDL_INST, _AUTOMATED_NO_INTERVENTION),
        (tags.ORD_TYPE, ORDER_TYPES[kind]),
        (tags.TIME_IN_FORCE, TIMES_IN_FORCE[time_in_force]),
    ]
