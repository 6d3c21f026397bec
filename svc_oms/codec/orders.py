"""Orders, terms and refusals between the domain and the contract."""

from __future__ import annotations

from decimal import Decimal

from kernel.errors import Reason
from svc_oms.codec.scalars import decimal_text, reason_number, reason_of, text_of, time_field, timestamp
from svc_oms.domain import Breach, Order, OrderState, OrderType, Reject, Side, Terms, TimeInForce
from svc_oms.domain.events import Execution
from trademesh.oms.v1 import events_pb2, execution_pb2, order_pb2
from trademesh.risk.v1 import limit_pb2

_CREATE_TIME = order_pb2.Order.CREATE_TIME_FIELD_NUMBER
_UPDATE_TIME = order_pb2.Order.UPDATE_TIME_FIELD_NUMBER
_TERMINAL_TIME = order_pb2.Order.TERMINAL_TIME_FIELD_NUMBER

_SIDES = {int(side): side for side in Side}
_TYPES = {int(kind): kind for kind in OrderType}
_TIMES_IN_FORCE = {int(time): time for time in TimeInForce}


def order_message(order: Order) -> order_pb2.Order:
    """Return the order as clients see it."""
    terms, pending, created = order.terms, order.pending_action, timestamp(order.create_time)
    return order_pb2.Order(
        order_id=terms.order_id,
        client_order_id=terms.client_order_id,
        account_id=terms.account_id,
        instrument_id=terms.instrument_id,
        side=terms.side,  # type: ignore[arg-type]  # (the contract's numbers)
        type=terms.type,  # type: ignore[arg-type]  # (the contract's numbers)
        time_in_force=terms.time_in_force,  # type: ignore[arg-type]  # (the contract's numbers)
        quantity=text_of(order.quantity),
        limit_price=decimal_text(order.limit_price),
        labels=terms.labels or None,
        state=order.state,  # type: ignore[arg-type]  # (the contract's numbers)
        pending_action=0 if pending is None else pending,  # type: ignore[arg-type]  # (the contract's numbers)
        filled_quantity=text_of(order.filled_quantity),
        leaves_quantity=text_of(order.leaves_quantity),
        average_price=decimal_text(order.average_price),
        reject=None if order.reject is None else reject_message(order.reject),
        version=order.version,
        etag=order.etag,
        principal=terms.principal,
        venue=terms.venue,
        venue_order_id=order.venue_order_id,
        create_time=created,
        update_time=created if order.version == 1 else timestamp(order.update_time),
        terminal_time=None if order.terminal_time is None else timestamp(order.terminal_time),
    )


def begun_order(order: Order) -> bytes:
    """Return what `order_message` serializes to, for an order at version 1: it has neither fills nor requests, and every order passes
    here.
    """
    terms, created = order.terms, order.create_time
    quantity = text_of(terms.quantity)
    live = order.reject is None
    message = order_pb2.Order(
        order_id=terms.order_id,
        client_order_id=terms.client_order_id,
        account_id=terms.account_id,
        instrument_id=terms.instrument_id,
        side=terms.side,  # type: ignore[arg-type]  # (the contract's numbers)
        type=terms.type,  # type: ignore[arg-type]  # (the contract's numbers)
        time_in_force=terms.time_in_force,  # type: ignore[arg-type]  # (the contract's numbers)
        quantity=quantity,
        limit_price=decimal_text(terms.limit_price),
        labels=terms.labels or None,
        state=order.state,  # type: ignore[arg-type]  # (the contract's numbers)
        filled_quantity="0",
        leaves_quantity=quantity if live else "0",
        reject=None if order.reject is None else reject_message(order.reject),
        version=1,
        etag="1",
        principal=terms.principal,
        venue=terms.venue,
    )
    times = time_field(_CREATE_TIME, created) + time_field(_UPDATE_TIME, created)
    return message.SerializeToString() + (times if live else times + time_field(_TERMINAL_TIME, created))


