"""Two FIX sessions, their stores, and a connection between them that can lose, damage and cut: one process, no time but its own."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kernel.fix import tags
from kernel.fix.codec import MessageReader
from kernel.fix.session import Session
from kernel.fix.steps import AppMessage, Now, Phase, Role, Sequences, SessionConfig, Step, StoredMessage

START = datetime(2026, 8, 3, 9, 30, tzinfo=UTC)
MESSAGE_BYTES_MAX = 300
"""No message of these conversations is longer."""


@dataclass
class Store:
    """What survives a crash: one transaction per step."""

    sequences: Sequences = field(default_factory=Sequences)
    sent: dict[int, StoredMessage] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)

    def commit(self, step: Step) -> None:
        assert not step.reset
        self.sequences = step.sequences
        for message in step.stored:
            assert message.sequence not in self.sent, "a number was used twice"
            self.sent[message.sequence] = message
        for delivery in step.delivered:
            if delivery.message.msg_type not in (tags.REJECT, tags.BUSINESS_MESSAGE_REJECT):
                self.received.append(delivery.message.require(tags.CL_ORD_ID))


class Side:
    """One end: a driver as `kernel.fix.steps` demands it."""

    def __init__(self, role: Role, name: str, peer: str, queue_max: int, resend_messages_max: int) -> None:
        self.config = SessionConfig(role, name, peer, frozenset({"D"}), heartbeat_seconds=10, queue_max=queue_max)
        self.resend_messages_max = resend_messages_max
        self.store = Store()
        self.wire = bytearray()
        self.sent_ids: list[str] = []
        self.bytes_since_damage = MESSAGE_BYTES_MAX
        self.restart()

    def restart(self) -> None:
        self.session = Session(self.config, self.store.sequences)
        self.reader = MessageReader()

    def carry_out(self, step: Step, now: Now, *, crash_before_write: bool = False) -> bool:
        """Returns whether the connection stays."""
        while True:
            self.store.commit(step)
            if crash_before_write:
                return False
            self.wire += step.data
            if step.disconnect is not None:
                return False
            if step.resend is None:
                return True
            through = min(step.resend.end, step.resend.begin + self.resend_messages_max - 1)
            wanted = [self.store.sent[n] for n in range(step.resend.begin, through + 1) if n in self.store.sent]
            step = self.session.resend(wanted, now, through=through)


class Link:
    """An initiator and an acceptor, and the bytes between them. Bounds: of what waits beyond a gap, and of one part of a resend."""

    def __init__(self, *, queue_max: int = 10_000, resend_messages_max: int = 1_000) -> None:
        bounds = (queue_max, resend_messages_max)
        self.sides = (Side(Role.INITIATOR, "TM", "XSIM", *bounds), Side(Role.ACCEPTOR, "XSIM", "TM", *bounds))
        self.seconds = 0.0
        self.connected = False

    @property
    def now(self) -> Now:
        return Now(START + timedelta(seconds=self.seconds), self.seconds)

    def connect(self) -> None:
        if self.connected:
            return
        self.connected = True
        for side in self.sides:
            side.reader = MessageReader()
            side.wire.clear()
        for side in self.sides:
            self._after(side.carry_out(side.session.connect(self.now), self.now))

    def cut(self) -> None:
        """The connection breaks: what is on the wire is lost."""
        if not self.connected:
            return
        self.connected = False
        for side in self.sides:
            side.session.disconnected()

    def crash(self, index: int) -> None:
        """One side loses its memory."""
        self.cut()
        self.sides[index].restart()

    def send(self, index: int, *, crash_before_write: bool = False) -> None:
        side = self.sides[index]
        if not side.session.can_send:
            return
        identity = f"{index}-{len(side.sent_ids)}"
        side.sent_ids.append(identity)
        body = [(11, identity), (38, "1"), (40, "1"), (54, "1"), (55, "AAPL"), (60, "20260803-09:30:00.000")]
        step = side.session.send([AppMessage("D", body)], self.now)
        self._after(side.carry_out(step, self.now, crash_before_write=crash_before_write))
        if crash_before_write:
            self.crash(index)

    def carry(self, index: int, size: int, damage: int | None = None) -> None:
        """At most `size` bytes that side `index` wrote arrive at the other; `damage` changes one of them.

        Never two of one message: they could add up to the same CheckSum, which FIX cannot detect.
        """
        if not self.connected:
            return
        side, peer = self.sides[index], self.sides[1 - index]
        data = bytearray(side.wire[:size])
        del side.wire[:size]
        if damage is not None and data and side.bytes_since_damage >= MESSAGE_BYTES_MAX:
            data[damage % len(data)] ^= 0x15
            side.bytes_since_damage = 0
        else:
            side.bytes_since_damage += len(data)
        if data:
            self._after(peer.carry_out(peer.session.receive(peer.reader.feed(bytes(data)), self.now), self.now))

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        for side in self.sides:
            if self.connected:
                self._after(side.carry_out(side.session.tick(self.now), self.now))

    def _after(self, stays: bool) -> None:
        if not stays:
            self.cut()

    def settle(self) -> None:
        """An hour without faults: the connection is restored when it breaks, everything on the wire arrives."""
        for _ in range(400):
            self.connect()
            for index in (0, 1, 0, 1):
                self.carry(index, 1 << 20)
            if self.is_settled():
                return
            self.wait(9.0)

    def is_settled(self) -> bool:
        a, b = self.sides
        return (
            all(side.session.phase is Phase.ACTIVE and side.session.synchronised and not side.wire for side in self.sides)
            and a.store.sequences.next_in == b.store.sequences.next_out
            and b.store.sequences.next_in == a.store.sequences.next_out
        )
