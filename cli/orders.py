"""Order entry and order queries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from cli import rpcs
from cli.exits import Exit
from cli.output import Output, as_mapping, clock_time, enum_name
from cli.session import Session, command, new_key, with_session
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import execution_pb2, order_pb2, order_service_pb2
from trademesh.type.v1 import order_terms_pb2

TERMINAL = frozenset(
    {
        order_pb2.ORDER_STATE_FILLED,
        order_pb2.ORDER_STATE_CANCELED,
        order_pb2.ORDER_STATE_REJECTED,
        order_pb2.ORDER_STATE_EXPIRED,
        order_pb2.ORDER_STATE_ABANDONED,
    }
)
ORDER_COLUMNS = ("order", "client key", "instrument", "side", "type", "quantity", "limit", "state", "filled", "average", "time")

_POLL_SECONDS = 0.1
_account = click.option("--account", required=True, metavar="ACCOUNT", help="The account, such as ACC-1.")


@command(values_may_be_negative=True)
@click.argument("side", type=click.Choice(["buy", "sell"], case_sensitive=False))
@click.argument("quantity")
@click.argument("instrument")
@_account
@click.option("--limit", "limit_price", metavar="PRICE", help="The limit price; without it the order is a market order.")
@click.option("--tif", default="DAY", show_default=True, type=click.Choice(["DAY", "GTC", "IOC", "FOK"], case_sensitive=False))
@click.option("--client-order-id", "key", metavar="KEY", help="The order's key; the same key never places a second order (fresh).")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A free tag; may be repeated.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(0, 300), metavar="SECONDS", help="Wait for a terminal state.")
@with_session
def order(session: Session, side: str, quantity: str, instrument: str, account: str, **terms: Any) -> int:
    """Place an order: `trademesh order buy 10 AAPL --limit 232.50 --account ACC-1`."""
    limit_price, key = terms["limit_price"], terms["key"] or new_key()
    request = order_service_pb2.CreateOrderRequest(
        account_id=account,
        client_order_id=key,
        instrument_id=instrument,
        side=order_terms_pb2.Side.Value(f"SIDE_{side.upper()}"),
        type=order_terms_pb2.ORDER_TYPE_MARKET if limit_price is None else order_terms_pb2.ORDER_TYPE_LIMIT,
        time_in_force=order_terms_pb2.TimeInForce.Value(f"TIME_IN_FORCE_{terms['tif'].upper()}"),
        quantity=quantity,
        limit_price=limit_price,
        labels=dict(_label(text) for text in terms["labels"]),
    )
    session.output.note(f"client order id {key}")
    reply = session.call(rpcs.CREATE_ORDER, request, account)
    placed, rejected = reply.message.order, reply.message.order.state == order_pb2.ORDER_STATE_REJECTED
    if terms["wait_seconds"] and not rejected:
        placed = _until_terminal(session, placed, terms["wait_seconds"])
    if session.output.as_json:
        session.output.document({"order": as_mapping(placed), "replayed": reply.replayed})
    else:
        show_order(session.output, placed)
        if reply.replayed:
            session.output.line("This key had placed the order before; its first answer is shown, and nothing was placed.")
    return Exit.REJECTED if placed.state == order_pb2.ORDER_STATE_REJECTED else Exit.DONE


@command()
@click.argument("order_id")
@_account
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def cancel(session: Session, order_id: str, account: str, request_id: str | None) -> int:
    """Ask to cancel an order."""
    request = order_service_pb2.CancelOrderRequest(account_id=account, order_id=order_id, request_id=request_id or new_key())
    reply = session.call(rpcs.CANCEL_ORDER, request, account)
    return _answer_order(session, reply.message, reply.message.order)


@command("cancel-all")
@_account
@click.option("--instrument", default="", metavar="INSTRUMENT", help="Only orders of this instrument.")
@click.option("--side", type=click.Choice(["buy", "sell"], case_sensitive=False), help="Only orders of this side.")
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def cancel_all(session: Session, account: str, instrument: str, side: str | None, request_id: str | None) -> int:
    """Ask to cancel all open orders of an account."""
    request = order_service_pb2.CancelAllOrdersRequest(
        account_id=account,
        instrument_id=instrument,
        side=order_terms_pb2.Side.Value(f"SIDE_{side.upper()}") if side else order_terms_pb2.SIDE_UNSPECIFIED,
        request_id=request_id or new_key(),
    )
    message = session.call(rpcs.CANCEL_ALL_ORDERS, request, account).message
    if session.output.as_json:
        session.output.document(message)
    else:
        session.output.table(["order"], [[order_id] for order_id in message.order_ids], empty="No open order matched.")
    return Exit.DONE


@command(values_may_be_negative=True)
@click.argument("order_id")
@_account
@click.option("--quantity", metavar="QUANTITY", help="The new quantity in total, what is filled included.")
@click.option("--limit", "limit_price", metavar="PRICE", help="The new limit price.")
@click.option("--etag", default="", metavar="ETAG", help="Refuse unless this is the order's entity tag.")
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def replace(session: Session, order_id: str, account: str, request_id: str | None, **terms: Any) -> int:
    """Ask to replace an order's quantity, its limit price, or both."""
    request = order_service_pb2.ReplaceOrderRequest(account_id=account, order_id=order_id, request_id=request_id or new_key(), **terms)
    message = session.call(rpcs.REPLACE_ORDER, request, account).message
    _answer_order(session, message, message.order)
    if not message.HasField("reject"):
        return Exit.DONE
    if not session.output.as_json:
        _show_reject(session.output, message.reject)
    return Exit.REJECTED