def abandoned_message(order: Order) -> order_pb2.Order:
    """Return an abandoned order: state and ids, since it never had terms."""
    return order_pb2.Order(
        order_id=order.order_id,
        account_id=order.terms.account_id,
        state=OrderState.ABANDONED,  # type: ignore[arg-type]  # (the contract's numbers)
        version=order.version,
        etag=order.etag,
    )


def terms_message(terms: Terms) -> events_pb2.OrderTerms:
    """Return terms for an event."""
    return events_pb2.OrderTerms(
        order_id=terms.order_id,
        client_order_id=terms.client_order_id,
        account_id=terms.account_id,
        tenant=terms.tenant,
        principal=terms.principal,
        instrument_id=terms.instrument_id,
        side=terms.side,  # type: ignore[arg-type]  # (the contract's numbers)
        type=terms.type,  # type: ignore[arg-type]  # (the contract's numbers)
        time_in_force=terms.time_in_force,  # type: ignore[arg-type]  # (the contract's numbers)
        quantity=text_of(terms.quantity),
        limit_price=decimal_text(terms.limit_price),
        labels=terms.labels or None,
        command_hash=terms.command_hash,
        venue=terms.venue,
    )


def terms_of(message: events_pb2.OrderTerms) -> Terms:
    """Return the terms of an event."""
    return Terms(
        order_id=message.order_id,
        client_order_id=message.client_order_id,
        account_id=message.account_id,
        tenant=message.tenant,
        principal=message.principal,
        instrument_id=message.instrument_id,
        side=_SIDES[message.side],
        type=_TYPES[message.type],
        time_in_force=_TIMES_IN_FORCE[message.time_in_force],
        quantity=Decimal(message.quantity),
        limit_price=Decimal(message.limit_price) if message.HasField("limit_price") else None,
        labels=dict(message.labels),
        command_hash=message.command_hash,
        venue=message.venue,
    )


def reject_message(reject: Reject) -> order_pb2.OrderReject:
    """Return a refusal."""
    return order_pb2.OrderReject(
        reason=reason_number(reject.reason),
        text=reject.text,
        breaches=[
            limit_pb2.LimitBreach(
                reason=reason_number(breach.reason), scope=breach.scope, limit=breach.limit, actual=breach.actual, text=breach.text
            )
            for breach in reject.breaches
        ],
    )


def reject_of(message: order_pb2.OrderReject) -> Reject:
    """Return the refusal that a message holds."""
    return Reject(reason_of(message.reason), message.text, tuple(breach_of(item) for item in message.breaches))


def breach_of(message: limit_pb2.LimitBreach) -> Breach:
    """Return the breach that a message holds."""
    return Breach(reason_of(message.reason), message.scope, message.limit, message.actual, message.text)


def risk_reject(breaches: list[limit_pb2.LimitBreach]) -> Reject:
    """Return risk's refusal as the order's: the first breach speaks, all are kept."""
    if not breaches:
        return Reject(Reason.INTERNAL, "risk refused without a reason")
    first = breach_of(breaches[0])
    return Reject(first.reason, first.text, (first, *(breach_of(item) for item in breaches[1:])))


def execution_message(execution: Execution, terms: Terms) -> execution_pb2.Execution:
    """Return an execution of an order with those terms."""
    return execution_pb2.Execution(
        exec_id=execution.key.exec_id,
        order_id=terms.order_id,
        client_order_id=terms.client_order_id,
        account_id=terms.account_id,
        instrument_id=terms.instrument_id,
        side=terms.side,  # type: ignore[arg-type]  # (the contract's numbers)
        type=execution.type,  # type: ignore[arg-type]  # (the contract's numbers)
        exec_ref_id=execution.exec_ref_id,
        last_quantity=text_of(execution.last_quantity),
        last_price=text_of(execution.last_price),
        filled_quantity=text_of(execution.filled_quantity),
        leaves_quantity=text_of(execution.leaves_quantity),
        average_price=decimal_text(execution.average_price),
        venue=execution.key.venue,
        trade_date=execution.key.trade_date,
        transact_time=timestamp(execution.transact_time),
        order_version=execution.order_version,
        late=execution.late,
    )
