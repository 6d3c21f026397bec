"""Orders, commands and venue reports for tests, with everything that a test does not care about filled in."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from kernel.ids import order_id
from svc_oms.domain import Action, Order, OrderState, OrderType, ReportKind, Side, Terms, TimeInForce, decide, evolve, fold
from svc_oms.domain.commands import (
    AbandonOrder,
    MarkUnknown,
    PlaceOrder,
    RecordReport,
    RequestCancel,
    RequestReplace,
    RouteRequest,
    VenueReport,
)
from svc_oms.domain.events import Event

START = datetime(2026, 11, 2, 14, 30, tzinfo=UTC)
VENUE = "XSIM"
TRADE_DATE = "2026-11-02"

_numbers = itertools.count(1)


def at(seconds: float) -> datetime:
    """Return a moment of the test day."""
    return START + timedelta(seconds=seconds)


def terms(**changes: Any) -> Terms:
    """Return the terms of a limit order to buy 10 AAPL at 100."""
    account_id, client_order_id = changes.pop("account_id", "ACC-1"), changes.pop("client_order_id", "c-1")
    given = Terms(
        order_id(account_id, client_order_id),
        client_order_id,
        account_id,
        "tenant-1",
        "trader-1",
        "AAPL",
        Side.BUY,
        OrderType.LIMIT,
        TimeInForce.GTC,
        Decimal(10),
        Decimal(100),
        {},
        b"\x01" * 32,
        VENUE,
    )
    return given._replace(**changes)


def placed(**changes: Any) -> Order:
    """Return an accepted order that was not sent yet."""
    order = fold(decide(None, PlaceOrder(terms(**changes), None, START)))
    assert order is not None
    return order


def routed(**changes: Any) -> Order:
    """Return an order that was sent and not answered."""
    return sent(placed(**changes))


def sent(order: Order) -> Order:
    """Send the new order."""
    return apply(order, RouteRequest(Action.NEW, order.order_id, 1, at(1)))


def working(**changes: Any) -> Order:
    """Return an order that the venue has acknowledged."""
    return reported(routed(**changes), report(ReportKind.ACKNOWLEDGED))


def apply(order: Order, command: Any) -> Order:
    """Decide and fold."""
    return after(order, decide(order, command))


def after(order: Order, events: tuple[Event, ...]) -> Order:
    """Fold events."""
    for event in events:
        order = evolve(order, event)
    return order


def report(kind: ReportKind, **changes: Any) -> VenueReport:
    """Return a report with an ExecID of its own."""
    given = VenueReport(
        kind=kind,
        venue=VENUE,
        client_order_id="",
        original_client_order_id="",
        venue_order_id="V-1",
        exec_id=f"E{next(_numbers)}",
        exec_ref_id="",
        trade_date=TRADE_DATE,
        transact_time=at(2),
        state=None,
        quantity=None,
        limit_price=None,
        last_quantity=None,
        last_price=None,
        cumulative_quantity=None,
        venue_reason=-1,
        text="",
        raw=b"35=8",
    )
    return dataclasses.replace(given, **changes)


def fill(quantity: str, price: str = "100", **changes: Any) -> VenueReport:
    """Return a fill."""
    return report(ReportKind.TRADE, last_quantity=Decimal(quantity), last_price=Decimal(price), **changes)


def reported(order: Order, *reports: VenueReport) -> Order:
    """Record reports."""
    for item in reports:
        order = apply(order, RecordReport(item, at(2)))
    return order


def events_of(order: Order, item: VenueReport) -> tuple[str, ...]:
    """Return the names of the events that a report leads to."""
    return tuple(type(event).__name__ for event in decide(order, RecordReport(item, at(2))))


def cancel(**changes: Any) -> RequestCancel:
    """Return a client's cancel."""
    return dataclasses.replace(RequestCancel("trader-1", f"r-{next(_numbers)}", at(3)), **changes)


def replacement(quantity: str | None = None, limit_price: str | None = None, **changes: Any) -> RequestReplace:
    """Return a client's replace that risk has approved."""
    given = RequestReplace(
        "trader-1",
        f"r-{next(_numbers)}",
        None if quantity is None else Decimal(quantity),
        None if limit_price is None else Decimal(limit_price),
        b"\x02" * 32,
        "",
        None,
        at(3),
    )
    return dataclasses.replace(given, **changes)


def asked(order: Order, command: RequestCancel | RequestReplace) -> Order:
    """Ask, and send what was asked."""
    order = apply(order, command)
    request = order.requests[-1]
    return apply(order, RouteRequest(request.action, request.venue_client_order_id, 2, at(4)))


def in_state(state: OrderState) -> Order:
    """Return an order that reached a state the ordinary way."""
    if state is OrderState.PENDING_NEW:
        return routed()
    if state is OrderState.REJECTED:
        return reported(routed(), report(ReportKind.REFUSED))
    if state is OrderState.UNKNOWN:
        order = routed()
        return apply(order, MarkUnknown(order.order_id, at(20)))
    kinds: dict[OrderState, VenueReport | None] = {
        OrderState.NEW: None,
        OrderState.PARTIALLY_FILLED: fill("4"),
        OrderState.FILLED: fill("10"),
        OrderState.DONE_FOR_DAY: report(ReportKind.DONE_FOR_DAY),
        OrderState.CANCELED: report(ReportKind.CANCELED),
        OrderState.STOPPED: report(ReportKind.STOPPED),
        OrderState.SUSPENDED: report(ReportKind.SUSPENDED),
        OrderState.EXPIRED: report(ReportKind.EXPIRED),
    }
    item = kinds[state]
    return working() if item is None else reported(working(), item)


def after_abandon() -> Order:
    """Return an order that was given up."""
    order = fold(decide(None, AbandonOrder(terms().order_id, "ACC-1", START)))
    assert order is not None
    return order
