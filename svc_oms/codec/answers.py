"""Answers to new orders, put together from the orders' serialized messages, which are made once for answer and read model alike."""

from __future__ import annotations

from collections.abc import Sequence

from google.rpc.status_pb2 import Status

from kernel.event_records import position_bytes
from kernel.ports import LogPosition
from kernel.wire import Serialized, message_field, number_field
from trademesh.oms.v1.order_service_pb2 import (
    BatchCreateOrdersResponse,
    BatchCreateOrdersResult,
    CreateOrderResponse,
    EnterOrdersResponse,
)

_CREATED_ORDER = CreateOrderResponse.ORDER_FIELD_NUMBER
_CREATED_POSITION = CreateOrderResponse.LOG_POSITION_FIELD_NUMBER
_RESULT_ORDER = BatchCreateOrdersResult.ORDER_FIELD_NUMBER
_RESULT_ERROR = BatchCreateOrdersResult.ERROR_FIELD_NUMBER
_BATCH_RESULTS = BatchCreateOrdersResponse.RESULTS_FIELD_NUMBER
_BATCH_POSITION = BatchCreateOrdersResponse.LOG_POSITION_FIELD_NUMBER
_ENTERED_NUMBER = EnterOrdersResponse.CORRELATION_ID_FIELD_NUMBER
_ENTERED_ORDER = EnterOrdersResponse.ORDER_FIELD_NUMBER
_ENTERED_POSITION = EnterOrdersResponse.LOG_POSITION_FIELD_NUMBER


def create_response(order: bytes, position: LogPosition) -> Serialized:
    """Return a `CreateOrderResponse`."""
    return Serialized(message_field(_CREATED_ORDER, order) + message_field(_CREATED_POSITION, position_bytes(position)))


def batch_response(results: Sequence[bytes | Status], position: LogPosition) -> Serialized:
    """Return a `BatchCreateOrdersResponse`; a result is a serialized order, or why there is none."""
    parts = [message_field(_BATCH_RESULTS, _result(result)) for result in results]
    return Serialized(b"".join(parts) + message_field(_BATCH_POSITION, position_bytes(position)))


def _result(result: bytes | Status) -> bytes:
    if isinstance(result, bytes):
        return message_field(_RESULT_ORDER, result)
    return message_field(_RESULT_ERROR, result.SerializeToString())


def entered_response(correlation_id: int, order: bytes, position: LogPosition) -> Serialized:
    """Return an `EnterOrdersResponse` with an order."""
    return Serialized(
        number_field(_ENTERED_NUMBER, correlation_id)
        + message_field(_ENTERED_ORDER, order)
        + message_field(_ENTERED_POSITION, position_bytes(position))
    )
