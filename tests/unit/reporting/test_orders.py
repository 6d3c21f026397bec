"""Orders after their events, as `docs/reference/order-lifecycle.md` has it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from kernel.ports import RecordedEvent
from svc_oms.codec.events import decode as oms_decode
from svc_oms.domain.evolve import fold as oms_fold
from svc_reporting.codec.orders import order_of, read_order_event, read_view, write_view
from svc_reporting.domain.orders import OrderEvent, OrderView, evolve
from svc_reporting.domain.vocabulary import TERMINAL, OrderState
from tests.integration.reporting.world import World, stamp, trading_day
from trademesh.oms.v1 import events_pb2, order_pb2


def views(events: Sequence[RecordedEvent]) -> list[OrderView]:
    found: list[OrderView] = []
    for event in events:
        found.append(evolve(found[-1] if found else None, read_order_event(event)))
    return found


def streams(world: World) -> dict[str, list[RecordedEvent]]:
    found: dict[str, list[RecordedEvent]] = {}
    for event in world.oms.events:
        if order_of(event.stream_id) is not None and event.type != "oms.v1.OrderBlessed":
            found.setdefault(event.stream_id, []).append(event)
    return found


def test_states_and_quantities_are_those_that_svc_oms_folds() -> None:
    for stream_id, events in streams(trading_day()).items():
        for length, view in enumerate(views(events), start=1):
            order = oms_fold(oms_decode(event) for event in events[:length])
            assert order is not None
            expected = (order.state.name, order.quantity, order.limit_price, order.filled_quantity, order.venue_order_id)
            assert (view.state.name, view.quantity, view.limit_price, view.filled_quantity, view.venue_order_id) == expected, (
                stream_id,
                events[length - 1].type,
            )


def test_a_view_survives_being_kept() -> None:
    for stream_id, events in streams(trading_day()).items():
        order_id = order_of(stream_id)
        assert order_id is not None
        for view in views(events):
            assert read_view(order_id, write_view(view)) == view


def test_an_order_begins_with_its_first_event() -> None:
    with pytest.raises(ValueError, match="cannot begin"):
        evolve(None, OrderEvent(type="oms.v1.OrderRouted", event_time=datetime(2026, 1, 1, tzinfo=UTC)))


def test_nothing_is_left_of_an_order_that_has_ended() -> None:
    for events in streams(trading_day()).values():
        for view in views(events):
            assert view.leaves_quantity == (0 if view.state in TERMINAL else view.quantity - view.filled_quantity)


def test_a_halted_order_stays_halted_by_a_replace_and_a_fill_after_the_acknowledgement_is_kept() -> None:
    world = World()
    book = world.order(quantity="10")
    book.fill("E-1", "4", "100")
    book.tell(events_pb2.OrderAcknowledged(venue_order_id="V-1", transact_time=stamp(world.oms.now)))
    book.tell(events_pb2.OrderStateChanged(state=order_pb2.ORDER_STATE_SUSPENDED))
    book.tell(events_pb2.OrderReplaced(quantity="20", limit_price="99"))
    book.tell(events_pb2.OrderReplaced(quantity="4", limit_price="99"))
    found = views(world.oms.events)
    assert [view.state for view in found[-4:]] == [
        OrderState.PARTIALLY_FILLED,
        OrderState.SUSPENDED,
        OrderState.SUSPENDED,
        OrderState.FILLED,
    ]


def test_a_reason_that_is_newer_than_this_code_shows_as_its_number() -> None:
    world = World()
    rejected = world.rejected()
    message = events_pb2.OrderRejected.FromString(world.oms.events[0].payload)
    message.reject.reason = 9_999  # type: ignore[assignment]  # a number of tomorrow
    event = rejected.tell(message)
    facts = read_order_event(event)
    assert (facts.reason, facts.quantity) == ("9999", Decimal(1_000_000))
