"""Enums equal the contract's, order events become facts, and what is written can be read."""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from kernel.errors import FailedPreconditionError, InvalidArgumentError, Reason
from kernel.ports import LOG_START, NewEvent, RecordedEvent
from svc_risk.codec.amounts import text
from svc_risk.codec.checks import REASON_NUMBERS, ResultWriter, duplicate_key, write_result
from svc_risk.codec.events import ExposureWriter, new_event, read_exposure_change
from svc_risk.codec.orders import order_of, read_fact
from svc_risk.codec.resources import command_hash, kill_switch_stream, limit_stream, read_kill_switch, write_kill_switch
from svc_risk.domain import events as e
from svc_risk.domain import reservation as r
from svc_risk.domain import vocabulary as v
from svc_risk.domain.administration import KillSwitch, check_instrument, check_kill_switch, check_limit, told, updated_account
from svc_risk.domain.check import Approval, Breach, FirstAnswer, Refusal
from svc_risk.domain.decide import RULES
from svc_risk.domain.exposure import FLAT, Held
from tests.unit.risk.parts import NOW, account, instrument
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import events_pb2 as oms
from trademesh.oms.v1 import order_pb2
from trademesh.risk.v1 import (
    events_pb2,
    kill_switch_pb2,
    limit_pb2,
    pre_trade_service_pb2,
    reference_data_pb2,
    reference_data_service_pb2,
    risk_service_pb2,
)
from trademesh.type.v1 import order_terms_pb2


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (v.Side, order_terms_pb2.Side, "SIDE_"),
        (v.OrderType, order_terms_pb2.OrderType, "ORDER_TYPE_"),
        (v.TimeInForce, order_terms_pb2.TimeInForce, "TIME_IN_FORCE_"),
        (v.CheckKind, pre_trade_service_pb2.CheckKind, "CHECK_KIND_"),
        (v.AccountStatus, reference_data_pb2.AccountStatus, "ACCOUNT_STATUS_"),
        (v.AssetClass, reference_data_pb2.AssetClass, "ASSET_CLASS_"),
        (v.InstrumentStatus, reference_data_pb2.InstrumentStatus, "INSTRUMENT_STATUS_"),
        (v.LimitType, limit_pb2.LimitType, "LIMIT_TYPE_"),
        (v.LimitScope, limit_pb2.LimitScope, "LIMIT_SCOPE_"),
        (v.KillSwitchScope, kill_switch_pb2.KillSwitchScope, "KILL_SWITCH_SCOPE_"),
        (v.KillSwitchStatus, kill_switch_pb2.KillSwitchStatus, "KILL_SWITCH_STATUS_"),
        (v.OrderState, order_pb2.OrderState, "ORDER_STATE_"),
    ],
)
def test_enums_have_the_contract_s_names_and_numbers(ours: type[IntEnum], theirs: Any, prefix: str) -> None:
    stated = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    assert {member.name: member.value for member in ours} == stated


def test_rules_stand_in_the_order_of_their_reasons() -> None:
    numbers_of_rules = [
        error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
        for reason in (
            "KILL_SWITCH_ACTIVE",
            "ACCOUNT_NOT_ACTIVE",
            "INSTRUMENT_NOT_ACTIVE",
            "MARKET_CLOSED",
            "MAX_QUANTITY_EXCEEDED",
            "MAX_NOTIONAL_EXCEEDED",
            "PRICE_COLLAR_BREACHED",
            "OPEN_EXPOSURE_EXCEEDED",
            "GROSS_EXPOSURE_EXCEEDED",
            "MESSAGE_RATE_EXCEEDED",
            "DUPLICATE_ORDER",
            "LIMIT_NOT_SET",
        )
    ]
    assert numbers_of_rules == sorted(numbers_of_rules)
    assert len(RULES) == len(numbers_of_rules)


PARTIAL = order_pb2.ORDER_STATE_PARTIALLY_FILLED
BUY, SELL = order_terms_pb2.SIDE_BUY, order_terms_pb2.SIDE_SELL
TERMS: Any = {"order_id": "o", "account_id": "A", "instrument_id": "I", "quantity": "2"}
EXECUTION: Any = {"exec_id": "x", "last_price": "5", "last_quantity": "1", "filled_quantity": "3"}


