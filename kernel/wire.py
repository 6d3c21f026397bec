"""Protobuf's wire format, as far as answers are put together from messages that are serialized already.

An order's message is serialized once, for the read model, and every answer that shows the order carries the same bytes. Copying messages
into messages and serializing them again cost more than deciding the order. Source: protobuf.dev, Encoding.
"""

from __future__ import annotations

from functools import lru_cache

_LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """Return the variable-length form of a number from 0 to 2^64 - 1.

    Raises:
        ValueError: a negative number, whose form depends on the field's type.
    """
    if value < 0:
        raise ValueError(f"only numbers from 0 on are written here: {value}")
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def number_field(number: int, value: int) -> bytes:
    """Return an int32, int64, uint32, uint64 or enum field; nothing for 0, which proto3 leaves out."""
    return varint(number << 3) + varint(value) if value else b""


def message_field(number: int, data: bytes) -> bytes:
    """Return a field that holds a serialized message; it is set, and so present, even where the message is empty."""
    return _head(number, len(data)) + data


@lru_cache(maxsize=4_096)
def _head(number: int, length: int) -> bytes:
    """Tag and length; the messages of a kind have few lengths."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


class Serialized:
    """A message in its wire form, for a handler to return in a message's place."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        """Return the bytes."""
        return self._data
