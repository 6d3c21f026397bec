"""A FIX message in memory: what was read from the wire, and the body fields of what is to be written.

Reading: `message.get(tags.CL_ORD_ID)` is text or None; `decimal`, `integer`, `timestamp`, … read typed values.

Writing: a body is a list of `(tag, text)` pairs in any order; a repeating group is `(count_tag, [entry, …])` whose entries
are lists of pairs in the order that the standard gives. `kernel.fix.codec.encode_body` puts the body in ascending tag order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from kernel.fix import fieldtypes

Pair = tuple[int, str]
Entry = Sequence[Pair]
Field = tuple[int, str | Sequence[Entry]]
"""`(tag, text)`, or `(count tag, entries)` for a repeating group."""
Body = Sequence[Field]


class FieldError(ValueError):
    """A field of a message is missing or is not of its type: for the receiver to answer with a session or business reject.

    `reason` is a SessionRejectReason (373): 1 required tag missing, 5 value out of range, 6 incorrect data format.
    """

    def __init__(self, tag: int, reason: int, text: str) -> None:
        super().__init__(f"{text} (tag {tag})")
        self.tag: Final = tag
        self.reason: Final = reason
        self.text: Final = text


class Message:
    """One message as read. `fields` holds every `(tag, text)` in wire order, without 8, 9 and 10; 35 is the first.

    Lookups by tag give the first occurrence. `duplicates` is True where some tag occurs more than once, which is right
    only inside repeating groups (`group`). Values are text in ISO 8859-1, so every byte survives a round trip. `raw` is the
    whole message as it came, for the record.
    """

    __slots__ = ("_first", "begin_string", "duplicates", "fields", "msg_type", "raw")

    def __init__(self, begin_string: str, fields: list[Pair], raw: bytes = b"") -> None:
        self.begin_string = begin_string
        self.fields = fields
        self.msg_type = fields[0][1]
        self.raw = raw
        first = dict(fields)
        self.duplicates = len(first) != len(fields)
        if self.duplicates:
            first = dict(reversed(fields))
        self._first = first

    def get(self, tag: int) -> str | None:
        """The text of the first field with this tag, or None."""
        return self._first.get(tag)

    def __contains__(self, tag: int) -> bool:
        return tag in self._first

    @property
    def first_by_tag(self) -> Mapping[int, str]:
        """Every tag present with its first text."""
        return self._first

    def require(self, tag: int) -> str:
        """The text of a required field. Raises FieldError (373=1)."""
        text = self._first.get(tag)
        if text is None:
            raise FieldError(tag, 1, "Required tag missing")
        return text

    def decimal(self, tag: int) -> Decimal | None:
        """A FIX float, or None where absent. Raises FieldError (373=6)."""
        text = self._first.get(tag)
        if text is None:
            return None
        try:
            return fieldtypes.parse_decimal(text)
        except ValueError as error:
            raise FieldError(tag, 6, "Incorrect data format for value") from error

    def integer(self, tag: int) -> int | None:
        """A FIX int, or None where absent. Raises FieldError (373=6)."""
        text = self._first.get(tag)
        if text is None:
            return None
        try:
            return fieldtypes.parse_integer(text)
        except ValueError as error:
            raise FieldError(tag, 6, "Incorrect data format for value") from error

    def boolean(self, tag: int) -> bool:
        """A FIX Boolean; absent is False. Raises FieldError (373=6)."""
        text = self._first.get(tag)
        if text is None:
            return False
        try:
            return fieldtypes.parse_boolean(text)
        except ValueError as error:
            raise FieldError(tag, 6, "Incorrect data format for value") from error

    def timestamp(self, tag: int) -> datetime | None:
        """A UTCTimestamp as an aware UTC datetime, or None where absent. Raises FieldError (373=6)."""
        text = self._first.get(tag)
        if text is None:
            return None
        try:
            return fieldtypes.parse_timestamp(text)
        except ValueError as error:
            raise FieldError(tag, 6, "Incorrect data format for value") from error

    def date(self, tag: int) -> date | None:
        """A LocalMktDate, or None where absent. Raises FieldError (373=6)."""
        text = self._first.get(tag)
        if text is None:
            return None
        try:
            return fieldtypes.parse_date(text)
        except ValueError as error:
            raise FieldError(tag, 6, "Incorrect data format for value") from error

    def group(self, count_tag: int, member_tags: frozenset[int]) -> list[dict[int, str]]:
        """The entries of a repeating group: each starts at the tag that follows `count_tag`, and ends with its members."""
        tags = [tag for tag, _ in self.fields]
        if count_tag not in self._first:
            return []
        start = tags.index(count_tag) + 1
        if start == len(tags) or tags[start] not in member_tags:
            return []
        entries: list[dict[int, str]] = []
        for tag, text in self.fields[start:]:
            if tag not in member_tags:
                break
            if tag == tags[start]:
                entries.append({})
            entries[-1][tag] = text
        return entries

    def __repr__(self) -> str:
        return f"<FIX {self.msg_type} 34={self._first.get(34)}>"


@dataclass(frozen=True, slots=True)
class Garbled:
    """Bytes that are not a FIX message (bad CheckSum, BodyLength, first three fields or tag): to be ignored, FIX 4.4 Vol. 2.

    `reason` is for a log line; `size` is in bytes. The content is not kept.
    """

    reason: str
    size: int
