"""The domain's enums have the contract's numbers, every event has a codec, and the lifecycle's page shows the table that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import svc_oms
from svc_oms.codec.events import _DECODERS, _ENCODERS, TYPE_PREFIX
from svc_oms.domain import Action, ExecutionType, OrderState, OrderType, Side, TimeInForce
from svc_oms.domain.transitions import TRANSITIONS, Fact
from svc_oms.store.kill_switches import Scope
from trademesh.oms.v1 import events_pb2, execution_pb2, order_pb2
from trademesh.risk.v1 import kill_switch_pb2
from trademesh.type.v1 import order_terms_pb2

LIFECYCLE = Path(svc_oms.__file__).parent.parent / "docs" / "reference" / "order-lifecycle.md"
EVENTS = LIFECYCLE.with_name("events.md")


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Side, order_terms_pb2.Side, "SIDE_"),
        (OrderType, order_terms_pb2.OrderType, "ORDER_TYPE_"),
        (TimeInForce, order_terms_pb2.TimeInForce, "TIME_IN_FORCE_"),
        (OrderState, order_pb2.OrderState, "ORDER_STATE_"),
        (Action, order_pb2.PendingAction, "PENDING_ACTION_"),
        (ExecutionType, execution_pb2.ExecutionType, "EXECUTION_TYPE_"),
        (Scope, kill_switch_pb2.KillSwitchScope, "KILL_SWITCH_SCOPE_"),
    ],
)
def test_enums_have_the_contracts_numbers(ours: Any, theirs: Any, prefix: str) -> None:
    contract = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    domain = {member.name: int(member) for member in ours if member}
    assert domain == contract


def test_every_event_of_the_contract_is_written_and_read() -> None:
    events = {
        TYPE_PREFIX + name
        for name, message in events_pb2.DESCRIPTOR.message_types_by_name.items()
        if "event_time" in message.fields_by_name
    }
    assert {TYPE_PREFIX + kind.__name__ for kind in _ENCODERS} == events
    assert set(_DECODERS) == events - {TYPE_PREFIX + "KillSwitchApplied"}


def test_the_lifecycle_page_shows_the_table() -> None:
    shown: dict[tuple[OrderState, Fact], str] = {}
    for line in LIFECYCLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == len(Fact) + 1:
            state = OrderState[cells[0].strip("`")]
            shown |= {(state, fact): cell for fact, cell in zip(Fact, cells[1:], strict=True) if cell != "—"}
    assert shown == {key: target.name for key, target in TRANSITIONS.items()}


def test_the_event_catalogue_names_every_event() -> None:
    named = set(re.findall(r"^\| `(oms\.v1\.\w+)`", EVENTS.read_text(), re.MULTILINE))
    assert named == {TYPE_PREFIX + kind.__name__ for kind in _ENCODERS}
