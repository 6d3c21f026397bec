"""One stream out of two lines: in order, each message once, and a ladder for what both lines lost. No I/O, no clock.

    arbiter = Arbiter(("A", "B"))
    steps = arbiter.receive("A", datagram, now)      # any line, and answers of the re-request server under any other name
    steps = arbiter.tick(now)                        # no later than arbiter.next_deadline()
    steps = arbiter.snapshot("2611220001", 4711, now)      # after SnapshotNeeded; or arbiter.snapshot_failed(now)

The ladder: the other line, within `hold_seconds` and `hold_packets_max` → a re-request → a snapshot → a declared gap. What comes
beyond the gap is held meanwhile. A session is newer if its name sorts after; packets of older ones are dropped, so a line that lags
behind a restart cannot turn the stream back.

Packets are believed: give it only datagrams of sources that are allowed. A number far beyond all others costs snapshots, no more.
"""

from collections.abc import Iterable
from enum import Enum, auto
from heapq import heapify, heappop, heappush

from kernel.itch.errors import MalformedError
from kernel.itch.lines import LineWatch
from kernel.itch.moldudp64 import MESSAGES_MAX, Packet, Request, decode_packet
from kernel.itch.steps import (
    ArbiterCounts,
    ArbiterLimits,
    ArbiterStep,
    Delivered,
    GapDeclared,
    PacketRefused,
    RequestNeeded,
    SessionBegan,
    SessionEnded,
    SnapshotAccepted,
    SnapshotNeeded,
)  # fmt: skip


class _Rung(Enum):
    """Where the ladder stands."""

    NONE = auto()
    HOLDING = auto()
    REQUESTING = auto()
    AWAITING_SNAPSHOT = auto()


