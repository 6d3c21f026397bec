"""Sequences of FIX 4.4 Appendix D, "Order State Change Matrices", as they fold here. Letters are the appendix's."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kernel.errors import AbortedError, FailedPreconditionError, Reason
from svc_oms.domain import Action, Order, OrderState, OrderType, Reject, ReportKind, TimeInForce, decide
from svc_oms.domain.commands import AbandonOrder, MarkUnknown, PlaceOrder, RecordReport, RefuseUnsent, RequestReplace, RouteRequest
from tests.unit.oms import make

S = OrderState


def quantities(order: Order) -> tuple[OrderState, str, str]:
    return order.state, f"{order.filled_quantity:f}", f"{order.leaves_quantity:f}"


def test_a1_filled_order() -> None:
    order = make.working()
    order = make.reported(order, make.fill("2", "100"), make.fill("1", "101"))
    assert quantities(order) == (S.PARTIALLY_FILLED, "3", "7")
    order = make.reported(order, make.fill("7", "99.5", cumulative_quantity=Decimal(10)))
    assert quantities(order) == (S.FILLED, "10", "0")
    assert order.average_price == Decimal("99.75")
    assert order.terminal_time == make.at(2)


def test_a2_part_filled_day_order_done_for_day() -> None:
    order = make.reported(make.working(), make.fill("2"), make.report(ReportKind.DONE_FOR_DAY))
    assert quantities(order) == (S.DONE_FOR_DAY, "2", "8")
    assert make.reported(order, make.report(ReportKind.RESTATED, state=S.PARTIALLY_FILLED)).state is S.PARTIALLY_FILLED


def test_fill_before_acknowledgement() -> None:
    order = make.reported(make.routed(), make.fill("4"))
    assert quantities(order) == (S.PARTIALLY_FILLED, "4", "6")
    order = make.reported(order, make.report(ReportKind.ACKNOWLEDGED, venue_order_id="V-9"))
    assert quantities(order) == (S.PARTIALLY_FILLED, "4", "6")
    assert order.venue_order_id == "V-9"


def test_b1a_cancel_of_an_order_without_fills() -> None:
    order = make.asked(make.working(), make.cancel())
    assert order.pending_action is Action.CANCEL
    order = make.reported(order, make.report(ReportKind.PENDING), make.report(ReportKind.CANCELED))
    assert quantities(order) == (S.CANCELED, "0", "0")
    assert order.pending_action is None
    assert order.requests == ()


def test_b1b_fill_while_the_cancel_is_pending() -> None:
    order = make.asked(make.working(), make.cancel())
    order = make.reported(order, make.fill("4"), make.report(ReportKind.CANCELED))
    assert quantities(order) == (S.CANCELED, "4", "0")


def test_b1c_cancel_too_late() -> None:
    order = make.asked(make.working(), make.cancel())
    request = order.requests[0].venue_client_order_id
    order = make.reported(order, make.fill("10"))
    assert quantities(order) == (S.FILLED, "10", "0")
    refusal = make.report(ReportKind.REQUEST_REFUSED, client_order_id=request, venue_reason=0, state=S.FILLED, exec_id="")
    assert make.events_of(order, refusal) == ("CancelRefused",)
    assert quantities(make.reported(order, refusal)) == (S.FILLED, "10", "0")


def test_b1d_cancel_before_the_acknowledgement() -> None:
    order = make.asked(make.routed(), make.cancel())
    order = make.reported(order, make.report(ReportKind.ACKNOWLEDGED))
    assert (order.state, order.pending_action) == (S.NEW, Action.CANCEL)
    assert make.reported(order, make.report(ReportKind.CANCELED)).state is S.CANCELED


def test_b1e_order_refused_while_its_cancel_is_pending() -> None:
    order = make.asked(make.routed(), make.cancel())
    request = order.requests[0].venue_client_order_id
    order = make.reported(order, make.report(ReportKind.REFUSED, text="no such instrument"))
    assert order.state is S.REJECTED
    assert order.reject == Reject(Reason.VENUE_REJECTED, "no such instrument")
    assert make.events_of(order, make.report(ReportKind.REQUEST_REFUSED, client_order_id=request, exec_id="")) == ("CancelRefused",)


def test_a_cancel_of_an_unsent_order_cancels_at_once() -> None:
    order = make.placed()
    names = [type(event).__name__ for event in decide(order, make.cancel())]
    assert names == ["CancelRequested", "OrderCanceled"]
    order = make.apply(order, make.cancel())
    assert quantities(order) == (S.CANCELED, "0", "0")
    assert decide(order, RouteRequest(Action.NEW, order.order_id, 7, make.at(9))) == ()


def test_c1_replace_upwards_and_the_fill_that_comes_under_the_old_quantity() -> None:
    order = make.asked(make.working(), make.replacement("20"))
    assert order.pending_action is Action.REPLACE
    order = make.reported(order, make.fill("1"))
    assert quantities(order) == (S.PARTIALLY_FILLED, "1", "9")
    order = make.reported(order, make.report(ReportKind.REPLACED, quantity=Decimal(20)))
    assert quantities(order) == (S.PARTIALLY_FILLED, "1", "19")
    assert order.venue_client_order_id != order.order_id
    assert order.requests == ()


def test_c2_replace_upwards_reopens_a_filled_order() -> None:
    order = make.asked(make.working(), make.replacement("12"))
    order = make.reported(order, make.fill("10"))
    assert order.state is S.FILLED
    order = make.reported(order, make.report(ReportKind.REPLACED, quantity=Decimal(12)))
    assert quantities(order) == (S.PARTIALLY_FILLED, "10", "2")
    assert order.terminal_time is None


def test_c3b_replace_downwards_to_what_is_filled_meanwhile() -> None:
    order = make.asked(make.working(), make.replacement("7"))
    order = make.reported(order, make.fill("7"))
    order = make.reported(order, make.report(ReportKind.REPLACED, quantity=Decimal(7)))
    assert quantities(order) == (S.FILLED, "7", "0")


def test_c3c_replace_downwards_below_what_is_filled_meanwhile() -> None:
    order = make.asked(make.working(), make.replacement("6"))
    order = make.reported(order, make.fill("8"), make.report(ReportKind.REPLACED, quantity=Decimal(6)))
    assert quantities(order) == (S.FILLED, "8", "0")
    assert order.quantity == Decimal(8)


def test_c1c_replace_refused_leaves_the_old_terms() -> None:
    order = make.asked(make.working(), make.replacement(limit_price="101"))
    request = order.requests[0].venue_client_order_id
    order = make.reported(order, make.report(ReportKind.REQUEST_REFUSED, client_order_id=request, venue_reason=0, exec_id=""))
    assert (order.limit_price, order.pending_action) == (Decimal(100), None)


def test_d1_a_cancel_passes_a_pending_replace_and_a_second_replace_does_not() -> None:
    order = make.asked(make.working(), make.replacement("20"))
    with pytest.raises(FailedPreconditionError) as caught:
        decide(order, make.replacement("30"))
    assert caught.value.reason is Reason.ORDER_REQUEST_PENDING
    order = make.asked(order, make.cancel())
    assert order.pending_action is Action.CANCEL
    with pytest.raises(FailedPreconditionError) as caught:
        decide(order, make.cancel())
    assert caught.value.reason is Reason.ORDER_REQUEST_PENDING
    order = make.reported(order, make.report(ReportKind.REPLACED, quantity=Decimal(20)), make.report(ReportKind.CANCELED))
    assert order.state is S.CANCELED


def test_a_cancel_withdraws_a_replace_that_was_not_sent() -> None:
    order = make.apply(make.working(), make.replacement("20"))
    names = [type(event).__name__ for event in decide(order, make.cancel())]
    assert names == ["ReplaceRefused", "CancelRequested"]


def test_a_replace_of_an_unsent_order_holds_at_once() -> None:
    order = make.apply(make.placed(), make.replacement("20", "101"))
    assert (order.quantity, order.limit_price, order.state, order.requests) == (Decimal(20), Decimal(101), S.PENDING_NEW, ())
    assert make.reported(make.sent(order), make.fill("20", "101")).state is S.FILLED


def test_e1_unsolicited_cancel_and_reinstatement() -> None:
    order = make.reported(make.working(), make.fill("3"), make.report(ReportKind.CANCELED))
    assert quantities(order) == (S.CANCELED, "3", "0")
    order = make.reported(order, make.report(ReportKind.RESTATED, state=S.PARTIALLY_FILLED))
    assert quantities(order) == (S.PARTIALLY_FILLED, "3", "7")
    assert order.terminal_time is None


def test_f_possible_resend_of_a_known_report_changes_nothing() -> None:
    acknowledgement, trade = make.report(ReportKind.ACKNOWLEDGED), make.fill("4")
    order = make.reported(make.routed(), acknowledgement, trade)
    for again in (acknowledgement, trade):
        assert make.events_of(order, again) == ()


def test_i_immediate_or_cancel_ends_with_the_remainder_canceled() -> None:
    order = make.working(time_in_force=TimeInForce.IOC)
    events = decide(make.reported(order, make.fill("4")), RecordReport(make.report(ReportKind.CANCELED), make.at(5)))
    assert [getattr(event, "unsolicited", None) for event in events] == [False]


def test_j_bust_reopens_and_a_correction_of_a_correction_finds_the_fill() -> None:
    trade = make.fill("10", "100")
    order = make.reported(make.working(), trade)
    first = make.report(ReportKind.TRADE_CORRECT, exec_ref_id=trade.exec_id, last_quantity=Decimal(8), last_price=Decimal(100))
    order = make.reported(order, first)
    assert quantities(order) == (S.PARTIALLY_FILLED, "8", "2")
    second = make.report(ReportKind.TRADE_CORRECT, exec_ref_id=first.exec_id, last_quantity=Decimal(8), last_price=Decimal(90))
    order = make.reported(order, second)
    assert order.average_price == Decimal(90)
    # The next day's bust names an execution of today by its id alone.
    order = make.reported(order, make.report(ReportKind.TRADE_CANCEL, exec_ref_id=second.exec_id, trade_date="2026-11-03"))
    assert quantities(order) == (S.NEW, "0", "10")
    assert order.average_price is None


def test_k_halt_and_resume() -> None:
    order = make.reported(make.working(), make.report(ReportKind.SUSPENDED), make.fill("1"))
    assert quantities(order) == (S.SUSPENDED, "1", "9")
    assert make.reported(order, make.fill("9")).state is S.FILLED
    assert make.reported(order, make.report(ReportKind.STATUS, state=S.PARTIALLY_FILLED)).state is S.PARTIALLY_FILLED


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (make.fill("11"), "filled more than was ordered"),
        (make.fill("1", cumulative_quantity=Decimal(3)), "the venue counts 3 filled, our fills sum to 1"),
        (make.report(ReportKind.TRADE), "a fill without a quantity"),
        (make.report(ReportKind.TRADE_CANCEL, exec_ref_id="E-none"), "unknown execution"),
        (make.report(ReportKind.ACKNOWLEDGED), "acknowledged before"),
        (make.report(ReportKind.REQUEST_REFUSED, client_order_id="x", exec_id=""), "not open"),
        (make.report(ReportKind.RESTATED), "without a change"),
    ],
)
def test_what_fits_no_rule_is_kept_whole(item: object, text: str) -> None:
    order = make.working()
    events = decide(order, RecordReport(item, make.at(2)))  # type: ignore[arg-type]
    anomaly = events[-1]
    assert type(anomaly).__name__ == "AnomalyRecorded"
    assert text in anomaly.text  # type: ignore[union-attr]
    assert anomaly.report == b"35=8"  # type: ignore[union-attr]


def test_an_overfill_counts() -> None:
    order = make.reported(make.working(), make.fill("11"))
    assert quantities(order) == (S.FILLED, "11", "0")


def test_a_fill_of_an_order_that_our_log_never_sent_still_counts() -> None:
    order = make.reported(make.placed(), make.fill("4"))
    assert quantities(order) == (S.PARTIALLY_FILLED, "4", "6")


def test_status_reports_move_only_what_they_prove() -> None:
    unknown = make.in_state(S.UNKNOWN)
    assert make.reported(unknown, make.report(ReportKind.STATUS, state=S.NEW)).state is S.NEW
    missing = make.report(ReportKind.STATUS, state=S.FILLED, cumulative_quantity=Decimal(10))
    assert make.events_of(unknown, missing) == ("AnomalyRecorded",)
    assert make.reported(unknown, make.report(ReportKind.STATUS, state=S.CANCELED)).state is S.CANCELED
    assert make.events_of(make.working(), make.report(ReportKind.STATUS, state=S.NEW)) == ()


def test_a_refused_cancel_that_shows_a_working_order_ends_unknown() -> None:
    order = make.asked(make.working(), make.cancel())
    request = order.requests[0].venue_client_order_id
    order = make.apply(order, MarkUnknown(request, make.at(30)))
    order = make.reported(order, make.report(ReportKind.REQUEST_REFUSED, client_order_id=request, state=S.NEW, exec_id=""))
    assert (order.state, order.requests) == (S.NEW, ())


def test_an_unanswered_cancel_may_be_repeated() -> None:
    order = make.asked(make.working(), make.cancel())
    order = make.apply(order, MarkUnknown(order.requests[0].venue_client_order_id, make.at(30)))
    order = make.asked(order, make.cancel())
    assert len(order.requests) == 2
    assert make.reported(order, make.report(ReportKind.CANCELED)).requests == ()


@pytest.mark.parametrize(
    ("order", "command", "reason"),
    [
        (make.in_state(S.CANCELED), make.cancel(), Reason.ORDER_TERMINAL),
        (make.in_state(S.FILLED), make.replacement("20"), Reason.ORDER_TERMINAL),
        (make.in_state(S.UNKNOWN), make.replacement("20"), Reason.ORDER_STATE_UNKNOWN),
        (make.in_state(S.NEW), make.replacement("10"), Reason.REPLACE_INVALID),
        (make.in_state(S.PARTIALLY_FILLED), make.replacement("4"), Reason.REPLACE_INVALID),
        (make.working(type=OrderType.MARKET, limit_price=None), make.replacement(limit_price="9"), Reason.REPLACE_INVALID),
    ],
)
def test_requests_are_refused_with_a_reason(order: Order, command: object, reason: Reason) -> None:
    with pytest.raises(FailedPreconditionError) as caught:
        decide(order, command)  # type: ignore[arg-type]
    assert caught.value.reason is reason


def test_a_stale_etag_aborts() -> None:
    order = make.working()
    stale: RequestReplace = make.replacement("20", etag="1")
    with pytest.raises(AbortedError):
        decide(order, stale)
    assert decide(order, make.replacement("20", etag=order.etag))


def test_an_abandoned_order_takes_nothing() -> None:
    order = make.after_abandon()
    for command in (make.cancel(), PlaceOrder(make.terms(), None, make.START)):
        with pytest.raises(FailedPreconditionError) as caught:
            decide(order, command)
        assert caught.value.reason is Reason.ORDER_ABANDONED
    assert decide(order, AbandonOrder(order.order_id, "ACC-1", make.START)) == ()
    assert make.events_of(order, make.fill("1")) == ("AnomalyRecorded",)


def test_the_router_gives_up_only_what_it_did_not_send() -> None:
    order = make.placed()
    refusal = RefuseUnsent(Action.NEW, order.order_id, Reason.NOT_SENT_IN_TIME, "late", make.at(6))
    assert make.apply(order, refusal).reject == Reject(Reason.NOT_SENT_IN_TIME, "late")
    assert decide(make.sent(order), refusal) == ()
