"""Commands as they come off the wire: normalised, hashed, and as risk is asked about them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.identity import User
from kernel.ids import order_id
from svc_oms.domain import Order, OrderType, Side, Terms, TimeInForce
from svc_oms.domain.commands import RequestReplace
from trademesh.oms.v1 import order_service_pb2
from trademesh.risk.v1 import pre_trade_service_pb2
from trademesh.type.v1 import order_terms_pb2, user_pb2

_ACCOUNT_ID = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}").fullmatch
_INSTRUMENT_ID = re.compile(r"[A-Z0-9][A-Z0-9.-]{0,31}").fullmatch
_CLIENT_KEY = re.compile(r"[A-Za-z0-9._:~-]{1,64}").fullmatch
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,18})?").fullmatch

_SIDES = {int(side): side for side in Side}
_TYPES = {int(kind): kind for kind in OrderType}
_TIMES_IN_FORCE = {int(time): time for time in TimeInForce}


class OrderCommand(NamedTuple):
    """A CreateOrder as it came, from an authenticated user; nothing of it is checked yet."""

    request: order_service_pb2.CreateOrderRequest
    user: User


class NewOrder(NamedTuple):
    """A valid CreateOrder command of an authorised user, with its decimals in canonical text."""

    request: order_service_pb2.CreateOrderRequest
    user: User
    order_id: str
    quantity: str
    limit_price: str | None
    command_hash: bytes

    def terms(self, tenant: str, venue: str) -> Terms:
        """Return the order's terms, with what risk knows of the account and the instrument."""
        request = self.request
        return Terms(
            self.order_id,
            request.client_order_id,
            request.account_id,
            tenant,
            self.user.principal,
            request.instrument_id,
            _SIDES[request.side],
            _TYPES[request.type],
            _TIMES_IN_FORCE[request.time_in_force],
            Decimal(self.quantity),
            None if self.limit_price is None else Decimal(self.limit_price),
            dict(request.labels) if request.labels else {},
            self.command_hash,
            venue,
        )


def is_plain(request: order_service_pb2.CreateOrderRequest) -> bool:
    """Say whether the request is a plain one that obeys the contract's rules for certain; of any other one, the rules have to decide.

    A shortcut of 3 µs past the 12 µs of the rules themselves. It may only ever be stricter; a property test holds it to that.
    """
    is_limit = request.type == order_terms_pb2.ORDER_TYPE_LIMIT
    return (
        not request.labels
        and _ACCOUNT_ID(request.account_id) is not None
        and _CLIENT_KEY(request.client_order_id) is not None
        and _INSTRUMENT_ID(request.instrument_id) is not None
        and 1 <= request.side <= 2
        and 1 <= request.type <= 2
        and 1 <= request.time_in_force <= 4
        and _is_positive(request.quantity)
        and request.HasField("limit_price") is is_limit
        and (_is_positive(request.limit_price) if is_limit else request.time_in_force != order_terms_pb2.TIME_IN_FORCE_GTC)
    )


def _is_positive(text: str) -> bool:
    return _DECIMAL(text) is not None and bool(text.strip("0."))


def canonical(text: str) -> str:
    """Return a valid decimal without trailing zeros after the point, so that `10.0` and `10` are one command."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def new_order(request: order_service_pb2.CreateOrderRequest, user: User) -> NewOrder:
    """Return the normalised command. The request must have passed the contract's rules."""
    quantity = canonical(request.quantity)
    limit_price = canonical(request.limit_price) if request.HasField("limit_price") else None
    labels = json.dumps(sorted(request.labels.items())) if request.labels else ""
    account_id, client_order_id = request.account_id, request.client_order_id
    # No field but labels can hold a line feed, and labels come last.
    text = (
        f"create.1\n{account_id}\n{client_order_id}\n{request.instrument_id}\n{request.side}\n{request.type}\n{request.time_in_force}"
        f"\n{quantity}\n{limit_price or ''}\n{labels}"
    )
    command_hash = hashlib.sha256(text.encode()).digest()
    return NewOrder(request, user, order_id(account_id, client_order_id), quantity, limit_price, command_hash)