@pytest.mark.parametrize(
    ("message", "fact"),
    [
        (
            oms.OrderAccepted(
                terms=oms.OrderTerms(order_id="o", account_id="A", instrument_id="I", side=BUY, quantity="2", limit_price="3")
            ),
            r.Accepted(7, r.OrderTerms("o", "A", "I", v.Side.BUY, Decimal(2), Decimal(3))),
        ),
        (
            oms.OrderAccepted(terms=oms.OrderTerms(**TERMS, side=SELL)),
            r.Accepted(7, r.OrderTerms("o", "A", "I", v.Side.SELL, Decimal(2), None)),
        ),
        (oms.OrderRejected(), r.Ended(7)),
        (oms.OrderAbandoned(), r.Ended(7)),
        (oms.OrderRefused(), r.Ended(7)),
        (oms.OrderCanceled(), r.Ended(7)),
        (
            oms.ExecutionRecorded(execution=EXECUTION, state=PARTIAL),
            r.Executed(7, "x", Decimal(5), Decimal(3), v.OrderState.PARTIALLY_FILLED),
        ),
        (oms.ReplaceRequested(request_id="q", quantity="4"), r.ReplaceAsked(7, "q", Decimal(4), None)),
        (oms.ReplaceRefused(), r.ReplaceDropped(7, None)),
        (oms.ReplaceRejected(request_id="q"), r.ReplaceDropped(7, "q")),
        (oms.OrderReplaced(quantity="4", limit_price="5", restated=True), r.Replaced(7, Decimal(4), Decimal(5), True)),
        (oms.OrderStateChanged(state=order_pb2.ORDER_STATE_EXPIRED), r.StateChanged(7, v.OrderState.EXPIRED)),
        (oms.OrderRouted(), None),
        (oms.OrderAcknowledged(), None),
        (oms.CancelRequested(), None),
        (oms.CancelRefused(), None),
        (oms.OrderMarkedUnknown(), None),
        (oms.AnomalyRecorded(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_order_events_become_facts(message: Message, fact: r.OrderFact | None) -> None:
    assert read_fact(f"oms.v1.{message.DESCRIPTOR.name}", 7, message.SerializeToString()) == fact


def test_every_order_event_of_the_contract_was_thought_of() -> None:
    known = {name for name in oms.DESCRIPTOR.message_types_by_name if name not in ("OrderTerms", "KillSwitchApplied")}
    assert known == {
        *("OrderAccepted", "OrderRejected", "OrderAbandoned", "OrderRefused", "OrderCanceled", "ExecutionRecorded", "ReplaceRequested"),
        *("ReplaceRefused", "ReplaceRejected", "OrderReplaced", "OrderStateChanged"),
        *("OrderRouted", "OrderAcknowledged", "CancelRequested", "CancelRefused", "OrderMarkedUnknown", "AnomalyRecorded"),
    }
    assert order_of("kill-firm-*") is None
    assert order_of("order-abc") == "abc"


def delta() -> e.ExposureDelta:
    return e.ExposureDelta("ACC-1", 3, "AAPL", "o-1", v.Side.BUY, Decimal(-1), Decimal("-100.50"), Decimal(7), Decimal(9), "200", "")


@pytest.mark.parametrize(
    "event",
    [
        e.ExposureReserved(delta(), "r", Decimal(100)),
        e.OrderRefused(delta(), "r", (Breach(Reason.DUPLICATE_ORDER, "account/ACC-1", "1", "", "twice"),)),
        e.ExposureReleased(delta(), "oms.v1.OrderCanceled"),
        e.ExposureAdjusted(delta(), "oms.v1.OrderReplaced", True),
        e.ExposureFilled(delta(), "x", Decimal(1), Decimal(2), Decimal(3), True),
    ],
    ids=lambda event: type(event).__name__,
)
def test_every_exposure_event_shows_in_the_history(event: e.ExposureEvent) -> None:
    written = NewEvent(*ExposureWriter(NOW).write(event))
    assert written.type == f"risk.v1.{type(event).__name__}"
    change = read_exposure_change(RecordedEvent(LOG_START, "exposure-ACC-1", 3, written.type, written.payload, b"", NOW))
    assert (change.version, change.order_id, change.delta_notional, change.open_notional, change.limit) == (3, "o-1", "-100.5", "7", "200")
    assert change.event_time.ToDatetime() == NOW.replace(tzinfo=None)


def test_a_changed_limit_shows_in_the_history() -> None:
    written = new_event(events_pb2.LimitUpdated(limit=limit_pb2.Limit(value="5"), previous_value="4"))
    change = read_exposure_change(RecordedEvent(LOG_START, "exposure-ACC-1", 3, written.type, written.payload, b"", NOW))
    assert (change.type, change.limit, change.delta_notional) == ("risk.v1.LimitUpdated", "5", "0")


def test_a_first_answer_is_given_again_byte_by_byte() -> None:
    refusal = Refusal((Breach(Reason.MARKET_CLOSED, "instrument/AAPL", "", "", "x" * 300),), "XSIM", "north")
    first = write_result("r", refusal)
    assert len(first.refusal.breaches[0].text) == 256
    assert write_result("r", FirstAnswer(first.SerializeToString())) == first


def test_nothing_of_one_approval_is_left_in_the_next() -> None:
    first = Approval(Held(Decimal(1), Decimal(100)), Decimal(100), Decimal(99), "XSIM", "north", FLAT)
    second = first._replace(held=Held(Decimal(0), Decimal(0)), reference=Decimal("0.5"), venue="", tenant="")
    writer = ResultWriter()
    for outcome in (first, second, FirstAnswer(b"as it was"), first):
        again = ResultWriter().write("r", outcome) if isinstance(outcome, FirstAnswer) else write_result("r", outcome).SerializeToString()
        assert writer.write("r", outcome) == again
    events = [
        e.ExposureReserved(delta(), "r", Decimal(100)),
        e.ExposureReserved(delta()._replace(open_limit="", gross_limit="", side=v.Side.SELL, quantity=Decimal(0)), "", Decimal(0)),
        e.ExposureReserved(delta(), "r", Decimal(100)),
    ]
    shared = ExposureWriter(NOW)
    assert [shared.write(event) for event in events] == [ExposureWriter(NOW).write(event) for event in events]


def test_a_duplicate_key_is_that_of_the_numbers_not_of_their_spelling() -> None:
    key = duplicate_key("A", "I", 1, Decimal("1.50"), Decimal(100))
    assert key == duplicate_key("A", "I", 1, Decimal("1.5"), Decimal("1E+2"))
    others = [
        duplicate_key("B", "I", 1, Decimal("1.5"), Decimal(100)),
        duplicate_key("A", "J", 1, Decimal("1.5"), Decimal(100)),
        duplicate_key("A", "I", 2, Decimal("1.5"), Decimal(100)),
        duplicate_key("A", "I", 1, Decimal("1.6"), Decimal(100)),
        duplicate_key("A", "I", 1, Decimal("1.5"), None),
    ]
    assert key not in others
    assert len(set(others)) == len(others)
    assert -(2**63) <= key < 2**63


@pytest.mark.parametrize(
    ("value", "written"), [("1.500", "1.5"), ("1E+3", "1000"), ("-0", "0"), ("1E-18", "0.000000000000000001"), ("10", "10")]
)
def test_amounts_are_written_canonically(value: str, written: str) -> None:
    assert text(Decimal(value)) == written


@pytest.mark.parametrize(
    ("scope", "scope_id", "limit_type", "value", "field"),
    [
        (v.LimitScope.TRADER, "ada", v.LimitType.OPEN_EXPOSURE, "1", "scope"),
        (v.LimitScope.ACCOUNT, "*", v.LimitType.PRICE_COLLAR, "1", "scope"),
        (v.LimitScope.ACCOUNT, "acc one", v.LimitType.MAX_NOTIONAL, "1", "scope_id"),
        (v.LimitScope.INSTRUMENT, "a/b", v.LimitType.MAX_NOTIONAL, "1", "scope_id"),
        (v.LimitScope.TRADER, "ü" * 128, v.LimitType.MAX_NOTIONAL, "1", "scope_id"),
        (v.LimitScope.ACCOUNT, "*", v.LimitType.MESSAGE_RATE, "1.5", "value"),
        (v.LimitScope.ACCOUNT, "*", v.LimitType.DUPLICATE_WINDOW, "3601", "value"),
        (v.LimitScope.INSTRUMENT, "*", v.LimitType.PRICE_COLLAR, "10.01", "value"),
    ],
)
def test_limits_that_make_no_sense_are_refused(scope: v.LimitScope, scope_id: str, limit_type: v.LimitType, value: str, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_limit(scope, scope_id, limit_type, Decimal(value))
    assert [violation.field for violation in caught.value.field_violations] == [field]


@pytest.mark.parametrize(
    ("scope", "scope_id"), [(v.KillSwitchScope.FIRM, "x"), (v.KillSwitchScope.TRADER, "*"), (v.KillSwitchScope.ACCOUNT, "a b")]
)
def test_kill_switches_that_make_no_sense_are_refused(scope: v.KillSwitchScope, scope_id: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_kill_switch(scope, scope_id)


def test_a_kill_switch_is_told_once_in_each_direction() -> None:
    switch = KillSwitch(v.KillSwitchScope.FIRM, "*", v.KillSwitchStatus.PENDING, 4, "ada", "why", False, NOW)
    active = told(switch, NOW)
    assert (active.status, active.version) == (v.KillSwitchStatus.ACTIVE, 5)
    assert read_kill_switch(write_kill_switch(active)) == active
    with pytest.raises(KeyError):
        told(active, NOW)


def test_a_closed_account_stays_closed() -> None:
    closed = account(v.AccountStatus.CLOSED)
    with pytest.raises(FailedPreconditionError):
        updated_account(closed, display_name=None, status=v.AccountStatus.ACTIVE, now=NOW)
    assert updated_account(closed, display_name="new", status=None, now=NOW).display_name == "new"


def test_tick_and_lot_leave_room_for_their_product() -> None:
    check_instrument(instrument(tick_size=Decimal("0.0000000001"), lot_size=Decimal("0.00000001")))
    with pytest.raises(InvalidArgumentError):
        check_instrument(instrument(tick_size=Decimal("0.00000000001"), lot_size=Decimal("0.00000001")))


def test_streams_have_readable_names_as_long_as_they_can() -> None:
    assert limit_stream(v.LimitScope.ACCOUNT, "ACC-1", v.LimitType.MAX_NOTIONAL) == "limit-account-ACC-1-max_notional"
    assert kill_switch_stream(v.KillSwitchScope.FIRM, "*") == "kill-firm-*"
    long, other = kill_switch_stream(v.KillSwitchScope.TRADER, "a" * 128), kill_switch_stream(v.KillSwitchScope.TRADER, "ü")
    assert max(len(long), len(other)) <= 128
    assert long.isascii()
    assert other.isascii()
    assert long != other


def test_a_command_is_the_caller_s_own() -> None:
    request = risk_service_pb2.ReleaseKillSwitchRequest(scope_id="x")
    assert command_hash("north", "ada", request) != command_hash("north", "bob", request)
    assert command_hash("north", "ada", request) != command_hash("south", "ada", request)


def test_a_command_is_what_it_means_not_how_it_is_written() -> None:
    def hashed(**fields: Any) -> bytes:
        return command_hash("north", "ada", risk_service_pb2.UpdateLimitRequest(scope_id="*", **fields))

    assert hashed(value="1.50", request_id="A") == hashed(value="1.5", request_id="a")
    assert hashed(value="1.5") != hashed(value="1.6")
    masks = [
        reference_data_service_pb2.UpdateAccountRequest(update_mask=FieldMask(paths=paths))
        for paths in (["status", "display_name"], ["display_name", "status", "status"])
    ]
    assert command_hash("n", "a", masks[0]) == command_hash("n", "a", masks[1])


def test_every_reason_has_its_number() -> None:
    assert REASON_NUMBERS.keys() == set(Reason)
