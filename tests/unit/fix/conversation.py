"""A FIX conversation written as text: `|` for SOH, `<now>` for the present time, 8, 9 and 10 left to this module."""

from datetime import UTC, datetime, timedelta
from typing import Any

from kernel.fix.codec import MessageReader, checksum
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.session import Session
from kernel.fix.steps import AppMessage, Now, Role, Sequences, SessionConfig, Step, StoredMessage
from kernel.fix.writer import ResendPolicy, resend_all

START = datetime(2026, 8, 3, 9, 30, tzinfo=UTC)
ORDER = [(11, "A-1"), (38, "100"), (40, "1"), (54, "1"), (55, "AAPL"), (60, "20260803-09:30:00.000")]
REPORT = [(6, "0"), (14, "0"), (17, "E-1"), (37, "V-1"), (39, "0"), (54, "1"), (55, "AAPL"), (150, "0"), (151, "100")]


def at(seconds: float) -> Now:
    """`seconds` after the start, on both clocks."""
    return Now(START + timedelta(seconds=seconds), seconds)


def raw(fields: str, *, now: Now, begin_string: str = "FIX.4.4") -> bytes:
    """One message from `35=0|34=2|…`; `<now>` and `<now+5>` become times."""
    for offset in (0, 10, -130, 130):
        marker = "<now>" if offset == 0 else f"<now{offset:+}>"
        fields = fields.replace(marker, format_timestamp(now.utc + timedelta(seconds=offset)))
    body = (fields.replace("|", "\x01") + "\x01").encode("latin-1")
    data = f"8={begin_string}\x019={len(body)}\x01".encode("latin-1") + body
    return data + f"10={checksum(data):03}\x01".encode("latin-1")


def shown(data: bytes, now: Now) -> str:
    """A written message as text, without 8, 9 and 10, the present time as `<now>`."""
    fields = data.decode("latin-1").rstrip("\x01").split("\x01")
    return "|".join(fields[2:-1]).replace(format_timestamp(now.utc), "<now>")


class Acceptor:
    """An acceptor `ISLD` that the test plays the peer `TW` of. Keeps what the driver would: stored messages and the last step."""

    role = Role.ACCEPTOR
    app_types = frozenset({"D", "F", "G", "H", "AF"})

    def __init__(self, *, next_in: int = 1, next_out: int = 1, policy: ResendPolicy = resend_all, **options: Any) -> None:
        self.config = SessionConfig(self.role, "ISLD", "TW", self.app_types, **options)
        self.session = Session(self.config, Sequences(next_in, next_out))
        self.reader = MessageReader()
        self.policy = policy
        self.now = at(0)
        self.stored: dict[int, StoredMessage] = {}
        self.delivered: list[int] = []
        self.step = self.session.connect(self.now)

    def wait(self, seconds: float) -> list[str]:
        """Time passes and the timer fires once."""
        self.now = Now(self.now.utc + timedelta(seconds=seconds), self.now.monotonic_seconds + seconds)
        return self._take(self.session.tick(self.now))

    def hears(self, *messages: str, begin_string: str = "FIX.4.4") -> list[str]:
        """The peer sends; the answer is what this side writes."""
        return self.hears_bytes(b"".join(raw(message, now=self.now, begin_string=begin_string) for message in messages))

    def hears_bytes(self, data: bytes) -> list[str]:
        """The peer sends these bytes."""
        return self._take(self.session.receive(self.reader.feed(data), self.now))

    def sends(self, *bodies: tuple[str, list[tuple[int, str]]]) -> list[str]:
        """The application sends."""
        return self._take(self.session.send([AppMessage(kind, body) for kind, body in bodies], self.now))

    def logs_on(self, sequence: int = 1, heartbeat: int = 30) -> list[str]:
        """The peer's usual Logon."""
        return self.hears(f"35=A|34={sequence}|49=TW|52=<now>|56=ISLD|98=0|108={heartbeat}")

    def _take(self, step: Step) -> list[str]:
        self.step = step
        self.delivered += [delivery.sequence for delivery in step.delivered]
        self.stored.update({message.sequence: message for message in step.stored})
        written = [shown(data, self.now) for data in step.writes]
        while step.resend is not None:
            wanted = [self.stored[n] for n in sorted(self.stored) if step.resend.begin <= n <= step.resend.end]
            step = self.session.resend(wanted, self.now, self.policy)
            written += [shown(data, self.now) for data in step.writes]
            self.delivered += [delivery.sequence for delivery in step.delivered]
        return written


class Initiator(Acceptor):
    """An initiator `ISLD` that hears reports from its venue `TW`."""

    role = Role.INITIATOR
    app_types = frozenset({"8", "9"})
