"""What goes into a FIX session and what comes out of it: plain values, so that sequence numbers can live in any store.

A `Step` is everything that one input led to. The driver carries it out in this order, and nothing else is correct:

1. in ONE transaction: if `reset`, delete the session's stored messages; commit what `delivered` means to the application, and what
   was `refused` where that may be a fact (reports); insert `stored`; set `next_in` and `next_out` from `sequences`;
2. only then write `writes` to the socket, in order;
3. if `resend` is set: load the stored messages of that range and call `Session.resend`;
4. if `disconnect` is set: close the socket.

If step 1 fails, the session object is ahead of the store: close the socket, drop the object, start again from the store.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from kernel.fix import tags
from kernel.fix.message import Body, Message

_COMP_ID = re.compile(r"[!-<>-~]([ -<>-~]{0,62}[!-<>-~])?", re.ASCII)


class Now(NamedTuple):
    """The time of an input. `utc` stamps and checks SendingTime; `monotonic_seconds` drives the timers."""

    utc: datetime
    monotonic_seconds: float


class Role(Enum):
    """Who opens the connection and sends the first Logon."""

    INITIATOR = "initiator"
    ACCEPTOR = "acceptor"


class Phase(Enum):
    """Where a session stands on its current connection."""

    DISCONNECTED = "disconnected"
    AWAITING_LOGON = "awaiting logon"
    """Connected: the acceptor waits for the first Logon, the initiator for the answer to its own."""
    ACTIVE = "active"
    LOGOUT_SENT = "logout sent"
    """Reads on until the peer's Logout, or `logout_timeout_seconds`."""
    CLOSING = "closing"
    """`Step.disconnect` was given; whatever comes in is ignored."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """One FIX 4.4 session as this side sees it. Times in seconds, bounds inclusive. Raises ValueError, naming the field, for a bad one."""

    role: Role
    sender: str
    """Our CompID: 49 of what we send, 56 of what we read."""
    target: str
    """The peer's CompID."""
    app_types: frozenset[str]
    """Application messages that this side handles; any other is answered with 35=j, 380=3. `3` and `j` are always delivered."""
    heartbeat_seconds: int = 30
    """108 that the initiator proposes; the acceptor takes the initiator's. 0 turns heartbeats off."""
    heartbeat_seconds_max: int = 300
    """A Logon with a 108 above this, or below 0, is closed."""
    sender_sub_id: str = ""
    target_sub_id: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    sending_time_tolerance_seconds: float = 120.0
    logon_timeout_seconds: float = 10.0
    logout_timeout_seconds: float = 5.0
    resend_timeout_seconds: float = 10.0
    """A gap that made no progress for this long is requested again, three times; then the session disconnects."""
    queue_max: int = 10_000
    """Messages kept from beyond a gap. Those above it are dropped: the open-ended ResendRequest brings them again."""
    queue_bytes_max: int = 8 * 1024 * 1024
    """Their size as they came, at most; again, those above it are dropped."""
    accept_reset: bool = False
    """Whether a Logon with ResetSeqNumFlag (141=Y) from the peer is honoured. A reset hides lost messages: a venue
    may allow it to its members, an initiator that must not lose a fill does not."""
    user_defined_tags: bool = True
    """Whether tags from 5000 on are accepted without a definition."""
    begin_string: str = tags.BEGIN_STRING

    def __post_init__(self) -> None:
        for name, text in (("sender", self.sender), ("target", self.target)):
            if _COMP_ID.fullmatch(text) is None:
                raise ValueError(f"{name}: must be 1 to 64 printable ASCII characters without '='")
        if self.sender == self.target:
            raise ValueError("target: must differ from sender")
        if not 0 <= self.heartbeat_seconds <= self.heartbeat_seconds_max:
            raise ValueError("heartbeat_seconds: must be from 0 to heartbeat_seconds_max")


@dataclass(frozen=True, slots=True)
class Sequences:
    """The durable state of a session: the next MsgSeqNum expected and the next to be sent, both from 1."""

    next_in: int = 1
    next_out: int = 1


class AppMessage(NamedTuple):
    """An application message to be sent. `reference` is the caller's (an order id): stored beside it, never sent."""

    msg_type: str
    body: Body
    reference: str = ""


class StoredMessage(NamedTuple):
    """An application message that was given a sequence number. `body` is encoded, without header; `sent_time` is its 52."""

    sequence: int
    msg_type: str
    body: bytes
    sent_time: str
    reference: str = ""


class Delivery(NamedTuple):
    """A message for the application: each sequence number at most once, in order.

    `poss_dup` says that it was resent (43=Y); it is new to this side all the same. `poss_resend` (97=Y) says that the peer may
    have sent its content before under another number: the application looks for its business key.
    """

    message: Message
    sequence: int
    poss_dup: bool = False
    poss_resend: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A message for the application that was refused although its number counts as received: nobody will send it again.

    It may have been a fill. `problem` is for whoever looks at it.
    """

    message: Message
    sequence: int
    problem: str


@dataclass(frozen=True, slots=True)
class ResendRange:
    """Sequence numbers to resend, both inclusive."""

    begin: int
    end: int


class NoticeKind(Enum):
    """What a notice is about."""

    LOGGED_ON = "logged on"
    GARBLED = "garbled"
    GAP = "gap"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    PEER_LOGOUT = "peer logout"
    RESENT = "resent"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something for the log: no action follows from it."""

    kind: NoticeKind
    text: str


@dataclass(slots=True)
class Step:
    """Everything that one input led to; see the module's text for the order in which it is carried out."""

    sequences: Sequences = Sequences()
    delivered: list[Delivery] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    stored: list[StoredMessage] = field(default_factory=list)
    writes: list[bytes] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    resend: ResendRange | None = None
    disconnect: str | None = None
    """Why to close the connection, for the log."""
    reset: bool = False

    @property
    def data(self) -> bytes:
        """All writes as one."""
        return b"".join(self.writes)
