"""A svc_oms made of events: what its log would say of orders that risk has checked."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from kernel.ports import LogPosition, RecordedEvent
from kernel.postgres import Database
from svc_risk.domain.check import OrderCheck
from svc_risk.store.facts import FactStore
from trademesh.oms.v1 import events_pb2

_positions = itertools.count(1)
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def event(order_id: str, version: int, message: Message) -> RecordedEvent:
    """Return an event of an order as svc_oms's log holds it."""
    position = LogPosition(next(_positions), 1)
    return RecordedEvent(position, f"order-{order_id}", version, f"oms.v1.{message.DESCRIPTOR.name}", message.SerializeToString(), b"", NOW)


def accepted(check: OrderCheck, version: int = 1) -> RecordedEvent:
    """Return the first event of an order that was checked."""
    price: Any = {} if check.limit_price is None else {"limit_price": str(check.limit_price)}
    terms = events_pb2.OrderTerms(
        order_id=check.order_id,
        account_id=check.account_id,
        instrument_id=check.instrument_id,
        side=check.side.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        quantity=str(check.quantity),
        **price,
    )
    return event(check.order_id, version, events_pb2.OrderAccepted(terms=terms))


def filled(check: OrderCheck, version: int, quantity: str, state: int, *, price: str = "100", exec_id: str = "x") -> RecordedEvent:
    """Return an execution after which `quantity` is filled and the order is in `state`."""
    execution: Any = {"exec_id": exec_id, "last_price": price, "filled_quantity": quantity}
    return event(check.order_id, version, events_pb2.ExecutionRecorded(execution=execution, state=state))  # type: ignore[arg-type]  # a number


def canceled(check: OrderCheck, version: int) -> RecordedEvent:
    """Return the end of an order."""
    return event(check.order_id, version, events_pb2.OrderCanceled())


async def fold(database: Database, facts: FactStore, *events: RecordedEvent) -> None:
    """Fold events in a transaction, as the projection does."""
    async with database.transaction() as transaction:
        await facts.fold(transaction, events)
