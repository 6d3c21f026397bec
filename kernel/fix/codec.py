"""FIX tag=value encoding: framing, CheckSum, BodyLength (FIX 4.4 Volume 1, "Tag=Value Syntax").

    body = encode_body([(tags.CL_ORD_ID, "A1"), (tags.SYMBOL, "AAPL"), (tags.SIDE, "1")])
    data = frame("FIX.4.4", "D", sequence=2, sender="TRADEMESH", target="XSIM", sending_time="20260801-09:30:00.000", body=body)

    reader = MessageReader()
    for item in reader.feed(data):      # any slice of the stream, also one byte
        match item:
            case Message(): ...
            case Garbled(): ...         # ignored by the session, the sequence number is unchanged

The body is encoded apart from the header, because a resend repeats the body of a stored message under a new header.
"""

import re
import zlib
from operator import itemgetter
from typing import Final

from kernel.fix.message import Body, Entry, Garbled, Message, Pair

MESSAGE_BYTES_MAX: Final = 65_536
"""Default bound on BodyLength (9)."""
FIELDS_MAX: Final = 2_048
"""Default bound on the number of fields of a message."""

_SOH = "\x01"
_HEAD = re.compile(rb"8=([^\x01=]{1,16})\x019=(\d{1,9})\x01", re.ASCII)
_HEAD_BYTES_MAX: Final = 32
_TRAILER_BYTES: Final = 7  # 10=nnn and its SOH
_TAG = re.compile(r"-?\d{1,9}", re.ASCII)
_by_tag = itemgetter(0)

# Each length field and the data field that follows it, whose value may hold the delimiter.
DATA_LENGTH_TAGS: Final = {
    90: 91, 93: 89, 95: 96, 212: 213, 348: 349, 350: 351, 352: 353, 354: 355, 356: 357, 358: 359, 360: 361, 362: 363,
    364: 365, 445: 446, 618: 619, 621: 622,
}  # fmt: skip
_LENGTH_TAGS = frozenset(DATA_LENGTH_TAGS)


class GarbledError(ValueError):
    """The bytes are not one well-formed FIX message; the receiver ignores them."""


class _TagNumbers(dict[str, int]):
    """Text of a tag to its number; tags beyond the table are read each time, so that a peer cannot grow it."""

    def __missing__(self, text: str) -> int:
        if _TAG.fullmatch(text) is None:
            raise GarbledError("tag is not a number")
        return int(text)


_TAG_NUMBERS: Final = _TagNumbers({str(number): number for number in range(1, 1000)})


def checksum(data: bytes) -> int:
    """CheckSum (10): the sum of all bytes modulo 256."""
    # Adler-32's low half is 1 + the sum of the bytes modulo 65521, which 256 bytes cannot reach; it runs in C.
    total = 0
    for start in range(0, len(data), 256):
        total += (zlib.adler32(data[start : start + 256]) & 0xFFFF) - 1
    return total & 0xFF


def encode_body(body: Body) -> bytes:
    """The body's fields in ascending tag order; a repeating group stays whole, in its own order, at its count's place.

    Raises ValueError where a value is empty or holds SOH: neither can be read back.
    """
    parts: list[str] = []
    for tag, value in sorted(body, key=_by_tag):
        if isinstance(value, str):
            parts.append(f"{tag}={value}")
        else:
            _append_group(parts, tag, list(value))
    text = _SOH.join(parts)
    if text.count(_SOH) != max(len(parts) - 1, 0):
        raise ValueError("a value holds the field delimiter")
    if "=\x01" in text or text.endswith("="):
        for part in parts:
            if part.endswith("=") and part.count("=") == 1:
                raise ValueError("a value is empty")
    return (text + _SOH).encode("latin-1") if parts else b""


def _append_group(parts: list[str], count_tag: int, entries: list[Entry]) -> None:
    parts.append(f"{count_tag}={len(entries)}")
    for entry in entries:
        parts.extend(f"{tag}={value}" for tag, value in entry)


def frame(
    begin_string: str,
    msg_type: str,
    *,
    sequence: int,
    sender: str,
    target: str,
    sending_time: str,
    body: bytes,
    orig_sending_time: str | None = None,
    poss_resend: bool = False,
    sender_sub_id: str = "",
    target_sub_id: str = "",
) -> bytes:
    """One whole message around an encoded body. `orig_sending_time` makes it a possible duplicate (43=Y, 122).

    Header fields after 35 are in ascending tag order.
    """
    head = (
        f"35={msg_type}\x0134={sequence}\x01"
        + ("43=Y\x01" if orig_sending_time is not None else "")
        + f"49={sender}\x01"
        + (f"50={sender_sub_id}\x01" if sender_sub_id else "")
        + f"52={sending_time}\x0156={target}\x01"
        + (f"57={target_sub_id}\x01" if target_sub_id else "")
        + ("97=Y\x01" if poss_resend else "")
        + (f"122={orig_sending_time}\x01" if orig_sending_time is not None else "")
    ).encode("latin-1")
    data = b"8=%b\x019=%d\x01%b%b" % (begin_string.encode("latin-1"), len(head) + len(body), head, body)
    return b"%b10=%03d\x01" % (data, checksum(data))


def parse(data: bytes, *, fields_max: int = FIELDS_MAX) -> Message:
    """Reads exactly one framed message, CheckSum included.

    Raises GarbledError where BodyLength, CheckSum, the first three fields or any tag is malformed, a field has no `=`, or
    there are more than `fields_max` fields. A field with an empty value is kept: the session answers it (373=4).
    """
    match = _HEAD.match(data)
    if match is None:
        raise GarbledError("first two fields are not 8 and 9")
    begin_string, length = match.groups()
    if match.end() + int(length) + _TRAILER_BYTES != len(data):
        raise GarbledError("BodyLength does not match")
    return _parse_framed(data, begin_string.decode("latin-1"), match.end(), fields_max)


