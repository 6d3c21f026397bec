"""What an arbiter tells its driver, and what bounds it."""

from dataclasses import dataclass

from kernel.itch.errors import MalformedError
from kernel.itch.moldudp64 import Request


@dataclass(frozen=True, slots=True)
class ArbiterLimits:
    """Bounds of arbitration and recovery; times in seconds of the driver's monotonic clock.

    Attributes:
        hold_packets_max, hold_seconds: how much may arrive beyond a gap, and how long, before the other line is given up.
        request_messages_max: a larger gap goes to the snapshot at once.
        request_timeout_seconds, request_attempts: requests that bring nothing, and then the snapshot.
        snapshot_timeout_seconds: without a snapshot for so long the gap is declared.
        recovery_packets_max: packets kept beyond a gap while it is recovered; more are dropped and found missing later.
        line_silence_seconds: a line that says nothing for so long is lost; heartbeats come twice a second.
        line_return_packets: so many packets make a lost line good again.
    """

    hold_packets_max: int = 256
    hold_seconds: float = 0.002
    request_messages_max: int = 20_000
    request_timeout_seconds: float = 0.05
    request_attempts: int = 5
    snapshot_timeout_seconds: float = 5.0
    recovery_packets_max: int = 65_536
    line_silence_seconds: float = 1.5
    line_return_packets: int = 3


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """Another MoldUDP64 session: everything known of the one before is void, its books too. Its first message has number 1."""

    session: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """Messages in order, `sequence` being the first one's number."""

    session: str
    sequence: int
    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RequestNeeded:
    """Send `encode_request(request)` to a re-request server; give what it answers to `receive`."""

    request: Request


@dataclass(frozen=True, slots=True)
class SnapshotNeeded:
    """Fetch a snapshot and give it to `snapshot`, or say `snapshot_failed`. Everything before `next_sequence` is known."""

    session: str
    next_sequence: int


@dataclass(frozen=True, slots=True)
class SnapshotAccepted:
    """Replace all books by the snapshot's now. Messages `first` to `last` were never seen: its state has them, the tape does not.

    `last` is `first - 1` if nothing was missed.
    """

    session: str
    next_sequence: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class GapDeclared:
    """Messages `first` to `last` are lost for good: every book is doubtful until a session begins or a snapshot is accepted."""

    session: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Everything of the session was delivered or declared lost."""

    session: str
    next_sequence: int


@dataclass(frozen=True, slots=True)
class PacketRefused:
    """A datagram that is no MoldUDP64 packet."""

    line: str
    error: MalformedError


@dataclass(frozen=True, slots=True)
class LineLost:
    """Nothing came on the line for `line_silence_seconds`."""

    line: str


@dataclass(frozen=True, slots=True)
class LineFound:
    """A lost line speaks again, or a line speaks for the first time."""

    line: str


ArbiterStep = (
    SessionBegan | Delivered | RequestNeeded | SnapshotNeeded | SnapshotAccepted | GapDeclared | SessionEnded | PacketRefused
    | LineLost | LineFound
)  # fmt: skip


@dataclass(slots=True)
class ArbiterCounts:
    """What happened since the start; all only grow."""

    delivered_messages: int = 0
    duplicate_packets: int = 0
    stale_packets: int = 0
    malformed_packets: int = 0
    dropped_packets: int = 0
    gaps_seen: int = 0
    requests: int = 0
    snapshots: int = 0
    lost_messages: int = 0
