"""A cancel or replace that was sent and never answered: what the venue's status of the order proves about it, and what it does not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from svc_oms.domain import Order, OrderState, ReportKind, TimeInForce, decide
from svc_oms.domain.commands import MarkUnknown, RecordReport, VenueReport
from tests.unit.oms import make


def status(**changes: Any) -> VenueReport:
    return make.report(ReportKind.STATUS, **{"exec_id": "", "state": OrderState.NEW, **changes})


def told(order: Order, report: VenueReport, *, synchronised: bool) -> Order:
    return make.after(order, decide(order, RecordReport(report, make.at(40), synchronised)))


@pytest.mark.parametrize("command", [make.replacement("20"), make.cancel()])
def test_a_request_that_the_venue_never_received_is_refused(command: Any) -> None:
    order = make.asked(make.working(), command)
    events = decide(order, RecordReport(status(), make.at(40), synchronised=True))
    (refused,) = events
    assert (refused.venue_client_order_id, refused.venue_reason) == (order.requests[0].venue_client_order_id, -1)  # type: ignore[union-attr]
    after = make.after(order, events)
    assert (after.state, after.requests, after.quantity) == (OrderState.NEW, (), Decimal(10))
    # The order takes requests again.
    assert make.asked(after, make.replacement("30")).requests


def test_an_unknown_order_is_found_alive_and_its_lost_replace_refused() -> None:
    order = make.asked(make.working(), make.replacement("20"))
    order = make.apply(order, MarkUnknown(order.requests[0].venue_client_order_id, make.at(30)))
    assert order.state is OrderState.UNKNOWN
    after = told(order, status(), synchronised=True)
    assert (after.state, after.requests) == (OrderState.NEW, ())


@pytest.mark.parametrize(
    ("report", "synchronised", "why"),
    [
        (status(), False, "the venue may not have read the request yet"),
        (status(request_pending=True), True, "the venue has it and has not decided"),
        (status(state=None), True, "a status that says nothing of the state"),
        (make.report(ReportKind.TRADE, last_quantity=Decimal(1), last_price=Decimal(100)), True, "a fill is no answer"),
    ],
)
def test_what_is_no_proof_leaves_the_request_open(report: VenueReport, synchronised: bool, why: str) -> None:
    order = make.asked(make.working(), make.replacement("20"))
    assert told(order, report, synchronised=synchronised).requests == order.requests, why


def test_a_request_that_was_not_sent_yet_is_not_judged() -> None:
    order = make.apply(make.working(), make.replacement("20"))
    assert told(order, status(), synchronised=True).requests == order.requests


@pytest.mark.parametrize("synchronised", [False, True])
def test_a_replace_whose_report_was_lost_is_in_force_once_the_status_carries_its_id(synchronised: bool) -> None:
    order = make.asked(make.working(), make.replacement("20", "101"))
    request = order.requests[0].venue_client_order_id
    report = status(client_order_id=request, quantity=Decimal(20), limit_price=Decimal(101))
    after = told(order, report, synchronised=synchronised)
    assert (after.quantity, after.limit_price, after.requests, after.venue_client_order_id) == (Decimal(20), Decimal(101), (), request)
    pending = told(order, status(client_order_id=request, request_pending=True), synchronised=synchronised)
    assert (pending.quantity, len(pending.requests)) == (Decimal(10), 1)


def test_a_cancel_that_crossed_the_end_of_its_order_is_refused_without_an_anomaly() -> None:
    order = make.asked(make.working(time_in_force=TimeInForce.FOK), make.cancel())
    request = order.requests[0].venue_client_order_id
    ended = make.reported(order, make.report(ReportKind.CANCELED))
    too_late = make.report(ReportKind.REQUEST_REFUSED, client_order_id=request, state=OrderState.CANCELED, exec_id="")
    assert make.events_of(ended, too_late) == ()
    # Of a live order it is one: nobody has asked.
    assert make.events_of(make.working(), too_late) == ("AnomalyRecorded",)
