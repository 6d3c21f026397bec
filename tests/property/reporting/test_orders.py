"""Whatever svc_oms can record of an order, its events say here what they say there: state, terms, quantities, what executions add."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import invariant

from kernel.ports import LogPosition, RecordedEvent
from kernel.values import ZERO, total
from svc_oms.codec.events import encode
from svc_reporting.codec.orders import order_stream, read_order_event, read_view, write_view
from svc_reporting.domain.fills import Fill, Fills
from svc_reporting.domain.orders import OrderView, evolve
from svc_reporting.domain.vocabulary import ExecutionType
from tests.property.oms.test_order_machine import OrderMachine
from tests.unit.oms import make


class ReportedMachine(OrderMachine):
    """An order of svc_oms that reporting follows."""

    def __init__(self) -> None:
        super().__init__()
        self.view: OrderView | None = None
        self.fills = Fills()
        self.told = 0
        self.net_quantity = self.net_amount = ZERO

    @invariant()
    def follow(self) -> None:
        """Copy what is new, and compare."""
        order_id = self.order.terms.order_id
        for event in self.events[self.told :]:
            self.told += 1
            new = encode(event, self.order.terms)
            recorded = RecordedEvent(LogPosition(1, self.told), order_stream(order_id), self.told, new.type, new.payload, b"", make.START)
            facts = read_order_event(recorded)
            self.view = evolve(self.view, facts)
            assert read_view(order_id, write_view(self.view)) == self.view
            execution = facts.execution
            if execution is not None:
                before = self.fills.add(execution).before
                busted = execution.type is ExecutionType.TRADE_CANCEL
                after = Fill(ZERO, ZERO) if busted else Fill(execution.quantity, execution.price)
                self.net_quantity += after.quantity - before.quantity
                self.net_amount += after.quantity * after.price - before.quantity * before.price
        self.compare()

    def compare(self) -> None:
        """Hold the two against each other."""
        view, order = self.view, self.order
        if view is None:
            return
        assert (view.state.name, view.quantity, view.limit_price) == (order.state.name, order.quantity, order.limit_price)
        assert (view.filled_quantity, view.venue_order_id) == (order.filled_quantity, order.venue_order_id)
        assert view.leaves_quantity == order.leaves_quantity
        assert self.net_quantity == total(fill.quantity for fill in order.fills.values()) == order.filled_quantity
        assert self.net_amount == order.filled_value


TestReportedOrder = ReportedMachine.TestCase
TestReportedOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
