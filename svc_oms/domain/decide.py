"""What follows from a command: events, or a refusal. Venue reports are decided in `reports`, and are never refused."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from kernel.errors import AbortedError, AlreadyExistsError, FailedPreconditionError, Reason
from svc_oms.domain import commands as c
from svc_oms.domain import events as e
from svc_oms.domain.draft import Draft
from svc_oms.domain.reports import record_report
from svc_oms.domain.state import Order, PendingRequest, Reject
from svc_oms.domain.vocabulary import Action, OrderState, OrderType

NO_VENUE_REASON = -1
"""`venue_reason` (FIX 102) where the refusal is ours."""


def decide(order: Order | None, command: c.Command) -> tuple[e.Event, ...]:
    """Return the events that follow from the command; none where it changes nothing.

    Raises:
        FailedPreconditionError: ORDER_TERMINAL, ORDER_ABANDONED, ORDER_REQUEST_PENDING, ORDER_STATE_UNKNOWN, REPLACE_INVALID.
        AbortedError: VERSION_STALE, the entity tag is not that of the order.
        AlreadyExistsError: the order exists already.
    """
    return _DECIDERS[type(command)](order, command)


def place(order: Order | None, command: c.PlaceOrder) -> tuple[e.Event, ...]:
    """Begin an order that risk has approved or refused."""
    if order is not None:
        if order.state is OrderState.ABANDONED:
            raise abandoned(order.order_id)
        raise AlreadyExistsError(Reason.IDEMPOTENCY_KEY_REUSED, f"order {order.order_id} exists")
    if command.reject is not None:
        return (e.OrderRejected(command.terms, command.reject, command.time),)
    return (e.OrderAccepted(command.terms, command.time),)


def abandoned(order_id: str) -> FailedPreconditionError:
    """Return the refusal of a key that was given up."""
    return _refusal(Reason.ORDER_ABANDONED, "the order was given up before it was accepted; use a new client order id", order_id)


def _refusal(reason: Reason, message: str, order_id: str) -> FailedPreconditionError:
    return FailedPreconditionError(reason, message, metadata={"resource_type": "order", "resource_name": order_id})


def _abandon(order: Order | None, command: c.AbandonOrder) -> tuple[e.Event, ...]:
    return () if order is not None else (e.OrderAbandoned(command.order_id, command.account_id, command.time),)


def _require_live(order: Order) -> None:
    if order.state is OrderState.ABANDONED:
        raise abandoned(order.order_id)
    if order.terminal:
        raise _refusal(Reason.ORDER_TERMINAL, f"the order is {order.state.name} and takes no more requests", order.order_id)


def _venue_client_order_id(order: Order, action: Action) -> str:
    """The ClOrdID of a request: unique, and its first 36 characters name the order."""
    letter = "c" if action is Action.CANCEL else "r"
    return f"{order.order_id}-{letter}{order.version + 1}"


def _request_cancel(order: Order | None, command: c.RequestCancel) -> tuple[e.Event, ...]:
    assert order is not None, "the caller has found the order"
    _require_live(order)
    if any(request.action is Action.CANCEL and not request.overdue for request in order.requests):
        raise _refusal(Reason.ORDER_REQUEST_PENDING, "a cancel of the order is pending", order.order_id)
    draft = Draft(order)
    for request in order.requests:
        if request.action is Action.REPLACE and not request.sent:
            text = "canceled before the replace was sent"
            draft.add(e.ReplaceRefused(request.venue_client_order_id, NO_VENUE_REASON, text, command.time))
    request_id = _venue_client_order_id(draft.order, Action.CANCEL)
    draft.add(e.CancelRequested(command.principal, command.request_id, request_id, command.time))
    if not order.routed:
        draft.add(e.OrderCanceled("", "", False, "canceled before it was sent", command.time))
    return draft.done()


def replaced_terms(order: Order, command: c.RequestReplace) -> tuple[Decimal, Decimal | None]:
    """Return the quantity and limit price that the replace asks for, old ones kept where it is silent.

    Call it before risk is asked, and `decide` again under the lock.

    Raises:
        as `decide`.
    """
    if command.etag and command.etag != order.etag:
        raise AbortedError(
            Reason.VERSION_STALE,
            f"the order is at version {order.version}",
            metadata={"resource_type": "order", "resource_name": order.order_id, "actual_version": order.etag},
        )
    _require_live(order)
    if order.state is OrderState.UNKNOWN:
        raise _refusal(Reason.ORDER_STATE_UNKNOWN, "the order's outcome at the venue is not known; it can only be canceled", order.order_id)
    if order.requests:
        raise _refusal(Reason.ORDER_REQUEST_PENDING, "a cancel or replace of the order is pending", order.order_id)
    if command.limit_price is not None and order.terms.type is OrderType.MARKET:
        raise _refusal(Reason.REPLACE_INVALID, "limit_price: not allowed on a market order", order.order_id)
    quantity = order.quantity if command.quantity is None else command.quantity
    limit_price = order.limit_price if command.limit_price is None else command.limit_price
    if quantity == order.quantity and limit_price == order.limit_price:
        raise _refusal(Reason.REPLACE_INVALID, "the replace changes nothing", order.order_id)
    if quantity <= order.filled_quantity:
        raise _refusal(Reason.REPLACE_INVALID, "quantity: at most what is filled already; cancel the order instead", order.order_id)
    return quantity, limit_price


def rejected(command: c.RequestReplace, reject: Reject) -> tuple[e.Event, ...]:
    """Return the events of a replace that comes to nothing here: the old terms stand, and nobody will record the request any more."""
    return (e.ReplaceRejected(command.principal, command.request_id, command.command_hash, reject, command.time),)


def _request_replace(order: Order | None, command: c.RequestReplace) -> tuple[e.Event, ...]:
    assert order is not None, "the caller has found the order"
    quantity, limit_price = replaced_terms(order, command)
    if command.reject is not None:
        return rejected(command, command.reject)
    draft = Draft(order)
    request_id = _venue_client_order_id(order, Action.REPLACE)
    draft.add(
        e.ReplaceRequested(command.principal, command.request_id, request_id, quantity, limit_price, command.command_hash, command.time)
    )
    if not order.routed:
        draft.add(e.OrderReplaced("", "", quantity, limit_price, False, "", command.time))
    return draft.done()


def unsent(order: Order, action: Action, venue_client_order_id: str) -> bool:
    """Say whether a request still waits to be sent: what the router asks under the lock, immediately before it sends."""
    if order.terminal:
        return False
    if action is Action.NEW:
        return not order.routed and order.state is OrderState.PENDING_NEW
    request = order.request(venue_client_order_id)
    return request is not None and not request.sent


def _route(order: Order | None, command: c.RouteRequest) -> tuple[e.Event, ...]:
    if order is None or not unsent(order, command.action, command.venue_client_order_id):
        return ()
    routed = e.OrderRouted(order.terms.venue, command.venue_client_order_id, command.action, command.message_sequence, command.time)
    return (routed,)


def _refuse_unsent(order: Order | None, command: c.RefuseUnsent) -> tuple[e.Event, ...]:
    if order is None or not unsent(order, command.action, command.venue_client_order_id):
        return ()
    if command.action is Action.NEW:
        return (e.OrderRefused(Reject(command.reason, command.text), "", "", command.time),)
    if command.action is Action.REPLACE:
        return (e.ReplaceRefused(command.venue_client_order_id, NO_VENUE_REASON, command.text, command.time),)
    return (e.CancelRefused(command.venue_client_order_id, NO_VENUE_REASON, command.text, command.time),)


def _mark_unknown(order: Order | None, command: c.MarkUnknown) -> tuple[e.Event, ...]:
    if order is None or (order.terminal and not order.reopening):
        return ()
    if not _unanswered(order, order.request(command.venue_client_order_id), command):
        return ()
    return (e.OrderMarkedUnknown(command.venue_client_order_id, command.time),)


def _unanswered(order: Order, request: PendingRequest | None, command: c.MarkUnknown) -> bool:
    if request is not None:
        return request.sent and not request.overdue
    is_new_order = command.venue_client_order_id == order.venue_client_order_id
    return is_new_order and order.routed and not order.overdue and order.state is OrderState.PENDING_NEW


def _record_report(order: Order | None, command: c.RecordReport) -> tuple[e.Event, ...]:
    assert order is not None, "a report of no order is an anomaly of the session, not of an order"
    return record_report(order, command.report, command.time, synchronised=command.synchronised)


_DECIDERS: dict[type, Callable[[Order | None, Any], tuple[e.Event, ...]]] = {
    c.PlaceOrder: place,
    c.AbandonOrder: _abandon,
    c.RequestCancel: _request_cancel,
    c.RequestReplace: _request_replace,
    c.RouteRequest: _route,
    c.RefuseUnsent: _refuse_unsent,
    c.MarkUnknown: _mark_unknown,
    c.RecordReport: _record_report,
}
