"""The transition table, pair by pair: what it holds happens, and what it does not hold is an anomaly that changes nothing."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest

from svc_oms.domain import OrderState, ReportKind, decide
from svc_oms.domain.commands import MarkUnknown
from svc_oms.domain.transitions import TRANSITIONS, Fact, next_state
from tests.unit.oms import make

S = OrderState
REPORTS = {
    Fact.REFUSED: lambda: make.report(ReportKind.REFUSED, text="no"),
    Fact.EXECUTED: lambda: make.fill("2"),
    Fact.CANCELED: lambda: make.report(ReportKind.CANCELED),
    Fact.EXPIRED: lambda: make.report(ReportKind.EXPIRED),
    Fact.DONE_FOR_DAY: lambda: make.report(ReportKind.DONE_FOR_DAY),
    Fact.SUSPENDED: lambda: make.report(ReportKind.SUSPENDED),
    Fact.STOPPED: lambda: make.report(ReportKind.STOPPED),
    Fact.RESTATED: lambda: make.report(ReportKind.RESTATED, quantity=Decimal(12), state=None),
    Fact.REINSTATED: lambda: make.report(ReportKind.RESTATED, state=S.NEW),
}
STATES = [state for state in S if state is not S.ABANDONED]


@pytest.mark.parametrize(("state", "fact"), list(itertools.product(STATES, REPORTS)), ids=str)
def test_every_pair_of_state_and_report(state: OrderState, fact: Fact) -> None:
    order = make.in_state(state)
    assert order.state is state
    quantity = Decimal(12) if fact is Fact.RESTATED else order.quantity
    filled = order.filled_quantity + (2 if fact is Fact.EXECUTED else 0)
    expected = next_state(state, fact, quantity, filled)
    if state in (S.CANCELED, S.EXPIRED, S.REJECTED) and fact is Fact.RESTATED:
        expected = None  # a dead order takes new terms only together with a working status
    after = make.reported(order, REPORTS[fact]())
    names = make.events_of(order, REPORTS[fact]())
    if expected is None:
        assert names == ("AnomalyRecorded",)
        assert after.state is state
        assert after.filled_quantity == order.filled_quantity
    else:
        assert after.state is expected
        assert names[0] != "AnomalyRecorded"
    assert after.version == order.version + len(names)


@pytest.mark.parametrize("state", STATES)
def test_a_missing_answer_makes_live_orders_unknown_and_leaves_dead_ones(state: OrderState) -> None:
    order = make.in_state(state)
    if not order.terminal and state is not S.UNKNOWN:
        order = make.asked(order, make.cancel())
        after = make.apply(order, MarkUnknown(order.requests[0].venue_client_order_id, make.at(30)))
        assert after.state is S.UNKNOWN
        assert after.requests[0].overdue
    else:
        assert decide(order, MarkUnknown(order.order_id, make.at(30))) == ()


@pytest.mark.parametrize("state", STATES)
def test_an_acknowledgement_counts_once_and_never_ends_an_order(state: OrderState) -> None:
    order = make.in_state(state)
    after = make.reported(order, make.report(ReportKind.ACKNOWLEDGED))
    if state in (S.PENDING_NEW, S.UNKNOWN):
        assert after.state is S.NEW
    else:
        assert after.state is state
    assert after.acknowledged or state is S.REJECTED


@pytest.mark.parametrize("state", [S.CANCELED, S.EXPIRED, S.REJECTED])
def test_late_fill_bust_and_correction_count_and_keep_the_status(state: OrderState) -> None:
    order = make.in_state(state)
    first, second = make.fill("3", "101"), make.fill("2", "99")
    order = make.reported(order, first, second)
    assert (order.state, order.filled_quantity, order.leaves_quantity) == (state, Decimal(5), Decimal(0))
    order = make.reported(order, make.report(ReportKind.TRADE_CANCEL, exec_ref_id=first.exec_id))
    assert (order.state, order.filled_quantity, order.average_price) == (state, Decimal(2), Decimal(99))
    correction = make.report(ReportKind.TRADE_CORRECT, exec_ref_id=second.exec_id, last_quantity=Decimal(1), last_price=Decimal("98.5"))
    order = make.reported(order, correction)
    assert (order.state, order.filled_quantity, order.average_price) == (state, Decimal(1), Decimal("98.5"))


def test_only_the_venue_ends_unknown() -> None:
    order = make.in_state(S.UNKNOWN)
    ways_out = {fact for (state, fact) in TRANSITIONS if state is S.UNKNOWN}
    assert Fact.TIMED_OUT in ways_out
    assert make.apply(order, make.cancel()).state is S.UNKNOWN
    assert make.reported(order, make.report(ReportKind.PENDING)).state is S.UNKNOWN
    assert make.reported(order, make.report(ReportKind.UNKNOWN_ORDER)).state is S.REJECTED