class Arbiter:
    """Not thread-safe; times are seconds of one monotonic clock.

    Args:
        lines: the names of the lines to watch.
        session, next_sequence: where an earlier run stopped; without them, the first session heard, from its number 1.
    """

    def __init__(
        self, lines: Iterable[str] = ("A", "B"), limits: ArbiterLimits | None = None, *, session: str = "", next_sequence: int = 1
    ) -> None:
        self._limits = limits or ArbiterLimits()
        self.lines = LineWatch(lines, self._limits)
        self.counts = ArbiterCounts()
        self.session = session
        self.next_sequence = next_sequence
        self._known_end = next_sequence  # the highest number known to be the next one
        self._session_end: int | None = None
        self._has_ended = False
        self._held: dict[int, Packet] = {}
        self._numbers: list[int] = []  # a heap of the held packets' first numbers
        self._rung = _Rung.NONE
        self._deadline = 0.0
        self._attempts = 0
        self._requested_from = 0
        self._requested_end = 0

    @property
    def is_recovering(self) -> bool:
        """Whether messages are missing that the other line did not bring in time."""
        return self._rung in (_Rung.REQUESTING, _Rung.AWAITING_SNAPSHOT)

    @property
    def held_packets(self) -> int:
        """How many packets wait beyond a gap, at most `recovery_packets_max`."""
        return len(self._held)

    def next_deadline(self) -> float | None:
        """Return when `tick` must be called at the latest, or None while nothing is due."""
        ladder = None if self._rung is _Rung.NONE else self._deadline
        return min((due for due in (ladder, self.lines.next_deadline()) if due is not None), default=None)

    def receive(self, line: str, data: bytes, now: float) -> list[ArbiterStep]:
        """Take a datagram."""
        try:
            packet = decode_packet(data)
        except MalformedError as error:
            self.counts.malformed_packets += 1
            return [PacketRefused(line, error)]
        steps = self.lines.heard(line, now)
        if packet.session != self.session:
            if packet.session < self.session:
                self.counts.stale_packets += 1
                return steps
            self._begin(packet.session, steps)
        self._take(packet, steps)
        self._climb(steps, now)
        return steps

    def tick(self, now: float) -> list[ArbiterStep]:
        """Do what is due by time."""
        steps = self.lines.silent(now)
        self._climb(steps, now)
        return steps

    def snapshot(self, session: str, next_sequence: int, now: float) -> list[ArbiterStep]:
        """Offer a snapshot's position. The books are replaced only if SnapshotAccepted is among the steps.

        One of an older session or from before `next_sequence` is not accepted: what was delivered is further.
        """
        steps: list[ArbiterStep] = []
        if session < self.session or (session == self.session and next_sequence < self.next_sequence):
            if self._rung is _Rung.AWAITING_SNAPSHOT:
                self._rung, self._deadline = _Rung.HOLDING, now
            self._climb(steps, now)
            return steps
        if session != self.session:
            self._begin(session, steps)
        first, self.next_sequence = self.next_sequence, next_sequence
        self._believe(next_sequence)
        self.counts.snapshots += 1
        steps.append(SnapshotAccepted(session, next_sequence, first, next_sequence - 1))
        self._rung = _Rung.NONE
        self._drain(steps)
        self._climb(steps, now)
        return steps

    def _believe(self, next_sequence: int) -> None:
        """The venue says where it is: what claims to be far beyond that is dropped, and found missing later if it was true."""
        believable = [number for number in self._numbers if number <= next_sequence + self._limits.request_messages_max]
        self.counts.dropped_packets += len(self._numbers) - len(believable)
        self._held = {number: self._held[number] for number in believable}
        self._numbers = believable
        heapify(self._numbers)
        self._known_end = max((packet.next_sequence for packet in self._held.values()), default=next_sequence)
        self._known_end = max(self._known_end, next_sequence)

    def snapshot_failed(self, now: float) -> list[ArbiterStep]:
        """No snapshot can be had: declare the gap and go on behind it."""
        steps: list[ArbiterStep] = []
        if self._rung is _Rung.AWAITING_SNAPSHOT:
            self._declare(steps)
            self._climb(steps, now)
        return steps

    def _begin(self, session: str, steps: list[ArbiterStep]) -> None:
        while self.session and self.next_sequence < self._known_end:
            self._declare(steps)
        self.session, self.next_sequence, self._known_end = session, 1, 1
        self._session_end, self._has_ended = None, False
        self._held.clear()
        self._numbers.clear()
        self._rung = _Rung.NONE
        steps.append(SessionBegan(session))

    def _take(self, packet: Packet, steps: list[ArbiterStep]) -> None:
        if packet.is_end_of_session:
            self._session_end = packet.sequence
        end = packet.next_sequence
        self._known_end = max(self._known_end, end)
        if not packet.messages:
            return
        if end <= self.next_sequence:
            self.counts.duplicate_packets += 1
        elif packet.sequence <= self.next_sequence:
            self._deliver(packet, steps)
            self._drain(steps)
        else:
            self._hold(packet)

    def _hold(self, packet: Packet) -> None:
        known = self._held.get(packet.sequence)
        if known is not None:
            self.counts.duplicate_packets += 1
            if len(packet.messages) > len(known.messages):
                self._held[packet.sequence] = packet
        elif len(self._held) >= self._limits.recovery_packets_max:
            self.counts.dropped_packets += 1
        else:
            self._held[packet.sequence] = packet
            heappush(self._numbers, packet.sequence)

    def _deliver(self, packet: Packet, steps: list[ArbiterStep]) -> None:
        messages = packet.messages[self.next_sequence - packet.sequence :]
        steps.append(Delivered(self.session, self.next_sequence, messages))
        self.next_sequence += len(messages)
        self.counts.delivered_messages += len(messages)

    def _drain(self, steps: list[ArbiterStep]) -> None:
        while self._numbers and self._numbers[0] <= self.next_sequence:
            packet = self._held.pop(heappop(self._numbers))
            if packet.next_sequence > self.next_sequence:
                self._deliver(packet, steps)

    def _missing_end(self) -> int:
        return self._numbers[0] if self._numbers else self._known_end

    def _declare(self, steps: list[ArbiterStep]) -> None:
        end = self._missing_end()
        assert end > self.next_sequence, "only what is missing is declared lost"
        steps.append(GapDeclared(self.session, self.next_sequence, end - 1))
        self.counts.lost_messages += end - self.next_sequence
        self.next_sequence = end
        self._rung = _Rung.NONE
        self._drain(steps)

    def _climb(self, steps: list[ArbiterStep], now: float) -> None:
        """Go up the ladder as far as time and held packets demand, or leave it if nothing is missing."""
        if self.next_sequence >= self._known_end:
            self._rung = _Rung.NONE
            self._end(steps)
            return
        if self._rung is _Rung.REQUESTING and self.next_sequence >= self._requested_end:
            self._rung = _Rung.NONE  # what was asked for is here; this is another gap
        if self._rung is _Rung.NONE:
            self._rung, self._deadline = _Rung.HOLDING, now + self._limits.hold_seconds
            self.counts.gaps_seen += 1
        if self._rung is _Rung.HOLDING and (now >= self._deadline or len(self._held) >= self._limits.hold_packets_max):
            self._attempts = 0
            self._request(steps, now)
        elif self._rung is _Rung.REQUESTING and now >= self._deadline:
            if self.next_sequence > self._requested_from:
                self._attempts = 0
            self._request(steps, now)
        elif self._rung is _Rung.AWAITING_SNAPSHOT and now >= self._deadline:
            self._declare(steps)
            self._climb(steps, now)

    def _request(self, steps: list[ArbiterStep], now: float) -> None:
        missing = self._missing_end() - self.next_sequence
        if missing > self._limits.request_messages_max or self._attempts >= self._limits.request_attempts:
            self._rung, self._deadline = _Rung.AWAITING_SNAPSHOT, now + self._limits.snapshot_timeout_seconds
            steps.append(SnapshotNeeded(self.session, self.next_sequence))
            return
        self._rung, self._deadline = _Rung.REQUESTING, now + self._limits.request_timeout_seconds
        self._attempts += 1
        self.counts.requests += 1
        self._requested_from, self._requested_end = self.next_sequence, self.next_sequence + missing
        steps.append(RequestNeeded(Request(self.session, self.next_sequence, min(missing, MESSAGES_MAX))))

    def _end(self, steps: list[ArbiterStep]) -> None:
        if self._session_end is not None and self.next_sequence >= self._session_end and not self._has_ended:
            self._has_ended = True
            steps.append(SessionEnded(self.session, self.next_sequence))
