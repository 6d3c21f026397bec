"""The auditor on records that agree, and on each violation that it is there to find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.e2e.crash.audit import audit
from tests.e2e.crash.client import Failure, Ledger
from tests.e2e.crash.load import Cancel, Command, Create, Replace
from tests.e2e.crash.order_record import OrderHistory, OrderRecord, Told
from tests.e2e.crash.risk_record import CLOSED, CONFIRMED, REFUSED, UNCONFIRMED, ExposureEvent, Reservation, RiskRecord
from tests.e2e.crash.venue_record import VenueFill, VenueOrder, VenueRecord
from trademesh.oms.v1 import events_pb2, execution_pb2, order_pb2
from trademesh.risk.v1 import events_pb2 as risk_events_pb2
from trademesh.type.v1 import order_terms_pb2

ACCOUNT, TODAY = "CRASH-0", "2026-11-22"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RESTING, FILLED, REJECTED, ORPHAN = "o-resting", "o-filled", "o-rejected", "o-orphan"
CANCEL_KEY = "cancel-1"


@dataclass
class Records:
    """What the auditor is given."""

    ledger: Ledger
    orders: OrderRecord
    risk: RiskRecord
    venue: VenueRecord

    def audit(self) -> list[str]:
        return audit(self.ledger, self.orders, self.risk, self.venue)


def history(order_id: str, types: list[str], state: order_pb2.OrderState.ValueType, quantity: str, position: int) -> OrderHistory:
    terms = events_pb2.OrderTerms(
        order_id=order_id,
        client_order_id=f"k-{order_id}",
        account_id=ACCOUNT,
        instrument_id="AAPL",
        side=order_terms_pb2.SIDE_BUY,
        type=order_terms_pb2.ORDER_TYPE_LIMIT,
        time_in_force=order_terms_pb2.TIME_IN_FORCE_GTC,
        quantity=quantity,
        limit_price="50",
    )
    numbers = range(1, len(types) + 1)
    places = [(position, position + number) for number in numbers]
    return OrderHistory(order_id, types, list(numbers), places, terms, state, Decimal(quantity), Decimal(50))


def fill(exec_id: str) -> Told:
    return Told((2, 4), 4, execution_pb2.EXECUTION_TYPE_TRADE, "XSIM", TODAY, exec_id, "", Decimal(4), Decimal(49))


def shown(order: OrderHistory) -> order_pb2.Order:
    leaves = order.quantity - order.filled_quantity if order.is_open else Decimal(0)
    return order_pb2.Order(
        order_id=order.order_id,
        account_id=ACCOUNT,
        state=order.state,
        version=len(order.versions),
        quantity=f"{order.quantity:f}",
        limit_price="50",
        filled_quantity=f"{order.filled_quantity:f}",
        leaves_quantity=f"{leaves:f}",
    )


def reservation(order_id: str, status: int, quantity: str, filled: str = "0") -> Reservation:
    price, at = Decimal(50), NOW - timedelta(seconds=1)
    return Reservation(order_id, ACCOUNT, "AAPL", True, status, Decimal(quantity), price, Decimal(filled), None, at)


def exposure(version: int, kind: str, change: str, after: str) -> ExposureEvent:
    delta = risk_events_pb2.ExposureDelta(
        account_id=ACCOUNT, delta_notional=change, open_notional=after, gross_exposure=after, open_limit="1000", gross_limit="1000"
    )
    return ExposureEvent(version, f"risk.v1.{kind}", delta, None, NOW)


def agreeing() -> Records:
    """One order that rests and had a cancel refused, one that was filled, one that risk refused, one that was given up."""
    working = ["OrderAccepted", "OrderRouted", "OrderAcknowledged"]
    resting = history(RESTING, [*working, "CancelRequested", "OrderRouted", "CancelRefused"], order_pb2.ORDER_STATE_NEW, "10", 1)
    resting.routed, resting.cancel_keys = Counter({RESTING: 1, f"{RESTING}-c4": 1}), Counter({CANCEL_KEY: 1})
    filled = history(FILLED, [*working, "ExecutionRecorded"], order_pb2.ORDER_STATE_FILLED, "4", 2)
    filled.routed, filled.fills = Counter({FILLED: 1}), {(TODAY, "X-1"): (Decimal(4), Decimal(49))}
    filled.told = [fill("X-1")]
    rejected = history(REJECTED, ["OrderRejected"], order_pb2.ORDER_STATE_REJECTED, "999", 3)
    orphan = history(ORPHAN, ["OrderAbandoned"], order_pb2.ORDER_STATE_ABANDONED, "0", 4)
    orphan.terms = None
    histories = {order.order_id: order for order in (resting, filled, rejected, orphan)}
    execution = execution_pb2.Execution(
        exec_id="X-1", trade_date=TODAY, order_id=FILLED, account_id=ACCOUNT, last_quantity="4", last_price="49"
    )
    messages = [{"sequence": 1, "msg_type": "D", "order_id": RESTING}, {"sequence": 2, "msg_type": "D", "order_id": FILLED}]
    orders = OrderRecord(histories, {name: shown(order) for name, order in histories.items()}, [execution], messages, {})
    return Records(_ledger(orders), orders, _risk(), _venue())


def _ledger(orders: OrderRecord) -> Ledger:
    ledger = Ledger()
    for order_id in (RESTING, FILLED, REJECTED):
        terms = orders.histories[order_id].terms
        assert terms is not None
        request = Create(
            account_id=ACCOUNT,
            client_order_id=terms.client_order_id,
            instrument_id=terms.instrument_id,
            side=terms.side,
            type=terms.type,
            time_in_force=terms.time_in_force,
            quantity=terms.quantity,
            limit_price=terms.limit_price,
        )
        key = ACCOUNT, terms.client_order_id
        state = order_pb2.ORDER_STATE_REJECTED if order_id == REJECTED else order_pb2.ORDER_STATE_PENDING_NEW
        ledger.commands[key] = Command(*key, request)
        ledger.answers[key] = order_pb2.Order(order_id=order_id, state=state)
    cancel = Command(ACCOUNT, CANCEL_KEY, Cancel(account_id=ACCOUNT, order_id=RESTING, request_id=CANCEL_KEY))
    ledger.commands[ACCOUNT, CANCEL_KEY] = cancel
    ledger.answers[ACCOUNT, CANCEL_KEY] = order_pb2.Order(order_id=RESTING)
    return ledger


def _risk() -> RiskRecord:
    rows = [
        reservation(RESTING, CONFIRMED, "10"),
        reservation(FILLED, CLOSED, "4", "4"),
        reservation(REJECTED, REFUSED, "999"),
        reservation(ORPHAN, CLOSED, "1"),
    ]
    log = [
        exposure(1, "ExposureReserved", "500", "500"),
        exposure(2, "ExposureReserved", "200", "700"),
        exposure(3, "ExposureFilled", "-200", "500"),
    ]
    account = {"buy_notional": Decimal(500), "sell_notional": Decimal(0), "reservation_count": 1}
    position = {
        "position": Decimal(4),
        "buy_quantity": Decimal(10),
        "buy_notional": Decimal(500),
        "sell_quantity": Decimal(0),
        "sell_notional": Decimal(0),
    }
    return RiskRecord({row.order_id: row for row in rows}, {ACCOUNT: account}, {(ACCOUNT, "AAPL"): position}, {ACCOUNT: log}, set())


def _venue() -> VenueRecord:
    accepted_ns = int(NOW.timestamp()) * 10**9
    resting = VenueOrder([RESTING], ACCOUNT, "AAPL", True, Decimal(10), Decimal(50), accepted_ns)
    filled = VenueOrder([FILLED], ACCOUNT, "AAPL", True, Decimal(4), Decimal(50), accepted_ns, "filled")
    filled.fills.append(VenueFill("X-1", TODAY, Decimal(4), Decimal(49)))
    return VenueRecord({RESTING: resting, FILLED: filled})


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
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Records], None], finding: str) -> None:
    records = agreeing()
    plant(records)
    findings = records.audit()
    assert any(finding in found for found in findings), findings