def cancel_hash(request: order_service_pb2.CancelOrderRequest) -> bytes:
    """Return the hash of a normalised CancelOrder."""
    return hashlib.sha256(f"cancel.1\n{request.account_id}\n{request.order_id}".encode()).digest()


def cancel_all_hash(request: order_service_pb2.CancelAllOrdersRequest) -> bytes:
    """Return the hash of a normalised CancelAllOrders."""
    return hashlib.sha256(f"cancel-all.1\n{request.account_id}\n{request.instrument_id}\n{request.side}".encode()).digest()


def replace_hash(request: order_service_pb2.ReplaceOrderRequest) -> bytes:
    """Return the hash of a normalised ReplaceOrder."""
    quantity = canonical(request.quantity) if request.HasField("quantity") else ""
    limit_price = canonical(request.limit_price) if request.HasField("limit_price") else ""
    text = f"replace.1\n{request.account_id}\n{request.order_id}\n{quantity}\n{limit_price}\n{request.etag}"
    return hashlib.sha256(text.encode()).digest()


def replace_command(request: order_service_pb2.ReplaceOrderRequest, user: User, command_hash: bytes, time: datetime) -> RequestReplace:
    """Return the domain command of a ReplaceOrder, not yet checked by risk."""
    return RequestReplace(
        principal=user.principal,
        request_id=request.request_id,
        quantity=Decimal(request.quantity) if request.HasField("quantity") else None,
        limit_price=Decimal(request.limit_price) if request.HasField("limit_price") else None,
        command_hash=command_hash,
        etag=request.etag,
        reject=None,
        time=time,
    )


def user_message(user: User) -> user_pb2.User:
    """Return the user as it travels to risk."""
    return user_pb2.User(principal=user.principal, tenant=user.tenant, roles=sorted(user.roles))


def new_order_checks(items: Iterable[NewOrder], receive_time: Timestamp) -> pre_trade_service_pb2.CheckOrdersRequest:
    """Return the question that risk is asked about new orders, in their order."""
    request = pre_trade_service_pb2.CheckOrdersRequest()
    add = request.orders.add
    users: dict[int, user_pb2.User] = {}
    for order in items:
        user = users.get(id(order.user))
        if user is None:
            user = users[id(order.user)] = user_message(order.user)
        asked = order.request
        add(
            kind=pre_trade_service_pb2.CHECK_KIND_NEW,
            order_id=order.order_id,
            request_id=order.order_id,
            payload_hash=order.command_hash,
            user=user,
            account_id=asked.account_id,
            instrument_id=asked.instrument_id,
            side=asked.side,
            type=asked.type,
            time_in_force=asked.time_in_force,
            quantity=order.quantity,
            limit_price=order.limit_price,
            receive_time=receive_time,
        )
    return request


def replace_check(
    order: Order, command: RequestReplace, quantity: str, limit_price: str | None, user: user_pb2.User, receive_time: Timestamp
) -> pre_trade_service_pb2.CheckOrdersRequest:
    """Return the question that risk is asked about new terms of an order."""
    terms = order.terms
    item = pre_trade_service_pb2.OrderCheck(
        kind=pre_trade_service_pb2.CHECK_KIND_REPLACE,
        order_id=terms.order_id,
        request_id=command.request_id,
        payload_hash=command.command_hash,
        user=user,
        account_id=terms.account_id,
        instrument_id=terms.instrument_id,
        side=terms.side,  # type: ignore[arg-type]  # (the contract's numbers)
        type=terms.type,  # type: ignore[arg-type]  # (the contract's numbers)
        time_in_force=terms.time_in_force,  # type: ignore[arg-type]  # (the contract's numbers)
        quantity=quantity,
        limit_price=limit_price,
        receive_time=receive_time,
    )
    return pre_trade_service_pb2.CheckOrdersRequest(orders=[item])
