"""Folding: the state of an order after an event. Total over every history that `decide` can write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from kernel.values import ZERO
from svc_oms.domain import events as e
from svc_oms.domain.state import EXACT, ExecutionKey, Fill, Order, PendingRequest, Terms
from svc_oms.domain.transitions import Fact, next_state
from svc_oms.domain.vocabulary import TERMINAL, Action, ExecutionType, OrderState, OrderType, Side, TimeInForce


def evolve(order: Order | None, event: e.Event) -> Order:
    """Return the order after the event.

    Raises:
        ValueError: the first event does not begin an order, or a later one does; a corrupt history.
    """
    begin = _BEGINNINGS.get(type(event))
    if begin is not None:
        if order is not None:
            raise ValueError(f"{type(event).__name__} begins a stream that has begun")
        return begin(event)
    if order is None:
        raise ValueError(f"{type(event).__name__} cannot begin an order")
    return _CHANGES[type(event)](order, event)


def fold(events: Iterable[e.Event], order: Order | None = None) -> Order | None:
    """Return the order after all events, starting from `order`."""
    for event in events:
        order = evolve(order, event)
    return order


def _begun(terms: Terms, state: OrderState, time: datetime, **facts: Any) -> Order:
    return Order(terms, state, 1, terms.quantity, terms.limit_price, time, time, time if state in TERMINAL else None, **facts)


def _abandoned(event: e.OrderAbandoned) -> Order:
    terms = Terms(
        event.order_id,
        "",
        event.account_id,
        "",
        "",
        "",
        Side.UNSPECIFIED,
        OrderType.UNSPECIFIED,
        TimeInForce.UNSPECIFIED,
        ZERO,
        None,
        {},
        b"",
        "",
    )
    return _begun(terms, OrderState.ABANDONED, event.time)


def _next(order: Order, time: datetime, state: OrderState | None = None, **facts: Any) -> Order:
    state = order.state if state is None else state
    terminal_time = (order.terminal_time or time) if state in TERMINAL else None
    return order._replace(version=order.version + 1, update_time=time, state=state, terminal_time=terminal_time, **facts)


def _moved(order: Order, fact: Fact, quantity: Decimal | None = None) -> OrderState:
    """The state by the table; a pair that it does not hold (a rule of an older release) leaves the state."""
    return next_state(order.state, fact, order.quantity if quantity is None else quantity, order.filled_quantity) or order.state


def _seen(order: Order, trade_date: str, exec_id: str) -> frozenset[ExecutionKey]:
    return order.reports | {ExecutionKey(order.terms.venue, trade_date, exec_id)} if exec_id else order.reports


def _without(order: Order, venue_client_order_id: str) -> tuple[PendingRequest, ...]:
    return tuple(request for request in order.requests if request.venue_client_order_id != venue_client_order_id)


def _without_action(order: Order, action: Action) -> tuple[PendingRequest, ...]:
    return tuple(request for request in order.requests if request.action is not action)


def _routed(order: Order, event: e.OrderRouted) -> Order:
    if event.action is Action.NEW:
        return _next(
            order, event.time, routed=True, venue_client_order_id=event.venue_client_order_id, message_sequence=event.message_sequence
        )
    requests = tuple(
        replace(request, sent=True) if request.venue_client_order_id == event.venue_client_order_id else request
        for request in order.requests
    )
    return _next(order, event.time, requests=requests, message_sequence=event.message_sequence)


def _acknowledged(order: Order, event: e.OrderAcknowledged) -> Order:
    return _next(
        order,
        event.time,
        _moved(order, Fact.ACKNOWLEDGED),
        acknowledged=True,
        venue_order_id=event.venue_order_id or order.venue_order_id,
        reports=_seen(order, event.trade_date, event.exec_id),
    )


def _refused(order: Order, event: e.OrderRefused) -> Order:
    reports = _seen(order, event.trade_date, event.exec_id)
    return _next(order, event.time, _moved(order, Fact.REFUSED), reject=event.reject, reports=reports)


def root_of(order: Order, venue: str, trade_date: str, exec_ref_id: str) -> ExecutionKey | None:
    """Return the fill that a bust or correction names, through earlier corrections; None when the order has no such fill.

    FIX gives the reference no trade date: the same day is tried first, then the only fill of that id on another day.
    """
    key = ExecutionKey(venue, trade_date, exec_ref_id)
    if key in order.corrections or key in order.fills:
        return order.corrections.get(key, key)
    found = {
        order.corrections.get(other, other)
        for other in (*order.fills, *order.corrections)
        if other.venue == venue and other.exec_id == exec_ref_id
    }
    return found.pop() if len(found) == 1 else None


def _executed(order: Order, event: e.ExecutionRecorded) -> Order:
    execution = event.execution
    key, fills, corrections, reports = execution.key, dict(order.fills), order.corrections, order.reports
    if execution.type is ExecutionType.TRADE:
        root, before = key, Fill(ZERO, ZERO)
    else:
        found = root_of(order, key.venue, key.trade_date, execution.exec_ref_id)
        root = key if found is None else found
        before = fills.get(root, Fill(ZERO, ZERO))
        if execution.type is ExecutionType.TRADE_CORRECT:
            corrections = {**corrections, key: root}
        reports = reports | {key}
    busted = execution.type is ExecutionType.TRADE_CANCEL
    after = Fill(ZERO, before.price) if busted else Fill(execution.last_quantity, execution.last_price)
    fills[root] = after
    added = EXACT.subtract(EXACT.multiply(after.quantity, after.price), EXACT.multiply(before.quantity, before.price))
    return _next(
        order,
        event.time,
        event.state,
        filled_quantity=EXACT.add(order.filled_quantity, EXACT.subtract(after.quantity, before.quantity)),
        filled_value=EXACT.add(order.filled_value, added),
        fills=fills,
        corrections=corrections,
        reports=reports,
        venue_order_id=event.venue_order_id or order.venue_order_id,
    )


def _cancel_requested(order: Order, event: e.CancelRequested) -> Order:
    return _next(order, event.time, requests=(*order.requests, PendingRequest(event.venue_client_order_id, Action.CANCEL)))


def _request_refused(order: Order, event: e.CancelRefused | e.ReplaceRefused) -> Order:
    return _next(order, event.time, requests=_without(order, event.venue_client_order_id))


def _canceled(order: Order, event: e.OrderCanceled) -> Order:
    reports = _seen(order, event.trade_date, event.exec_id)
    return _next(order, event.time, _moved(order, Fact.CANCELED), requests=_without_action(order, Action.CANCEL), reports=reports)


def _replace_requested(order: Order, event: e.ReplaceRequested) -> Order:
    request = PendingRequest(event.venue_client_order_id, Action.REPLACE, event.quantity, event.limit_price)
    return _next(order, event.time, requests=(*order.requests, request))


def _replaced(order: Order, event: e.OrderReplaced) -> Order:
    fact = Fact.RESTATED if event.restated else Fact.REPLACED
    facts: dict[str, Any] = {}
    if not event.restated:
        answered = [request for request in order.requests if request.action is Action.REPLACE]
        # An order that was never sent keeps its id: the new terms go out with the new order itself.
        if answered and order.routed:
            facts["venue_client_order_id"] = answered[0].venue_client_order_id
        facts["requests"] = _without_action(order, Action.REPLACE)
    state = order.state if not order.routed else _moved(order, fact, event.quantity)
    return _next(
        order,
        event.time,
        state,
        quantity=event.quantity,
        limit_price=event.limit_price,
        reports=_seen(order, event.trade_date, event.exec_id),
        venue_order_id=event.venue_order_id or order.venue_order_id,
        **facts,
    )


def _state_changed(order: Order, event: e.OrderStateChanged) -> Order:
    return _next(order, event.time, event.state, reports=_seen(order, event.trade_date, event.exec_id))


def _marked_unknown(order: Order, event: e.OrderMarkedUnknown) -> Order:
    requests = tuple(
        replace(request, overdue=True) if request.venue_client_order_id == event.venue_client_order_id else request
        for request in order.requests
    )
    overdue = order.overdue or event.venue_client_order_id == order.venue_client_order_id
    return _next(order, event.time, _moved(order, Fact.TIMED_OUT), requests=requests, overdue=overdue)


def _noted(order: Order, event: e.AnomalyRecorded | e.ReplaceRejected) -> Order:
    return _next(order, event.time)


_BEGINNINGS: dict[type, Callable[[Any], Order]] = {
    e.OrderAccepted: lambda event: _begun(event.terms, OrderState.PENDING_NEW, event.time),
    e.OrderRejected: lambda event: _begun(event.terms, OrderState.REJECTED, event.time, reject=event.reject),
    e.OrderAbandoned: _abandoned,
}

_CHANGES: dict[type, Callable[[Order, Any], Order]] = {
    e.OrderRouted: _routed,
    e.OrderAcknowledged: _acknowledged,
    e.OrderRefused: _refused,
    e.ExecutionRecorded: _executed,
    e.CancelRequested: _cancel_requested,
    e.CancelRefused: _request_refused,
    e.OrderCanceled: _canceled,
    e.ReplaceRequested: _replace_requested,
    e.ReplaceRefused: _request_refused,
    e.ReplaceRejected: _noted,
    e.OrderReplaced: _replaced,
    e.OrderStateChanged: _state_changed,
    e.OrderMarkedUnknown: _marked_unknown,
    e.AnomalyRecorded: _noted,
}
