"""The trader of the demo: places, replays and cancels orders, and writes what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from cli import rpcs
from cli.demo.listener import Listener
from cli.demo.transcript import StepError, Tally, Transcript
from cli.orders import TERMINAL, reason_name, side_name
from cli.output import enum_name
from cli.session import Session, new_key
from cli.transport import Reply
from kernel.errors import UnavailableError
from trademesh.oms.v1 import execution_pb2, order_pb2, order_service_pb2
from trademesh.risk.v1 import risk_service_pb2
from trademesh.type.v1 import order_terms_pb2

STEP_SECONDS_MAX = 20.0
_POLL_SECONDS = 0.1
_PAGE_SIZE = 500

T = TypeVar("T")


@dataclass
class Desk:
    """One account's trader."""

    session: Session
    account: str
    transcript: Transcript
    tally: Tally
    listener: Listener

    def request(
        self, side: str, quantity: str, instrument: str, limit_price: Decimal | None = None
    ) -> order_service_pb2.CreateOrderRequest:
        """Return a new order's request under a fresh key."""
        return order_service_pb2.CreateOrderRequest(
            account_id=self.account,
            client_order_id=new_key(),
            instrument_id=instrument,
            side=order_terms_pb2.SIDE_BUY if side == "buy" else order_terms_pb2.SIDE_SELL,
            type=order_terms_pb2.ORDER_TYPE_MARKET if limit_price is None else order_terms_pb2.ORDER_TYPE_LIMIT,
            time_in_force=order_terms_pb2.TIME_IN_FORCE_DAY,
            quantity=quantity,
            limit_price=None if limit_price is None else format(limit_price, "f"),
        )

    def send(self, request: order_service_pb2.CreateOrderRequest) -> Reply[order_service_pb2.CreateOrderResponse]:
        """Send an order and write the answer."""
        price = f" --limit {request.limit_price}" if request.HasField("limit_price") else ""
        terms = f"{side_name(request.side).lower()} {request.quantity} {request.instrument_id}{price}"
        self.transcript.command(f"order {terms} --account {self.account} --client-order-id {request.client_order_id}")
        reply = self._place(request)
        if not reply.replayed:
            self.count(reply.message)
        return reply

    def count(self, answer: order_service_pb2.CreateOrderResponse) -> None:
        """Count the answer to a new order."""
        if answer.order.state == order_pb2.ORDER_STATE_REJECTED:
            self.tally.orders_rejected_by_risk += 1
        else:
            self.tally.orders_accepted += 1

    def _place(self, request: order_service_pb2.CreateOrderRequest) -> Reply[order_service_pb2.CreateOrderResponse]:
        """Call, and call again with the same key while the service says that nothing was persisted."""
        deadline, told = time.monotonic() + STEP_SECONDS_MAX, False
        while True:
            try:
                return self.session.call(rpcs.CREATE_ORDER, request, self.account)
            except UnavailableError as error:
                if time.monotonic() > deadline:
                    raise
                if not told:
                    self.transcript.tell(f"{error.reason}: {error.message}; again with the same key")
                told = True
                time.sleep(_POLL_SECONDS)

    def accept(self, request: order_service_pb2.CreateOrderRequest) -> order_pb2.Order:
        """Send an order that must be accepted."""
        placed = self.send(request).message.order
        why = f", not {reason_name(placed.reject.reason)}: {placed.reject.text}" if placed.HasField("reject") else ""
        self.transcript.check(placed.state != order_pb2.ORDER_STATE_REJECTED, f"accepted: durable and risk-checked{why}")
        return placed

    def refuse(self, request: order_service_pb2.CreateOrderRequest, *reasons: str) -> order_pb2.Order:
        """Send an order that risk must refuse for at least these reasons."""
        placed = self.send(request).message.order
        named = [reason_name(breach.reason) for breach in placed.reject.breaches]
        for breach in placed.reject.breaches:
            bound = f" (limit {breach.limit}, would be {breach.actual})" if breach.limit else ""
            self.transcript.tell(f"{reason_name(breach.reason)} of {breach.scope}{bound}")
        refused = placed.state == order_pb2.ORDER_STATE_REJECTED and set(reasons) <= set(named)
        self.transcript.check(refused, f"refused by risk, naming {', '.join(reasons)}")
        return placed

    def fill(self, request: order_service_pb2.CreateOrderRequest) -> order_pb2.Order:
        """Send an order that must be filled, and write how the stream shows it."""
        placed = self.accept(request)
        events = self.listener.await_order(placed.order_id, lambda item: item.state in TERMINAL, timeout_seconds=STEP_SECONDS_MAX)
        for item in events:
            what = item.event.type.rpartition(".")[2]
            fill = f"  {item.event.execution.last_quantity} @ {item.event.execution.last_price}" if item.event.HasField("execution") else ""
            self.transcript.tell(f"stream {item.sequence:>3}  {what:20} {state_name(item.event.order)}{fill}")
        kinds = {item.event.type.rpartition(".")[2] for item in events}
        last = events[-1].event.order if events else placed
        self.transcript.check("OrderRouted" in kinds and last.state == order_pb2.ORDER_STATE_FILLED, "routed to the venue and filled")
        return last

    def rest(self, request: order_service_pb2.CreateOrderRequest) -> order_pb2.Order:
        """Send an order that must come to rest in the venue's book."""
        placed = self.accept(request)
        working = (order_pb2.ORDER_STATE_NEW, order_pb2.ORDER_STATE_PARTIALLY_FILLED)
        events = self.listener.await_order(
            placed.order_id, lambda item: item.state in working or item.state in TERMINAL, timeout_seconds=STEP_SECONDS_MAX
        )
        resting = bool(events) and events[-1].event.order.state == order_pb2.ORDER_STATE_NEW
        self.transcript.check(resting, f"resting at the venue as {events[-1].event.order.venue_order_id if events else '?'}")
        return placed

    def await_terminal(self, placed: order_pb2.Order, state: order_pb2.OrderState.ValueType) -> None:
        """Wait until an order ends in a state."""
        events = self.listener.await_order(placed.order_id, lambda item: item.state in TERMINAL, timeout_seconds=STEP_SECONDS_MAX)
        name = enum_name(order_pb2.OrderState, state, "ORDER_STATE_")
        self.transcript.check(bool(events) and events[-1].event.order.state == state, f"the stream shows it {name}")

    def executions(self) -> list[execution_pb2.Execution]:
        """Return all executions of the account."""
        found: list[execution_pb2.Execution] = []
        request = order_service_pb2.ListExecutionsRequest(account_id=self.account, page_size=_PAGE_SIZE)
        while True:
            page = self.session.call(rpcs.LIST_EXECUTIONS, request, self.account).message
            found.extend(page.executions)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def risk_state(self, settled: Callable[[risk_service_pb2.GetRiskStateResponse], bool]) -> risk_service_pb2.GetRiskStateResponse:
        """Return the account's risk state once it is as expected, or as it is when the time is over."""
        request = risk_service_pb2.GetRiskStateRequest(account_id=self.account)
        return self.until(lambda: self.session.call(rpcs.GET_RISK_STATE, request, self.account).message, settled)

    def until(self, read: Callable[[], T], settled: Callable[[T], bool]) -> T:
        """Read until it is settled, or until the time of a step is over."""
        deadline = time.monotonic() + STEP_SECONDS_MAX
        while True:
            value = read()
            if settled(value) or time.monotonic() > deadline:
                return value
            time.sleep(_POLL_SECONDS)


def state_name(item: order_pb2.Order) -> str:
    """Return an order's state, and how much of it is filled."""
    return f"{enum_name(order_pb2.OrderState, item.state, 'ORDER_STATE_')} {item.filled_quantity or '0'}/{item.quantity}"


def average_price(item: order_pb2.Order) -> Decimal:
    """Return the mean price of an order's fills.

    Raises:
        StepError: it has none.
    """
    if not item.HasField("average_price"):
        raise StepError(f"order {item.order_id} has no average price")
    return Decimal(item.average_price)
