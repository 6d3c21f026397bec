"""MoldUDP64 1.00: messages with sequence numbers in UDP packets, and requests for those that were lost.

A downstream packet is a header of 20 bytes (session, 10 ASCII characters; sequence number of its first message, 64 bits; count of
messages, 16 bits) and that many blocks of a 16-bit length and its bytes. A count of 0 is a heartbeat, whose number is that of the
next message; 0xFFFF is the end of the session. A request packet is a header alone.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from kernel.itch.errors import MalformedError
from kernel.itch.layout import ascii_field, ascii_text

HEADER_BYTES: Final = 20
SESSION_CHARACTERS: Final = 10
HEARTBEAT_COUNT: Final = 0
END_OF_SESSION_COUNT: Final = 0xFFFF
MESSAGES_MAX: Final = END_OF_SESSION_COUNT - 1
# A packet that no Ethernet fragments: 1,500 less the headers of IPv6 and UDP, and room for a VLAN tag or a tunnel.
PAYLOAD_BYTES_MAX: Final = 1_400
# What IPv4 lets a UDP packet carry.
DATAGRAM_BYTES_MAX: Final = 65_507
SEQUENCE_MAX: Final = 2**64 - 1
_HEADER = struct.Struct(">10sQH")
_LENGTH = struct.Struct(">H")


class Packet(NamedTuple):
    """A downstream packet; `sequence` is the first message's number, or the next one's if there is none."""

    session: str
    sequence: int
    messages: tuple[bytes, ...]
    is_end_of_session: bool = False

    @property
    def next_sequence(self) -> int:
        """The number after the packet's last message."""
        return self.sequence + len(self.messages)


class Request(NamedTuple):
    """A request for `message_count` messages from `sequence` on."""

    session: str
    sequence: int
    message_count: int


def _header(session: str, sequence: int, count: int) -> bytes:
    if not 0 <= sequence <= SEQUENCE_MAX:
        raise MalformedError("moldudp64 sequence", f"an integer of 64 bits is required, not {sequence}")
    return _HEADER.pack(ascii_field(session, SESSION_CHARACTERS, "moldudp64 session"), sequence, count)


def encode_packet(session: str, sequence: int, messages: Sequence[bytes]) -> bytes:
    """Return a downstream packet; without messages, a heartbeat.

    Raises:
        MalformedError: too many messages or bytes, an empty or too long message, or a session that does not fit.
    """
    if len(messages) > MESSAGES_MAX:
        raise MalformedError("moldudp64 count", f"at most {MESSAGES_MAX} messages fit, not {len(messages)}")
    parts = [_header(session, sequence, len(messages))]
    for message in messages:
        if not 0 < len(message) <= 0xFFFF:
            raise MalformedError("moldudp64 block", f"1 to 65535 bytes are required, not {len(message)}")
        parts += (_LENGTH.pack(len(message)), message)
    data = b"".join(parts)
    if len(data) > DATAGRAM_BYTES_MAX:
        raise MalformedError("moldudp64 packet", f"at most {DATAGRAM_BYTES_MAX} bytes fit a datagram, not {len(data)}")
    return data


def encode_heartbeat(session: str, next_sequence: int) -> bytes:
    """Return a heartbeat: nothing to say, and the next message will have this number."""
    return _header(session, next_sequence, HEARTBEAT_COUNT)


def encode_end_of_session(session: str, next_sequence: int) -> bytes:
    """Return an end of session: the message with this number will never come."""
    return _header(session, next_sequence, END_OF_SESSION_COUNT)


def encode_request(request: Request) -> bytes:
    """Return a request packet.

    Raises:
        MalformedError: a count outside 1 to 65534, or a session or number that does not fit.
    """
    if not 0 < request.message_count <= MESSAGES_MAX:
        raise MalformedError("moldudp64 request count", f"1 to {MESSAGES_MAX} are required, not {request.message_count}")
    return _header(request.session, request.sequence, request.message_count)


def _decode_header(data: bytes) -> tuple[str, int, int]:
    if len(data) < HEADER_BYTES:
        raise MalformedError("moldudp64 header", f"{HEADER_BYTES} bytes are required, not {len(data)}")
    session, sequence, count = _HEADER.unpack_from(data)
    return ascii_text(session, "moldudp64 session"), sequence, count


def decode_packet(data: bytes) -> Packet:
    """Return the downstream packet in a datagram.

    Raises:
        MalformedError: too short, a block that is empty or beyond the end, bytes after the last block, or numbers beyond 64 bits.
    """
    session, sequence, count = _decode_header(data)
    if count in (HEARTBEAT_COUNT, END_OF_SESSION_COUNT):
        if len(data) != HEADER_BYTES:
            raise MalformedError("moldudp64 packet", f"{len(data) - HEADER_BYTES} bytes follow a header without messages")
        return Packet(session, sequence, (), count == END_OF_SESSION_COUNT)
    if sequence == 0 or sequence + count > SEQUENCE_MAX:
        raise MalformedError("moldudp64 sequence", f"{count} messages cannot begin at {sequence}")
    return Packet(session, sequence, tuple(_blocks(data, count)))


def _blocks(data: bytes, count: int) -> Iterator[bytes]:
    offset, end = HEADER_BYTES, len(data)
    for number in range(count):
        begin = offset + 2
        if begin > end:
            raise MalformedError(f"moldudp64 block {number}", f"the packet ends before it: {count} were announced")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset = begin + length
        if length == 0 or offset > end:
            raise MalformedError(f"moldudp64 block {number}", f"a length of {length} with {end - begin} bytes left")
        yield data[begin:offset]
    if offset != end:
        raise MalformedError("moldudp64 packet", f"{end - offset} bytes follow the last block")


def decode_request(data: bytes) -> Request:
    """Return the request in a datagram.

    Raises:
        MalformedError: another size, or a count of 0 or 0xFFFF.
    """
    if len(data) != HEADER_BYTES:
        raise MalformedError("moldudp64 request", f"{HEADER_BYTES} bytes are required, not {len(data)}")
    session, sequence, count = _decode_header(data)
    if not 0 < count <= MESSAGES_MAX:
        raise MalformedError("moldudp64 request count", f"1 to {MESSAGES_MAX} are required, not {count}")
    return Request(session, sequence, count)


def split(messages: Sequence[bytes], payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> Iterator[list[bytes]]:
    """Yield the messages in runs that each fit one packet of at most `payload_bytes_max` bytes, header included."""
    run: list[bytes] = []
    size = HEADER_BYTES
    for message in messages:
        needed = len(message) + 2
        if run and (size + needed > payload_bytes_max or len(run) == MESSAGES_MAX):
            yield run
            run, size = [], HEADER_BYTES
        run.append(message)
        size += needed
    if run:
        yield run
