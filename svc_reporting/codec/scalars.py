"""Moments and decimals of messages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp


def moment(message: Timestamp) -> datetime:
    """Return a moment, UTC, to the microsecond."""
    return message.ToDatetime(UTC)


def timestamp(at: datetime) -> Timestamp:
    """Return a moment on the wire."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def optional_decimal(text: str) -> Decimal | None:
    """Return a decimal of one of our own events; None for an empty text."""
    return Decimal(text) if text else None