@command()
@click.argument("order_id", required=False)
@_account
@click.option("--client-order-id", "key", metavar="KEY", help="Find the order by its key instead.")
@with_session
def get(session: Session, order_id: str | None, account: str, key: str | None) -> int:
    """Show an order, by its id or by its key."""
    if (order_id is None) == (key is None):
        raise click.UsageError("give either ORDER_ID or --client-order-id")
    if key is not None:
        lookup = order_service_pb2.LookupOrderRequest(account_id=account, client_order_id=key)
        found = session.call(rpcs.LOOKUP_ORDER, lookup, account).message
        return _answer_order(session, found, found.order)
    message = session.call(rpcs.GET_ORDER, order_service_pb2.GetOrderRequest(account_id=account, order_id=order_id or ""), account).message
    return _answer_order(session, message, message.order)


@command()
@_account
@click.option("--instrument", default="", metavar="INSTRUMENT", help="Only orders of this instrument.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only orders in this state, such as FILLED; may be repeated.")
@click.option("--open", "open_only", is_flag=True, help="Only orders that are not terminal.")
@click.option("--page-size", type=int, default=50, show_default=True, metavar="COUNT")
@click.option("--page-token", default="", metavar="TOKEN", help="From the page before.")
@with_session
def orders(session: Session, account: str, instrument: str, states: Sequence[str], **page: Any) -> int:
    """List the orders of an account, newest first."""
    request = order_service_pb2.ListOrdersRequest(
        account_id=account, instrument_id=instrument, states=[_state(name) for name in states], **page
    )
    message = session.call(rpcs.LIST_ORDERS, request, account).message
    if session.output.as_json:
        session.output.document(message)
    else:
        session.output.table(ORDER_COLUMNS, [order_row(item) for item in message.orders], empty="No orders.")
        session.output.next_page(message.next_page_token)
    return Exit.DONE


