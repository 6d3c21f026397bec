"""Events fold after the log as before it, the domain's enums have the contract's numbers, and every event is in the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import svc_custody
from svc_custody.codec.events import _READERS, PREFIX, read_event, type_name, write_event
from svc_custody.codec.resources import command_hash
from svc_custody.domain import commands as c
from svc_custody.domain.book import Book
from svc_custody.domain.decide import fold
from svc_custody.domain.vocabulary import (
    AssetClass,
    AssetType,
    ExecutionType,
    FailureReason,
    HoldState,
    LedgerAccount,
    SettlementState,
    Side,
)
from tests.unit.custody.ledgers import USD, Ledger
from trademesh.custody.v1 import custody_service_pb2, events_pb2, ledger_pb2, settlement_pb2
from trademesh.oms.v1 import execution_pb2
from trademesh.risk.v1 import reference_data_pb2
from trademesh.type.v1 import order_terms_pb2

EVENTS = Path(svc_custody.__file__).parent.parent / "docs" / "reference" / "events.md"


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (AssetType, ledger_pb2.AssetType, "ASSET_TYPE_"),
        (LedgerAccount, ledger_pb2.LedgerAccount, "LEDGER_ACCOUNT_"),
        (SettlementState, settlement_pb2.SettlementState, "SETTLEMENT_STATE_"),
        (FailureReason, settlement_pb2.SettlementFailureReason, "SETTLEMENT_FAILURE_REASON_"),
        (HoldState, settlement_pb2.HoldState, "HOLD_STATE_"),
        (Side, order_terms_pb2.Side, "SIDE_"),
        (ExecutionType, execution_pb2.ExecutionType, "EXECUTION_TYPE_"),
        (AssetClass, reference_data_pb2.AssetClass, "ASSET_CLASS_"),
    ],
)
def test_enums_have_the_contracts_numbers(ours: Any, theirs: Any, prefix: str) -> None:
    contract = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    assert {member.name: int(member) for member in ours} == contract


def eventful() -> Ledger:
    ledger = Ledger()
    ledger.bust("E99")
    ledger.deposit(USD, "1000")
    ledger.withdraw(USD, "0.000000000000000001")
    first = ledger.fill(Side.BUY, "1.5", "100.01")
    ledger.settle()
    ledger.bust(first)
    second = ledger.fill(Side.SELL, "2", "50")
    ledger.settle()
    ledger.correct(second, Side.SELL, "1", "50")
    captured, released = ledger.hold(USD, "10"), ledger.hold(USD, "20")
    ledger.do(c.CaptureHold(captured, "olga", ledger.moment))
    ledger.do(c.ReleaseHold(released, "olga", ledger.moment))
    return ledger


def test_a_ledger_read_back_from_its_events_is_the_same() -> None:
    ledger = eventful()
    recorded = [write_event(event) for event in ledger.events]
    assert {event.type.removeprefix(PREFIX) for event in recorded} == set(_READERS), "every kind of event is tried here"
    read = [read_event(event.type, event.payload) for event in recorded]
    assert fold(Book("ACC-1"), [event for event in read if event is not None]) == ledger.book


def test_an_event_of_a_later_version_is_passed_by() -> None:
    assert read_event("custody.v1.CorporateActionPosted", b"") is None


def test_every_event_is_in_the_catalogue() -> None:
    catalogue = EVENTS.read_text()
    names = {type_name(event) for event in eventful().events} | {f"{PREFIX}BusinessDateAdvanced"}
    assert {name for name in names if f"`{name}`" not in catalogue} == set()
    known = {f"{PREFIX}{name}" for name in events_pb2.DESCRIPTOR.message_types_by_name if name not in ("Posting", "Trade")}
    assert names == known


def test_another_spelling_is_the_same_command_and_another_caller_is_not() -> None:
    def deposit(amount: str, request_id: str = "0B7C2F1E-0000-4000-8000-000000000001") -> custody_service_pb2.CreateDepositRequest:
        return custody_service_pb2.CreateDepositRequest(account_id="ACC-1", amount=amount, request_id=request_id)

    one = command_hash("north", "olga", deposit("1.50"))
    assert one == command_hash("north", "olga", deposit("1.5", "0b7c2f1e-0000-4000-8000-000000000001"))
    assert one != command_hash("north", "olga", deposit("1.51"))
    assert one != command_hash("north", "otto", deposit("1.5"))
    assert one != command_hash("south", "olga", deposit("1.5"))
