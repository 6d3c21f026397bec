"""Decimals, days and moments on the wire."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.values import format_decimal


def text(value: Decimal) -> str:
    """Return a decimal's canonical text.

    Raises:
        ValueError: out of range; a defect.
    """
    return format_decimal(value)


def timestamp(moment: datetime) -> Timestamp:
    """Return a moment on the wire."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def moment_of(message: Timestamp) -> datetime:
    """Return a moment from the wire, UTC."""
    return message.ToDatetime(UTC)


def day(value: date | None) -> str:
    """Return a day as `YYYY-MM-DD`, empty for none."""
    return "" if value is None else value.isoformat()


def day_of(text_: str) -> date | None:
    """Return the day of a text, None for an empty one.

    Raises:
        ValueError: not `YYYY-MM-DD`.
    """
    return date.fromisoformat(text_) if text_ else None


def certain_day(text_: str) -> date:
    """Return the day of a text that must not be empty.

    Raises:
        ValueError: not `YYYY-MM-DD`.
    """
    return date.fromisoformat(text_)