@command()
@_account
@click.option("--order", "order_id", default="", metavar="ORDER_ID", help="Only executions of this order.")
@click.option("--instrument", "instrument_id", default="", metavar="INSTRUMENT", help="Only executions of this instrument.")
@click.option("--page-size", type=int, default=50, show_default=True, metavar="COUNT")
@click.option("--page-token", default="", metavar="TOKEN", help="From the page before.")
@with_session
def executions(session: Session, account: str, **selection: Any) -> int:
    """List fills, busts and corrections of an account, newest first."""
    message = session.call(rpcs.LIST_EXECUTIONS, order_service_pb2.ListExecutionsRequest(account_id=account, **selection), account).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    columns = ("execution", "order", "instrument", "side", "type", "quantity", "price", "leaves", "venue", "time")
    session.output.table(columns, [_execution_row(item) for item in message.executions], empty="No executions.")
    session.output.next_page(message.next_page_token)
    return Exit.DONE


def order_row(item: order_pb2.Order) -> tuple[str, ...]:
    """Return an order's row under `ORDER_COLUMNS`."""
    state = enum_name(order_pb2.OrderState, item.state, "ORDER_STATE_")
    if item.pending_action:
        state += f" ({enum_name(order_pb2.PendingAction, item.pending_action, 'PENDING_ACTION_').lower()} pending)"
    return (
        item.order_id,
        item.client_order_id,
        item.instrument_id,
        side_name(item.side),
        enum_name(order_terms_pb2.OrderType, item.type, "ORDER_TYPE_"),
        item.quantity,
        item.limit_price if item.HasField("limit_price") else "",
        state,
        item.filled_quantity,
        item.average_price if item.HasField("average_price") else "",
        clock_time(item.update_time),
    )


def show_order(output: Output, item: order_pb2.Order) -> None:
    """Write an order for people, with its refusal if it was refused."""
    output.table(ORDER_COLUMNS, [order_row(item)], empty="")
    if item.HasField("reject"):
        _show_reject(output, item.reject)


def side_name(side: int) -> str:
    """Return `BUY` or `SELL`."""
    return enum_name(order_terms_pb2.Side, side, "SIDE_")


def reason_name(reason: int) -> str:
    """Return an error reason without its prefix."""
    return enum_name(error_reason_pb2.ErrorReason, reason, "ERROR_REASON_")


def _show_reject(output: Output, reject: order_pb2.OrderReject) -> None:
    output.line(f"refused: {reason_name(reject.reason)}: {reject.text}")
    rows = [(reason_name(item.reason), item.scope, item.limit, item.actual, item.text) for item in reject.breaches]
    if rows:
        output.table(("reason", "scope", "limit", "actual", "what"), rows, empty="")


def _execution_row(item: execution_pb2.Execution) -> tuple[str, ...]:
    return (
        item.exec_id,
        item.order_id,
        item.instrument_id,
        side_name(item.side),
        enum_name(execution_pb2.ExecutionType, item.type, "EXECUTION_TYPE_"),
        item.last_quantity,
        item.last_price,
        item.leaves_quantity,
        item.venue,
        clock_time(item.transact_time),
    )


def _answer_order(session: Session, message: Any, item: order_pb2.Order) -> int:
    if session.output.as_json:
        session.output.document(message)
    else:
        show_order(session.output, item)
    return Exit.DONE


def _until_terminal(session: Session, item: order_pb2.Order, wait_seconds: float) -> order_pb2.Order:
    deadline = time.monotonic() + wait_seconds
    while item.state not in TERMINAL and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        request = order_service_pb2.GetOrderRequest(account_id=item.account_id, order_id=item.order_id)
        item = session.call(rpcs.GET_ORDER, request, item.account_id).message.order
    return item


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--label")
    return name, value


def _state(name: str) -> Any:
    try:
        return order_pb2.OrderState.Value(f"ORDER_STATE_{name.upper()}")
    except ValueError:
        known = ", ".join(key.removeprefix("ORDER_STATE_") for key in order_pb2.OrderState.keys()[1:])
        raise click.BadParameter(f"{name!r} is none of {known}", param_hint="--state") from None
