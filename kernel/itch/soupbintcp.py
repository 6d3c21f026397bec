"""SoupBinTCP 3.00: packets of a 16-bit length, a type and a payload over TCP, for a channel that begins with a login.

The client says L (login), R (heartbeat, if it said nothing else for a second), O (logout); the server A (accepted), J (rejected),
S (sequenced data: the next message), H (heartbeat), Z (end of session). Either side may say + (debug), which means nothing.
Numbers are ASCII, padded on the left with spaces. Who hears nothing for 15 seconds may close the connection.
"""

import struct
from enum import StrEnum, unique
from typing import Final, NamedTuple

from kernel.itch.errors import MalformedError
from kernel.itch.layout import ascii_field, ascii_text

HEARTBEAT_SECONDS: Final = 1.0
SILENCE_SECONDS_MAX: Final = 15.0
PAYLOAD_BYTES_MAX: Final = 0xFFFF - 1
_LENGTH = struct.Struct(">H")
_USERNAME, _PASSWORD, _SESSION, _NUMBER = 6, 10, 10, 20


@unique
class PacketType(StrEnum):
    """What a packet is."""

    DEBUG = "+"
    LOGIN_ACCEPTED = "A"
    LOGIN_REJECTED = "J"
    SEQUENCED_DATA = "S"
    SERVER_HEARTBEAT = "H"
    END_OF_SESSION = "Z"
    LOGIN_REQUEST = "L"
    UNSEQUENCED_DATA = "U"
    CLIENT_HEARTBEAT = "R"
    LOGOUT_REQUEST = "O"


@unique
class LoginRefusal(StrEnum):
    """Why a login was rejected."""

    NOT_AUTHORISED = "A"
    SESSION_NOT_AVAILABLE = "S"


class SoupPacket(NamedTuple):
    """One packet."""

    packet_type: PacketType
    payload: bytes


class LoginRequest(NamedTuple):
    """L. An empty `session` asks for the current one; sequence 0 for the newest message on, 1 for all."""

    username: str
    password: str
    session: str = ""
    sequence: int = 1


class LoginAccepted(NamedTuple):
    """A: the session, and the number of the first sequenced message that will follow."""

    session: str
    sequence: int


def encode(packet_type: PacketType, payload: bytes = b"") -> bytes:
    """Return a packet.

    Raises:
        MalformedError: more than 65,534 bytes of payload.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise MalformedError("soupbintcp payload", f"at most {PAYLOAD_BYTES_MAX} bytes fit, not {len(payload)}")
    return b"%b%b%b" % (_LENGTH.pack(len(payload) + 1), packet_type.value.encode(), payload)


def _left_padded(value: str, size: int, subject: str) -> bytes:
    return ascii_field(value, size, subject).rstrip(b" ").rjust(size)


def _number_field(value: int, subject: str) -> bytes:
    if value < 0:
        raise MalformedError(subject, f"a number that is not negative is required, not {value}")
    return _left_padded(str(value), _NUMBER, subject)


def number_of(raw: bytes, subject: str) -> int:
    """Return the number in a field of ASCII digits, padded on the left with spaces.

    Raises:
        MalformedError: anything but digits.
    """
    digits = raw.strip(b" ")
    if not digits.isdigit():
        raise MalformedError(subject, f"digits are required, not {digits[:32]!r}")
    return int(digits)


def encode_login(login: LoginRequest) -> bytes:
    """Return a login request's packet.

    Raises:
        MalformedError: a field that is longer than its place: 6 characters for the name, 10 for password and session.
    """
    payload = b"".join(
        (
            ascii_field(login.username, _USERNAME, "soupbintcp username"),
            ascii_field(login.password, _PASSWORD, "soupbintcp password"),
            _left_padded(login.session, _SESSION, "soupbintcp session"),
            _number_field(login.sequence, "soupbintcp sequence"),
        )
    )
    return encode(PacketType.LOGIN_REQUEST, payload)


def decode_login(payload: bytes) -> LoginRequest:
    """Return the login request of a packet of type L.

    Raises:
        MalformedError: another size, or a field that is not what it must be.
    """
    fields = _fields(payload, (_USERNAME, _PASSWORD, _SESSION, _NUMBER), "soupbintcp login request")
    username, password, session = (ascii_text(field, "soupbintcp login request").strip() for field in fields[:3])
    # An empty number asks for the newest, as 0 does.
    return LoginRequest(username, password, session, number_of(fields[3].strip(b" ") or b"0", "soupbintcp sequence"))


def encode_accepted(accepted: LoginAccepted) -> bytes:
    """Return a login's acceptance.

    Raises:
        MalformedError: a session or number that does not fit.
    """
    session = _left_padded(accepted.session, _SESSION, "soupbintcp session")
    return encode(PacketType.LOGIN_ACCEPTED, session + _number_field(accepted.sequence, "soupbintcp sequence"))


def decode_accepted(payload: bytes) -> LoginAccepted:
    """Return the acceptance of a packet of type A.

    Raises:
        MalformedError: another size, or a number that is none.
    """
    session, number = _fields(payload, (_SESSION, _NUMBER), "soupbintcp login accepted")
    return LoginAccepted(ascii_text(session, "soupbintcp session").strip(), number_of(number, "soupbintcp sequence"))


def encode_refusal(refusal: LoginRefusal) -> bytes:
    """Return a login's rejection; the server closes after it."""
    return encode(PacketType.LOGIN_REJECTED, refusal.value.encode())


def decode_refusal(payload: bytes) -> LoginRefusal:
    """Return the reason of a packet of type J.

    Raises:
        MalformedError: a reason that SoupBinTCP 3.00 does not have.
    """
    for refusal in LoginRefusal:
        if payload == refusal.value.encode():
            return refusal
    raise MalformedError("soupbintcp login rejected", f"reason A or S is required, not {payload[:16]!r}")


def _fields(payload: bytes, sizes: tuple[int, ...], subject: str) -> list[bytes]:
    if len(payload) != sum(sizes):
        raise MalformedError(subject, f"{sum(sizes)} bytes are required, not {len(payload)}")
    fields, offset = [], 0
    for size in sizes:
        fields.append(payload[offset : offset + size])
        offset += size
    return fields


class PacketReader:
    """Cuts a TCP stream into packets. It keeps at most one packet's bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[SoupPacket]:
        """Return the packets that `data` completes.

        Raises:
            MalformedError: a length of 0 or a type that SoupBinTCP 3.00 does not have; the stream cannot be read on.
        """
        buffer = self._buffer
        buffer += data
        packets: list[SoupPacket] = []
        offset = 0
        while len(buffer) - offset >= 2:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if length == 0:
                raise MalformedError("soupbintcp length", "a packet has a type at least")
            end = offset + 2 + length
            if end > len(buffer):
                break
            packets.append(SoupPacket(_type_of(buffer[offset + 2]), bytes(buffer[offset + 3 : end])))
            offset = end
        del buffer[:offset]
        return packets


_TYPES = {ord(packet_type.value): packet_type for packet_type in PacketType}


def _type_of(code: int) -> PacketType:
    packet_type = _TYPES.get(code)
    if packet_type is None:
        raise MalformedError("soupbintcp packet type", f"{bytes((code,))!r} is none")
    return packet_type
