"""Whatever clients, router and venue do in whatever order: the invariants of an order hold, and its events fold to its state."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kernel.errors import Reason, TrademeshError
from kernel.ports import LogPosition, RecordedEvent
from svc_oms.codec.events import decode, encode
from svc_oms.codec.orders import order_message
from svc_oms.domain import Action, Order, OrderState, OrderType, Reject, ReportKind, TimeInForce, decide, evolve, fold
from svc_oms.domain.commands import MarkUnknown, PlaceOrder, RecordReport, RefuseUnsent, RouteRequest, VenueReport
from svc_oms.domain.events import AnomalyRecorded, Event
from svc_oms.domain.state import total_of
from svc_oms.store.projection import open_requests
from tests.unit.oms import make

QUANTITIES = st.decimals("0.001", 30, places=3)
PRICES = st.decimals("0.01", 500, places=2)
EXEC_IDS = st.sampled_from([f"X{number}" for number in range(1, 12)])
DATES = st.sampled_from(["2026-11-02", "2026-11-03"])
FINAL = frozenset({OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED})

REPORTS = st.builds(
    make.report,
    st.sampled_from(list(ReportKind)),
    exec_id=EXEC_IDS,
    exec_ref_id=EXEC_IDS | st.just(""),
    trade_date=DATES,
    state=st.sampled_from([None, *OrderState]),
    quantity=st.none() | QUANTITIES,
    limit_price=st.none() | PRICES,
    last_quantity=st.none() | st.just(Decimal(0)) | QUANTITIES,
    last_price=st.none() | PRICES,
    cumulative_quantity=st.none() | QUANTITIES,
    client_order_id=st.sampled_from(["", "other"]),
)


class OrderMachine(RuleBasedStateMachine):
    """One order, and everything that can be said to it."""

    def __init__(self) -> None:
        super().__init__()
        self.order: Order = make.placed()
        self.events: list[Event] = []

    @initialize(
        limit=st.booleans(), time_in_force=st.sampled_from([TimeInForce.DAY, TimeInForce.IOC, TimeInForce.GTC]), quantity=QUANTITIES
    )
    def place(self, *, limit: bool, time_in_force: TimeInForce, quantity: Decimal) -> None:
        """Begin."""
        terms = make.terms(
            type=OrderType.LIMIT if limit else OrderType.MARKET,
            limit_price=Decimal(100) if limit else None,
            time_in_force=time_in_force,
            quantity=quantity,
        )
        self.events = list(decide(None, PlaceOrder(terms, None, make.START)))
        order = fold(self.events)
        assert order is not None
        self.order = order

    def do(self, command: Any) -> tuple[Event, ...]:
        """Decide and fold; a refusal changes nothing."""
        try:
            events = decide(self.order, command)
        except TrademeshError:
            assert not isinstance(command, RecordReport), "a venue's fact is never refused"
            return ()
        self.events += events
        for event in events:
            self.order = evolve(self.order, event)
        return events

    @rule()
    def route(self) -> None:
        """Send what waits first."""
        for request, waiting in open_requests(self.order).items():
            if not waiting.sent:
                self.do(RouteRequest(waiting.action, request, len(self.events), make.at(1)))
                return

    @rule()
    def route_something_else(self) -> None:
        """Send what is not there."""
        assert self.do(RouteRequest(Action.CANCEL, "nothing", 1, make.at(1))) == ()

    @rule(reason=st.sampled_from([Reason.NOT_SENT_IN_TIME, Reason.KILLED_BEFORE_SEND]))
    def give_up(self, reason: Reason) -> None:
        """Give up what waits."""
        for request, waiting in open_requests(self.order).items():
            if not waiting.sent:
                assert self.do(RefuseUnsent(waiting.action, request, reason, "late", make.at(6)))
                return

    @rule()
    def time_out(self) -> None:
        """Mark everything that is unanswered."""
        for request in list(open_requests(self.order)):
            self.do(MarkUnknown(request, make.at(20)))

    @rule()
    def cancel(self) -> None:
        """Ask to cancel; only an order at its end, or one that is asked already, refuses."""
        pending = any(request.action is Action.CANCEL and not request.overdue for request in self.order.requests)
        refused = self.order.terminal or pending
        assert bool(self.do(make.cancel())) is not refused

    @rule(quantity=st.none() | QUANTITIES, price=st.none() | PRICES, refused=st.booleans())
    def replace(self, quantity: Decimal | None, price: Decimal | None, *, refused: bool) -> None:
        """Ask for new terms."""
        reject = Reject(Reason.MAX_QUANTITY_EXCEEDED, "too many") if refused else None
        text = (None if value is None else str(value) for value in (quantity, price))
        self.do(make.replacement(*text, reject=reject))

    @rule(report=REPORTS, mine=st.booleans())
    def report(self, report: VenueReport, *, mine: bool) -> None:
        """Record anything that a venue might say; twice is once."""
        if mine and self.order.requests:
            report = dataclasses.replace(report, client_order_id=self.order.requests[-1].venue_client_order_id)
        before = self.order
        events = self.do(RecordReport(report, make.at(2)))
        if report.kind in (ReportKind.TRADE, ReportKind.TRADE_CANCEL, ReportKind.TRADE_CORRECT):
            again = decide(self.order, RecordReport(report, make.at(3)))
            assert all(isinstance(event, AnomalyRecorded) for event in again), "an execution counts once"
        if before.state in FINAL and self.order.state is not before.state:
            assert report.kind is ReportKind.RESTATED, "only reinstatement brings an ended order back"
        if before.state is OrderState.UNKNOWN and not events:
            assert self.order.state is OrderState.UNKNOWN

    @invariant()
    def quantities_follow_from_fills(self) -> None:
        """The sums are those of the fills, leaves are what may still trade."""
        order = self.order
        assert (order.filled_quantity, order.filled_value) == total_of(order.fills)
        assert order.leaves_quantity >= 0
        if order.terminal:
            assert order.leaves_quantity == 0
        else:
            assert order.leaves_quantity == max(order.quantity - order.filled_quantity, Decimal(0))
        assert (order.average_price is None) == (order.filled_quantity == 0)

    @invariant()
    def the_state_fits_the_quantities(self) -> None:
        """NEW has nothing filled, PARTIALLY_FILLED something, FILLED everything."""
        order = self.order
        if order.state in (OrderState.NEW, OrderState.PARTIALLY_FILLED, OrderState.FILLED):
            assert order.state is order.working_state
        assert (order.terminal_time is not None) == order.terminal

    @invariant()
    def the_log_folds_to_the_state(self) -> None:
        """Also after the events went through their wire form."""
        assert self.order.version == len(self.events)
        records = [encode(event, self.order.terms) for event in self.events]
        decoded = [
            decode(RecordedEvent(LogPosition(1, number), "order-x", number, record.type, record.payload, b"", make.START))
            for number, record in enumerate(records, start=1)
        ]
        assert decoded == self.events
        assert fold(decoded) == self.order
        order_message(self.order)


OrderMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestOrderMachine = OrderMachine.TestCase


@given(st.lists(st.tuples(QUANTITIES, PRICES), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_many_fills_sum_exactly(fills: list[tuple[Decimal, Decimal]]) -> None:
    total = sum((quantity for quantity, _ in fills), Decimal(0))
    order = make.working(quantity=total)
    for quantity, price in fills:
        order = make.reported(order, make.fill(str(quantity), str(price)))
    assert order.state is OrderState.FILLED
    assert order.filled_value == sum((quantity * price for quantity, price in fills), Decimal(0))
