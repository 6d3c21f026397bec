"""What a re-request server answers from: the packets of a session, the oldest forgotten beyond a bound."""

from bisect import bisect_right
from collections.abc import Iterator

from kernel.itch.moldudp64 import Request, decode_packet, encode_packet

# One request is answered with so many packets at most; a receiver that misses more asks again.
ANSWER_PACKETS_MAX = 64


class PacketStore:
    """Packets of one session in the order of their numbers; numbers may be missing where a fault lost a packet.

    Args:
        bytes_max: how much is kept.
    """

    def __init__(self, session: str, bytes_max: int) -> None:
        self.session = session
        self._bytes_max = bytes_max
        self._bytes = 0
        self._firsts: list[int] = []
        self._packets: list[bytes] = []
        self._forgotten = 0

    def add(self, sequence: int, packet: bytes) -> None:
        """Keep a packet; `sequence` is its first message's number and grows from call to call."""
        self._firsts.append(sequence)
        self._packets.append(packet)
        self._bytes += len(packet)
        while self._bytes > self._bytes_max and self._forgotten < len(self._packets) - 1:
            self._bytes -= len(self._packets[self._forgotten])
            self._packets[self._forgotten] = b""
            self._forgotten += 1
        # In slices: the front of a list is slow to lose.
        if self._forgotten > max(1_024, len(self._packets) // 2):
            del self._firsts[: self._forgotten], self._packets[: self._forgotten]
            self._forgotten = 0

    def answer(self, request: Request) -> Iterator[bytes]:
        """Yield packets with what is here of the messages asked for, in order, at most `ANSWER_PACKETS_MAX`."""
        end = request.sequence + request.message_count
        begin = max(bisect_right(self._firsts, request.sequence) - 1, self._forgotten)
        for position in range(begin, min(begin + ANSWER_PACKETS_MAX, len(self._firsts))):
            first = self._firsts[position]
            if first >= end:
                return
            packet = self._packets[position]
            messages = decode_packet(packet).messages
            kept = messages[max(request.sequence - first, 0) : end - first]
            if len(kept) == len(messages):
                yield packet
            elif kept:
                yield encode_packet(self.session, max(first, request.sequence), kept)
