"""Decimals, times and reasons between the wire and the domain."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.errors import Reason
from kernel.values import format_decimal
from kernel.wire import message_field
from trademesh.error.v1 import error_reason_pb2

REASON_PREFIX = "ERROR_REASON_"

_REASON_NUMBERS: dict[Reason, error_reason_pb2.ErrorReason.ValueType] = {
    reason: error_reason_pb2.ErrorReason.Value(REASON_PREFIX + reason.value) for reason in Reason
}
_REASONS: dict[int, Reason] = {number: reason for reason, number in _REASON_NUMBERS.items()}


@lru_cache(maxsize=256)
def timestamp(time: datetime) -> Timestamp:
    """Return the time as a protobuf Timestamp, to be copied into messages and not to be changed: orders of a batch share theirs."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


@lru_cache(maxsize=256)
def time_field(number: int, time: datetime) -> bytes:
    """Return a field that holds a time, as protobuf writes it."""
    return message_field(number, timestamp(time).SerializeToString())


def moment(message: Timestamp) -> datetime:
    """Return a protobuf Timestamp as an aware UTC datetime, cut to microseconds."""
    return message.ToDatetime(tzinfo=UTC)


@lru_cache(maxsize=8_192)
def text_of(value: Decimal) -> str:
    """Return the canonical text of a decimal. Equal decimals have equal texts, and prices and quantities repeat."""
    return format_decimal(value)


def decimal_text(value: Decimal | None) -> str | None:
    """Return the canonical text of a decimal; None for None, which leaves an optional field unset."""
    return None if value is None else text_of(value)


def reason_number(reason: Reason) -> error_reason_pb2.ErrorReason.ValueType:
    """Return the contract's number of a reason."""
    return _REASON_NUMBERS[reason]


def reason_of(number: int) -> Reason:
    """Return the reason of a number; INTERNAL for one that a newer release wrote."""
    return _REASONS.get(number, Reason.INTERNAL)
