"""Executions and reference data as other services tell of them, and amounts as clients read them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from kernel.errors import InvalidArgumentError
from kernel.event_records import to_position
from kernel.ports import LogPosition, RecordedEvent
from svc_portfolio.codec.executions import read_execution
from svc_portfolio.codec.positions import amount, change_message, changed_position, position_message, position_stream
from svc_portfolio.codec.reference import read_account, read_instrument
from svc_portfolio.domain.executions import ExecutionType, Side
from svc_portfolio.domain.position import FLAT
from svc_portfolio.domain.valuation import Holding
from tests.unit.portfolio.make import DAY, NOON, Told, bust, execution
from trademesh.oms.v1 import events_pb2, execution_pb2
from trademesh.portfolio.v1 import position_pb2


def told(**fields: Any) -> RecordedEvent:
    given: dict[str, Any] = {
        "exec_id": "e1",
        "order_id": "order-1",
        "account_id": "ACC-1",
        "instrument_id": "AAPL",
        "side": 2,
        "type": 1,
        "last_quantity": "10",
        "last_price": "5.50",
        "venue": "XSIM",
        "trade_date": DAY,
        "transact_time": NOON,
    }
    message = events_pb2.ExecutionRecorded(execution=execution_pb2.Execution(**(given | fields)))
    return RecordedEvent(LogPosition(3, 4), "order-1", 7, "oms.v1.ExecutionRecorded", message.SerializeToString(), b"", NOON)


def test_an_execution_is_read_whole() -> None:
    found = read_execution(told())
    assert found is not None
    assert (found.key, found.root) == (("XSIM", DAY, "e1"), ("XSIM", DAY, "e1"))
    assert (found.side, found.type, found.quantity, found.price) == (Side.SELL, ExecutionType.TRADE, Decimal(10), Decimal("5.5"))
    assert (found.log_position, found.transact_time, found.position) == (LogPosition(3, 4), NOON, ("ACC-1", "AAPL"))


@pytest.mark.parametrize("price", ["0", "-37.63"])
def test_markets_trade_at_zero_and_below(price: str) -> None:
    found = read_execution(told(last_price=price))
    assert found is not None
    assert found.price == Decimal(price)


@pytest.mark.parametrize(
    "fields",
    [{"last_quantity": "0"}, {"last_quantity": "-1"}, {"last_price": ""}, {"exec_id": ""}, {"account_id": ""}, {"side": 0}, {"type": 9}],
)
def test_what_cannot_be_folded_is_refused_and_never_skipped(fields: dict[str, Any]) -> None:
    with pytest.raises((ValueError, InvalidArgumentError)):
        read_execution(told(**fields))


def test_other_events_are_none_of_ours_and_broken_ones_are_refused() -> None:
    event = told()
    other = replace(event, type="oms.v1.OrderRouted")
    assert (read_execution(other), read_account(other), read_instrument(other)) == (None, None, None)
    for kind, read in (
        ("oms.v1.ExecutionRecorded", read_execution),
        ("risk.v1.AccountCreated", read_account),
        ("risk.v1.InstrumentUpdated", read_instrument),
    ):
        with pytest.raises(DecodeError):
            read(replace(event, type=kind, payload=b"\xff\xff"))


def test_a_change_says_the_position_that_it_made() -> None:
    first = execution(1, "10", "3")
    position = Told().tell(first, execution(2, "-4", "5"), bust(3, first))
    messages = [change_message(change) for change in position.changes]
    assert [changed_position(message) for message in messages] == [change.after for change in position.changes]
    sold, busted = messages[1:]
    assert (sold.quantity_before, sold.quantity, sold.realised_pnl_delta, sold.amended_id) == ("10", "6", "8", "")
    assert (busted.type, busted.amended_id) == (position_pb2.POSITION_CHANGE_TYPE_BUST, f"XSIM/{DAY}/e1")
    assert (busted.quantity, busted.realised_pnl_delta, busted.average_cost) == ("-4", "-8", "5")
    assert busted.order_log_position == to_position(LogPosition(3, 1))


def test_a_position_that_never_was_has_neither_place_nor_cost() -> None:
    message = position_message(Holding("ACC-1", "AAPL", FLAT, "USD", "XSIM"), None)
    assert (message.quantity, message.cost, message.version) == ("0", "0", 0)
    assert not any(message.HasField(name) for name in ("average_cost", "mark", "market_value", "last_order_log_position"))


def test_amounts_are_rounded_where_they_are_shown_and_never_beyond_the_contract() -> None:
    assert amount(Decimal("0.1234567890123456785")) == "0.123456789012345678"
    assert amount(Decimal("-0.0000000000000000001")) == "0"
    with pytest.raises(ValueError, match="range"):
        amount(Decimal(10) ** 20)


def test_streams_of_ids_with_hyphens_are_told_apart() -> None:
    assert position_stream("A-B", "C") != position_stream("A", "B-C")