def _parse_framed(data: bytes, begin_string: str, body_start: int, fields_max: int) -> Message:
    end = len(data) - _TRAILER_BYTES
    if data[end : end + 3] != b"10=" or data[-1] != 1 or data[end - 1] != 1:
        raise GarbledError("BodyLength does not lead to the CheckSum")
    if data[end + 3 : -1] != b"%03d" % checksum(data[:end]):
        raise GarbledError("CheckSum does not match")
    parts = data[body_start : end - 1].decode("latin-1").split(_SOH)
    if len(parts) > fields_max:
        raise GarbledError("too many fields")
    try:
        numbers = _TAG_NUMBERS
        fields = [(numbers[tag], text) for tag, text in [part.split("=", 1) for part in parts]]
    except ValueError:
        fields = _parse_with_data(parts)
    if fields[0][0] != 35 or not fields[0][1]:
        raise GarbledError("third field is not 35")
    message = Message(begin_string, fields, data)
    if _LENGTH_TAGS.isdisjoint(message.first_by_tag):
        return message
    return Message(begin_string, _parse_with_data(parts), data)


def _parse_with_data(parts: list[str]) -> list[Pair]:
    """Field by field, because a data field's length, not a delimiter, says where it ends."""
    fields: list[Pair] = []
    position = 0
    while position < len(parts):
        name, equals, text = parts[position].partition("=")
        position += 1
        if not equals:
            raise GarbledError("a field has no '='")
        tag = _TAG_NUMBERS[name]
        if fields and DATA_LENGTH_TAGS.get(fields[-1][0]) == tag and fields[-1][1].isascii() and fields[-1][1].isdigit():
            length = int(fields[-1][1][:9])
            while len(text) < length and position < len(parts):
                text += _SOH + parts[position]
                position += 1
            if len(text) != length:
                raise GarbledError("a data field's length does not match")
        fields.append((tag, text))
    return fields


class MessageReader:
    """Cuts a byte stream into messages. Holds at most one message, plus what one `feed` brought.

    After garbled bytes the reader goes on at the next `8=`-field that starts a header, so a message that follows a bad one
    is not lost with it. A BodyLength above `message_bytes_max` is garbled at once: nothing is buffered for it.
    """

    def __init__(self, *, message_bytes_max: int = MESSAGE_BYTES_MAX, fields_max: int = FIELDS_MAX) -> None:
        self._message_bytes_max = message_bytes_max
        self._fields_max = fields_max
        self._buffer = b""

    @property
    def buffered(self) -> int:
        """Bytes held for a message that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message | Garbled]:
        """The messages completed by these bytes, in order, with what was garbled between them. Never raises."""
        buffer = self._buffer + data if self._buffer else data
        items: list[Message | Garbled] = []
        position = 0
        while position < len(buffer):
            match = _HEAD.match(buffer, position)
            if match is None:
                if len(buffer) - position < _HEAD_BYTES_MAX and _could_be_head(buffer[position:]):
                    break
                position = self._skip(buffer, position, items, "no message header")
                continue
            length = int(match.group(2))
            end = match.end() + length + _TRAILER_BYTES
            if length > self._message_bytes_max:
                position = self._skip(buffer, position, items, "BodyLength above the bound")
                continue
            if end > len(buffer):
                break
            begin_string = match.group(1).decode("latin-1")
            try:
                items.append(_parse_framed(buffer[position:end], begin_string, match.end() - position, self._fields_max))
                position = end
            except GarbledError as error:
                position = self._skip_bad(buffer, position, end, items, str(error))
        self._buffer = buffer[position:]
        return items

    @staticmethod
    def _skip_bad(buffer: bytes, position: int, end: int, items: list[Message | Garbled], reason: str) -> int:
        """Past a framed message that is bad inside; where not even its end is one, to the next header."""
        if buffer[end - _TRAILER_BYTES : end - 4] == b"10=" and buffer[end - 1] == 1 and buffer[end - _TRAILER_BYTES - 1] == 1:
            items.append(Garbled(reason, end - position))
            return end
        return MessageReader._skip(buffer, position, items, reason)

    @staticmethod
    def _skip(buffer: bytes, position: int, items: list[Message | Garbled], reason: str) -> int:
        """To the next field that starts a header, or to the end; one notice for one run of garbage."""
        following = buffer.find(b"\x018=", position)
        start = len(buffer) if following < 0 else following + 1
        if following < 0:
            # A delimiter at the very end, or one that is followed by an 8, may start a header in the next read.
            for tail in (b"\x018", b"\x01"):
                if buffer.endswith(tail) and len(buffer) - len(tail) > position:
                    start = len(buffer) - len(tail) + 1
                    break
        skipped = start - position
        if items and isinstance(items[-1], Garbled):
            before = items.pop()
            assert isinstance(before, Garbled)
            reason, skipped = before.reason, before.size + skipped
        items.append(Garbled(reason, skipped))
        return start


def _could_be_head(data: bytes) -> bool:
    """Whether more bytes could make this the start of a header."""
    return _PARTIAL_HEAD.fullmatch(data) is not None


_PARTIAL_HEAD = re.compile(rb"8?|8=[^\x01=]{0,16}|8=[^\x01=]{1,16}\x019?|8=[^\x01=]{1,16}\x019=\d{0,9}", re.ASCII)
