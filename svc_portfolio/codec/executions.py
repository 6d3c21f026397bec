"""svc_oms's executions as the domain has them."""

from __future__ import annotations

from datetime import UTC

from kernel.ports import RecordedEvent
from kernel.values import parse_decimal, parse_quantity
from svc_portfolio.domain.executions import Execution, ExecutionKey, ExecutionType, PositionKey, Side
from trademesh.oms.v1 import events_pb2

EXECUTION_RECORDED = "oms.v1.ExecutionRecorded"


def read_execution(event: RecordedEvent) -> Execution | None:
    """Return the execution that an event of svc_oms tells, None for other events. A bust or correction is its own root until `rooted`.

    Raises:
        google.protobuf.message.DecodeError, ValueError, InvalidArgumentError: it is not what its type says; nothing may be skipped.
    """
    if event.type != EXECUTION_RECORDED:
        return None
    told = events_pb2.ExecutionRecorded.FromString(event.payload).execution
    key = ExecutionKey(told.venue, told.trade_date, told.exec_id)
    if not (told.exec_id and told.account_id and told.instrument_id):
        raise ValueError(f"{event.event_id} tells of an execution without an identity: {key}")
    return Execution(
        event.position,
        key,
        key,
        PositionKey(told.account_id, told.instrument_id),
        told.order_id,
        ExecutionType(told.type),
        told.exec_ref_id,
        Side(told.side),
        parse_quantity(told.last_quantity, field="last_quantity"),
        # Some markets trade at zero and below.
        parse_decimal(told.last_price, field="last_price"),
        told.transact_time.ToDatetime(tzinfo=UTC),
    )
