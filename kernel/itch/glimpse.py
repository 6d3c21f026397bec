"""The snapshot channel, after Nasdaq GLIMPSE 5.0: ITCH messages over SoupBinTCP, then the number to go on from.

The Login Accepted packet names the MoldUDP64 session that the number belongs to. One snapshot per connection.
"""

from typing import Final, NamedTuple

from kernel.itch import soupbintcp
from kernel.itch.errors import MalformedError
from kernel.itch.soupbintcp import LoginRequest, PacketReader, PacketType

END_OF_SNAPSHOT: Final = b"G"
_DIGITS = 20


class Snapshot(NamedTuple):
    """The state before message `next_sequence` of `session`, as ITCH messages: frames, closes, and orders in the order of their queues."""

    session: str
    next_sequence: int
    messages: tuple[bytes, ...]


class SnapshotError(ValueError):
    """The server refused, or ended early; whoever asked may ask again."""


def encode_end(next_sequence: int) -> bytes:
    """Return G, End of Snapshot: the feed's message to go on from."""
    return END_OF_SNAPSHOT + str(next_sequence).rjust(_DIGITS).encode()


def decode_end(message: bytes) -> int:
    """Return the sequence number of an End of Snapshot.

    Raises:
        MalformedError: another size, type, or no number.
    """
    if len(message) != 1 + _DIGITS or message[:1] != END_OF_SNAPSHOT:
        raise MalformedError("glimpse G", f"{1 + _DIGITS} bytes that begin with G are required, not {message[:32]!r}")
    return soupbintcp.number_of(message[1:], "glimpse G.sequence")


class SnapshotReader:
    """The client's side without I/O: send `greeting`, feed what comes until it returns a snapshot, then close.

    Args:
        messages_max: more than this ends it with a SnapshotError.
    """

    def __init__(self, username: str = "", password: str = "", messages_max: int = 5_000_000) -> None:
        self.greeting = soupbintcp.encode_login(LoginRequest(username, password))
        self.heartbeat = soupbintcp.encode(PacketType.CLIENT_HEARTBEAT)
        self._reader = PacketReader()
        self._messages_max = messages_max
        self._messages: list[bytes] = []
        self._session: str | None = None

    def feed(self, data: bytes) -> Snapshot | None:
        """Return the snapshot once it is complete.

        Raises:
            MalformedError: bytes that are no SoupBinTCP or no GLIMPSE.
            SnapshotError: the login was refused, or the session ended before the snapshot did.
        """
        for packet_type, payload in self._reader.feed(data):
            match packet_type:
                case PacketType.LOGIN_ACCEPTED:
                    self._session = soupbintcp.decode_accepted(payload).session
                case PacketType.LOGIN_REJECTED:
                    raise SnapshotError(f"the login was refused: {soupbintcp.decode_refusal(payload).name}")
                case PacketType.END_OF_SESSION:
                    raise SnapshotError("the session ended before the snapshot did")
                case PacketType.SEQUENCED_DATA:
                    if self._session is None:
                        raise SnapshotError("data before the login was accepted")
                    if payload[:1] == END_OF_SNAPSHOT:
                        return Snapshot(self._session, decode_end(payload), tuple(self._messages))
                    if len(self._messages) >= self._messages_max:
                        raise SnapshotError(f"more than {self._messages_max} messages")
                    self._messages.append(payload)
                case _:
                    pass
        return None
