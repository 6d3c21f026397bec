"""Where the outbound messages of a FIX session lie in the journal, for resends."""

import base64
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple


class Location(NamedTuple):
    """A message's place: the segment's index, the byte offset in its file and the length in bytes."""

    sequence: int
    segment: int
    offset: int
    length: int


class MessageIndex:
    """Locations by sequence number, the latest `messages_max` of them. Numbers without a message (session level) are blank.

    Twelve bytes a message: a venue that ran for a day has millions of them.
    """

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._first = 1
        self._places = array("Q")
        self._lengths = array("I")

    def add(self, sequence: int, segment: int, offset: int, length: int) -> None:
        """Note a message; sequences only rise."""
        skipped = sequence - (self._first + len(self._places))
        assert skipped >= 0, "sequences only rise"
        if not self._places:
            self._first, skipped = sequence, 0
        self._places.extend([0] * skipped)
        self._lengths.extend([0] * skipped)
        self._places.append(segment << 32 | offset)
        self._lengths.append(length)
        if len(self._places) > 2 * self._messages_max:
            self._trim(len(self._places) - self._messages_max)

    def between(self, begin: int, end: int) -> Iterator[Location]:
        """Yield the messages whose sequences are in `begin` to `end`, both inclusive, in order."""
        for sequence in range(max(begin, self._first), min(end, self._first + len(self._places) - 1) + 1):
            place, length = self._places[sequence - self._first], self._lengths[sequence - self._first]
            if length:
                yield Location(sequence, place >> 32, place & 0xFFFFFFFF, length)

    def forget_before(self, segment: int) -> None:
        """Drop the messages that lie in segments before `segment`."""
        gone = next((index for index, place in enumerate(self._places) if place >> 32 >= segment), len(self._places))
        self._trim(gone)

    def clear(self) -> None:
        """Drop everything: the session's numbers start anew."""
        self._trim(len(self._places))
        self._first = 1

    def _trim(self, count: int) -> None:
        self._first += count
        del self._places[:count]
        del self._lengths[:count]

    def dump(self) -> list[Any]:
        """Return the index as JSON values."""
        return [self._first, *(base64.b64encode(part.tobytes()).decode() for part in (self._places, self._lengths))]

    def load(self, document: list[Any]) -> None:
        """Take over what `dump` returned on a machine of the same architecture."""
        self._first, places, lengths = document
        self._places, self._lengths = array("Q"), array("I")
        self._places.frombytes(base64.b64decode(places))
        self._lengths.frombytes(base64.b64decode(lengths))
