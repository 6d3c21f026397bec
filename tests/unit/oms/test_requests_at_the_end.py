"""Requests that meet an order at its end: what of them ends with it, what waits on, and what a refusal says of our ignorance."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from svc_oms.domain import Action, Order, OrderState, ReportKind, decide
from svc_oms.domain.commands import MarkUnknown, RecordReport
from svc_oms.fix.routing import in_doubt
from svc_oms.store.projection import open_requests
from tests.unit.oms import make


def filled_while_a_replace_is(*, sent: bool) -> Order:
    order = make.apply(make.working(), make.replacement("20"))
    if sent:
        order = make.asked(make.working(), make.replacement("20"))
    return make.reported(order, make.fill("10"))


def status(state: OrderState, **changes: Any) -> RecordReport:
    return RecordReport(make.report(ReportKind.STATUS, exec_id="", state=state, **changes), make.at(40), synchronised=True)


def test_a_replace_that_waits_to_be_sent_ends_with_the_fill() -> None:
    order = make.apply(make.working(), make.replacement("20"))
    events = decide(order, RecordReport(make.fill("10"), make.at(5)))
    assert [type(event).__name__ for event in events] == ["ExecutionRecorded", "ReplaceRefused"]
    after = make.after(order, events)
    assert (after.state, after.requests, after.quantity) == (OrderState.FILLED, (), Decimal(10))


def test_a_cancel_that_waits_to_be_sent_stays_for_the_case_that_a_bust_reopens_the_order() -> None:
    order = make.reported(make.apply(make.working(), make.cancel()), make.fill("10"))
    assert (order.state, order.pending_action, len(order.requests)) == (OrderState.FILLED, None, 1)


def test_a_replace_that_was_sent_keeps_the_filled_order_in_the_queue_until_it_is_answered() -> None:
    order = filled_while_a_replace_is(sent=True)
    (request,) = order.requests
    assert order.reopening
    assert open_requests(order)[request.venue_client_order_id].action is Action.REPLACE
    # Not answered in time: the order stays filled, and the venue is asked.
    overdue = make.apply(order, MarkUnknown(request.venue_client_order_id, make.at(30)))
    assert overdue.state is OrderState.FILLED
    assert open_requests(overdue)[request.venue_client_order_id].overdue
    assert in_doubt(overdue, sent_before=0)
    assert not in_doubt(filled_while_a_replace_is(sent=False), sent_before=99)


def test_the_status_of_a_filled_order_ends_a_replace_that_the_venue_never_received() -> None:
    order = filled_while_a_replace_is(sent=True)
    after = make.apply(order, status(OrderState.FILLED))
    assert (after.state, after.requests, open_requests(after)) == (OrderState.FILLED, (), {})


def test_a_replace_that_the_venue_granted_reopens_the_filled_order() -> None:
    order = filled_while_a_replace_is(sent=True)
    request = order.requests[0].venue_client_order_id
    after = make.apply(order, status(OrderState.PARTIALLY_FILLED, client_order_id=request, quantity=Decimal(20)))
    assert (after.state, after.requests, after.quantity) == (OrderState.PARTIALLY_FILLED, (), Decimal(20))


@pytest.mark.parametrize("state", [OrderState.CANCELED, OrderState.EXPIRED, OrderState.FILLED, OrderState.REJECTED])
def test_a_refusal_that_says_the_order_has_ended_puts_it_in_doubt(state: OrderState) -> None:
    order = make.asked(make.working(), make.cancel())
    request = order.requests[0].venue_client_order_id
    refusal = make.report(ReportKind.REQUEST_REFUSED, exec_id="", client_order_id=request, state=state, text="the order is closed")
    after = make.reported(order, refusal)
    assert (after.state, after.requests) == (OrderState.UNKNOWN, ())
    assert in_doubt(after, sent_before=0)


@pytest.mark.parametrize("state", [None, OrderState.NEW, OrderState.PARTIALLY_FILLED])
def test_any_other_refusal_leaves_the_order_as_it_is(state: OrderState | None) -> None:
    order = make.asked(make.working(), make.cancel())
    request = order.requests[0].venue_client_order_id
    after = make.reported(order, make.report(ReportKind.REQUEST_REFUSED, exec_id="", client_order_id=request, state=state))
    assert (after.state, after.requests) == (OrderState.NEW, ())
