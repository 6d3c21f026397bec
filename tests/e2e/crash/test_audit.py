"""The auditor on records that agree, and on each violation that it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.e2e.crash.agreeing_orders import (
    ACCOUNT,
    CANCEL_KEY,
    FILLED,
    NOW,
    ORPHAN,
    RESTING,
    TODAY,
    Records,
    agreeing,
    exposure,
    fill,
    history,
    reservation,
)
from tests.e2e.crash.client import Failure
from tests.e2e.crash.load import Command, Replace
from tests.e2e.crash.order_record import OrderHistory
from tests.e2e.crash.risk_record import CONFIRMED, REFUSED, UNCONFIRMED, ExposureEvent
from tests.e2e.crash.venue_record import VenueFill
from trademesh.oms.v1 import order_pb2
from trademesh.risk.v1 import events_pb2 as risk_events_pb2
from trademesh.risk.v1 import limit_pb2


def test_records_that_agree_have_no_findings() -> None:
    assert agreeing().audit() == []


def lose_order(it: Records) -> None:
    del it.orders.histories[RESTING], it.orders.snapshots[RESTING]


def alter_terms(it: Records) -> None:
    it.orders.histories[RESTING].terms.limit_price = "51"  # type: ignore[union-attr]


def answer_two_keys_with_one_order(it: Records) -> None:
    it.ledger.answers[ACCOUNT, f"k-{FILLED}"] = order_pb2.Order(order_id=RESTING)


def lose_cancel(it: Records) -> None:
    it.orders.histories[RESTING].cancel_keys.clear()


def record_cancel_twice(it: Records) -> None:
    it.orders.histories[RESTING].cancel_keys[CANCEL_KEY] = 2


def do_what_was_refused(it: Records) -> None:
    key = ACCOUNT, f"k-{RESTING}"
    del it.ledger.answers[key]
    it.ledger.lost[key] = Failure("UNAVAILABLE", "RISK_UNAVAILABLE", "")


def refuse_replace(it: Records) -> OrderHistory:
    """A replace that the order refused after risk had approved it: the refusal is recorded."""
    key = "00000000-0000-7000-8000-00000000000f"
    it.ledger.commands[ACCOUNT, key] = Command(ACCOUNT, key, Replace(account_id=ACCOUNT, order_id=RESTING, request_id=key))
    it.ledger.refused[ACCOUNT, key] = Failure("FAILED_PRECONDITION", "ORDER_REQUEST_PENDING", "")
    order = it.orders.histories[RESTING]
    order.replaces_rejected[key] = 1
    return order


def test_a_recorded_refusal_is_no_finding() -> None:
    records = agreeing()
    refuse_replace(records)
    assert records.audit() == []


def do_a_replace_that_was_refused(it: Records) -> None:
    order = refuse_replace(it)
    order.replace_keys, order.replaces_rejected = order.replaces_rejected, order.replace_keys


def leave_replace_reserved(it: Records) -> None:
    it.risk.reservations[RESTING] = replace(it.risk.reservations[RESTING], pending="{}")


def accept_a_key_twice(it: Records) -> None:
    """An order of an id of its own, which nobody was told of: only its key says that it is the same."""
    again = history("o-again", ["OrderAccepted"], order_pb2.ORDER_STATE_PENDING_NEW, "10", 9)
    assert again.terms is not None
    again.terms.client_order_id = f"k-{RESTING}"
    it.orders.histories[again.order_id] = again


def begin_twice(it: Records) -> None:
    order = it.orders.histories[RESTING]
    order.types[1] = "OrderAccepted"


def begin_in_the_middle(it: Records) -> None:
    order = it.orders.histories[RESTING]
    order.types[0] = "OrderRouted"


def invent_order(it: Records) -> None:
    del it.ledger.commands[ACCOUNT, f"k-{RESTING}"]
    del it.ledger.answers[ACCOUNT, f"k-{RESTING}"]


def skip_version(it: Records) -> None:
    it.orders.histories[FILLED].versions[-1] += 1


def count_fill_twice(it: Records) -> None:
    it.orders.histories[FILLED].fills_repeated.append("X-1")


def count_fill_for_two(it: Records) -> None:
    it.orders.histories[RESTING].told.append(fill("X-1"))


def miss_fill(it: Records) -> None:
    it.venue.orders[RESTING].fills.append(VenueFill("X-9", TODAY, Decimal(1), Decimal(50)))


def show_other_state(it: Records) -> None:
    it.orders.snapshots[RESTING].state = order_pb2.ORDER_STATE_CANCELED


def send_twice(it: Records) -> None:
    it.venue.taken_twice.append(RESTING)


def number_twice(it: Records) -> None:
    it.orders.messages.append({"sequence": 3, "msg_type": "D", "order_id": RESTING})


def reuse_exec_id(it: Records) -> None:
    it.venue.exec_ids_reused.append("X-1")


def forget_at_venue(it: Records) -> None:
    del it.venue.orders[RESTING]


def cancel_at_venue(it: Records) -> None:
    it.venue.orders[RESTING].state = "canceled"


def send_without_approval(it: Records) -> None:
    it.risk.reservations[RESTING] = replace(it.risk.reservations[RESTING], status=REFUSED)


def approve_afterwards(it: Records) -> None:
    it.risk.reservations[RESTING] = replace(it.risk.reservations[RESTING], reserved_at=NOW + timedelta(seconds=1))


def orphan_reservation(it: Records) -> None:
    it.risk.reservations["o-9"] = reservation("o-9", UNCONFIRMED, "1")


def release_without_giving_up(it: Records) -> None:
    del it.orders.histories[ORPHAN], it.orders.snapshots[ORPHAN]


def hold_for_closed(it: Records) -> None:
    it.risk.reservations[FILLED] = replace(it.risk.reservations[FILLED], status=CONFIRMED)


def hold_too_much(it: Records) -> None:
    it.risk.reservations[RESTING] = replace(it.risk.reservations[RESTING], price=Decimal(60))


def misplace_position(it: Records) -> None:
    it.risk.positions[ACCOUNT, "AAPL"]["position"] = Decimal(8)


def misstate_account(it: Records) -> None:
    it.risk.accounts[ACCOUNT]["buy_notional"] = Decimal(501)


def break_exposure_chain(it: Records) -> None:
    it.risk.log[ACCOUNT][1] = exposure(2, "ExposureReserved", "100", "700")


def approve_above_limit(it: Records) -> None:
    log = it.risk.log[ACCOUNT]
    log[1:] = [exposure(2, "ExposureReserved", "600", "1100"), exposure(3, "ExposureReleased", "-600", "500")]


def set_limit(it: Records, value: str, *, version: int = 1) -> None:
    """The account gets a limit of its own, at this place of its log."""
    limit = limit_pb2.Limit(scope_id=ACCOUNT, type=limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE, value=value)
    log = it.risk.log[ACCOUNT]
    log.insert(version - 1, ExposureEvent(version, "risk.v1.LimitUpdated", None, risk_events_pb2.LimitUpdated(limit=limit), NOW))
    log[version:] = [replace(entry, version=entry.version + 1) for entry in log[version:]]


def approve_by_an_old_limit(it: Records) -> None:
    set_limit(it, "600", version=2)


def test_a_limit_that_is_set_again_to_what_it_is_is_no_finding() -> None:
    records = agreeing()
    set_limit(records, "1000")
    assert records.audit() == []


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (lose_order, "was acknowledged and is gone"),
        (alter_terms, "limit_price was asked as '50'"),
        (answer_two_keys_with_one_order, "answers 2 keys"),
        (lose_cancel, "was acknowledged and is recorded 0 times"),
        (record_cancel_twice, "was acknowledged and is recorded 2 times"),
        (do_what_was_refused, "was told that nothing was persisted"),
        (do_a_replace_that_was_refused, "is recorded 1 times, and its client was told"),
        (leave_replace_reserved, "is not settled"),
        (accept_a_key_twice, "has 2 orders: o-again, o-resting"),
        (begin_twice, "o-resting begins 2 times"),
        (begin_in_the_middle, "o-resting begins with OrderRouted"),
        (invent_order, "which no client used"),
        (skip_version, "versions [1, 2, 3, 5]"),
        (count_fill_twice, "counts fills twice"),
        (count_fill_for_two, "counts for 2 orders"),
        (miss_fill, "fills differ from the venue's"),
        (show_other_state, "its events say"),
        (send_twice, "the venue took o-resting twice"),
        (number_twice, "was numbered 2 times"),
        (reuse_exec_id, "used execution id X-1 twice"),
        (forget_at_venue, "the venue never had it"),
        (cancel_at_venue, "canceled at the venue"),
        (send_without_approval, "reached the venue without an approval"),
        (approve_afterwards, "reached the venue at"),
        (orphan_reservation, "is not settled"),
        (release_without_giving_up, "no OrderAbandoned"),
        (hold_for_closed, "is held for an order that is not open"),
        (hold_too_much, "reserved is"),
        (misplace_position, "position is 8"),
        (misstate_account, "buy_notional is 501"),
        (break_exposure_chain, "goes from 500 by 100 to 700"),
        (approve_above_limit, "approves 1100 above 1000"),
        (approve_by_an_old_limit, "approves 700 above 600"),
        (approve_by_an_old_limit, "was decided by a limit of 1000, in force was 600"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Records], None], finding: str) -> None:
    records = agreeing()
    plant(records)
    findings = records.audit()
    assert any(finding in found for found in findings), findings
