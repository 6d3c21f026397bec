"""How a message's fields lie in its bytes: big-endian unsigned integers and space-padded ASCII."""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from kernel.itch.errors import MalformedError

_INTEGERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
# Message type, stock locate, tracking number, and 48 bits of time as 16 and 32.
_HEADER = "BHHHI"
HEADER_BYTES = 11
_TIMESTAMP_MAX = 2**48 - 1
_TEXTS_MAX = 8_192


class Field(NamedTuple):
    """One field after the header: an unsigned integer of `size` bytes, or `size` characters, out of `choices` if there are any."""

    name: str
    size: int
    is_text: bool = False
    choices: str = ""


def integer(name: str, size: int) -> Field:
    """An unsigned integer of 1, 2, 4 or 8 bytes."""
    return Field(name, size)


def text(name: str, size: int, choices: str = "") -> Field:
    """ASCII of at most `size` characters, left-justified, padded with spaces; or one character out of `choices`."""
    return Field(name, size, True, choices)


# A feed says the same few texts again and again.
@lru_cache(maxsize=_TEXTS_MAX)
def ascii_field(value: str, size: int, subject: str) -> bytes:
    """Return `value` padded with spaces to `size` bytes.

    Raises:
        MalformedError: longer, not printable ASCII, or with a space at its end, which would not survive.
    """
    if len(value) > size or not (value.isascii() and (value.isprintable() or not value)) or value.endswith(" "):
        raise MalformedError(subject, f"at most {size} printable ASCII characters without a space at the end, not {value[:64]!r}")
    return value.encode().ljust(size)


@lru_cache(maxsize=_TEXTS_MAX)
def ascii_text(raw: bytes, subject: str) -> str:
    """Return the characters of a space-padded field.

    Raises:
        MalformedError: not printable ASCII.
    """
    try:
        value = raw.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedError(subject, "printable ASCII is required") from None
    if not value.isprintable():
        raise MalformedError(subject, "printable ASCII is required")
    return value.rstrip(" ")


class Layout:
    """One message type: its letter, its fields in order, and the class that holds them.

    The class is a NamedTuple of `stock_locate`, `tracking_number`, `timestamp_ns` and then `fields`, in this order.
    """

    def __init__(self, letter: str, message_class: type[Any], fields: Sequence[Field]) -> None:
        self.letter = letter
        self.message_class = message_class
        self.fields = tuple(fields)
        codes = "".join(f"{field.size}s" if field.is_text else _INTEGERS[field.size] for field in fields)
        self._struct = struct.Struct(f">{_HEADER}{codes}")
        self._texts = tuple((position, field, f"itch {letter}.{field.name}") for position, field in enumerate(fields) if field.is_text)
        self.size = self._struct.size

    def encode(self, message: Any) -> bytes:
        """Return the message's bytes.

        Raises:
            MalformedError: naming the field that does not fit.
        """
        locate, tracking, timestamp, *values = message
        for position, field, subject in self._texts:
            if field.choices and (len(values[position]) != 1 or values[position] not in field.choices):
                raise MalformedError(subject, f"one of {field.choices} is required, not {values[position][:64]!r}")
            values[position] = ascii_field(values[position], field.size, subject)
        try:
            return self._struct.pack(ord(self.letter), locate, tracking, timestamp >> 32, timestamp & 0xFFFFFFFF, *values)
        except struct.error:
            raise self._misfit(message) from None

    def _misfit(self, message: Any) -> MalformedError:
        bounds = [("stock_locate", 2**16 - 1), ("tracking_number", 2**16 - 1), ("timestamp_ns", _TIMESTAMP_MAX)]
        bounds += [(field.name, 0 if field.is_text else 2 ** (8 * field.size) - 1) for field in self.fields]
        for (name, maximum), value in zip(bounds, message, strict=True):
            if maximum and not (isinstance(value, int) and 0 <= value <= maximum):
                return MalformedError(f"itch {self.letter}.{name}", f"an integer from 0 to {maximum} is required, not {value!r}")
        raise AssertionError("a message that does not fit has a field that does not")

    def decode(self, data: bytes) -> Any:
        """Return the message in `data`.

        Raises:
            MalformedError: another size, or a text that is not ASCII or not among its choices.
        """
        if len(data) != self.size:
            raise MalformedError(f"itch {self.letter}", f"{self.size} bytes are required, not {len(data)}")
        _, locate, tracking, high, low, *values = self._struct.unpack(data)
        for position, field, subject in self._texts:
            value = ascii_text(values[position], subject)
            if field.choices and (not value or value not in field.choices):
                raise MalformedError(subject, f"one of {field.choices} is required, not {value!r}")
            values[position] = value
        return self.message_class(locate, tracking, high << 32 | low, *values)
