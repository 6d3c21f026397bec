"""svc_oms and svc_risk as their logs tell of them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.message import Message

from kernel.ports import LogPosition, RecordedEvent
from kernel.values import format_decimal
from svc_portfolio.domain.executions import Execution
from trademesh.oms.v1 import events_pb2, execution_pb2
from trademesh.risk.v1 import events_pb2 as risk_events_pb2
from trademesh.risk.v1 import reference_data_pb2

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
TENANT, VENUE = "north", "XSIM"


def recorded(position: LogPosition, stream_id: str, version: int, kind: str, message: Message) -> RecordedEvent:
    """Return an event of a log."""
    return RecordedEvent(position, stream_id, version, kind, message.SerializeToString(), b"", NOW)


class OrderLog:
    """Executions as events, each order's with contiguous versions."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}

    def event(self, execution: Execution) -> RecordedEvent:
        """Return the event that tells of an execution."""
        told = execution_pb2.Execution(
            exec_id=execution.key.exec_id,
            order_id=execution.order_id,
            account_id=execution.position.account_id,
            instrument_id=execution.position.instrument_id,
            side=execution.side,  # type: ignore[arg-type]  # the contract's numbers
            type=execution.type,  # type: ignore[arg-type]  # the contract's numbers
            exec_ref_id=execution.exec_ref_id,
            last_quantity=format_decimal(execution.quantity),
            last_price=format_decimal(execution.price),
            venue=execution.key.venue,
            trade_date=execution.key.trade_date,
        )
        told.transact_time.FromDatetime(execution.transact_time)
        version = self._versions[execution.order_id] = self._versions.get(execution.order_id, 0) + 1
        message = events_pb2.ExecutionRecorded(execution=told)
        return recorded(execution.log_position, f"order-{execution.order_id}", version, "oms.v1.ExecutionRecorded", message)


def account(number: int, account_id: str, tenant: str = TENANT) -> RecordedEvent:
    """Return the creation of an account."""
    message = risk_events_pb2.AccountCreated(account=reference_data_pb2.Account(account_id=account_id, tenant=tenant, version=1))
    return recorded(LogPosition(number, 1), f"account-{account_id}", 1, "risk.v1.AccountCreated", message)


def moved(account_id: str, tenant: str, number: int = 9) -> RecordedEvent:
    """Return an update of an account: the second event of its stream."""
    message = risk_events_pb2.AccountUpdated(account=reference_data_pb2.Account(account_id=account_id, tenant=tenant, version=2))
    return recorded(LogPosition(number, 1), f"account-{account_id}", 2, "risk.v1.AccountUpdated", message)


def instrument(number: int, instrument_id: str, currency: str = "USD", version: int = 1) -> RecordedEvent:
    """Return the creation of an instrument, or an update of it."""
    told = reference_data_pb2.Instrument(instrument_id=instrument_id, currency=currency, venue=VENUE, version=version)
    message: Message = risk_events_pb2.InstrumentCreated(instrument=told)
    if version > 1:
        message = risk_events_pb2.InstrumentUpdated(instrument=told)
    return recorded(LogPosition(number, 1), f"instrument-{instrument_id}", version, f"risk.v1.{message.DESCRIPTOR.name}", message)
