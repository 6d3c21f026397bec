"""The FIX 4.4 session state machine (FIX 4.4 Volume 2; FIX Session Layer 2020), without I/O, clock or store.

    session = Session(config, Sequences(next_in, next_out))          # from the store
    step = session.connect(now)                                      # initiator: a Logon; acceptor: waits for one
    step = session.receive(reader.feed(data), now)                   # bytes came in
    step = session.send([AppMessage("D", body, order_id)], now)      # only while session.can_send
    step = session.resend(stored_messages, now, policy)              # after a step with `resend`
    step = session.tick(now)                                         # no later than session.next_deadline()
    step = session.logout(now); step = session.disconnected()

Every method returns a `Step`, which the driver carries out as `kernel.fix.steps` says. An acceptor reads 49 and 56 of the
first message to choose the session, and then gives that message to `receive`. After a ResendRequest nothing is sent and
nothing further is read until `resend` was called: a live message between resent ones would look like a gap to the peer. A driver that
resends in parts, each once the peer has taken the one before, gives what cannot wait to `defer`: it is numbered now and sent last.

What is answered how, the first that applies:

- garbled bytes: ignored, the number is unchanged; before the Logon: closed
- before the Logon: anything but a good Logon closes without an answer (MsgSeqNum too low: Logout first)
- BeginString differs: Logout; second Logon: closed; no MsgSeqNum: Logout and closed
- CompIDs differ, SendingTime off by more than the tolerance: Reject (373=9, 10) and Logout
- PossDup without OrigSendingTime: Reject (373=1, 371=122), number unchanged; OrigSendingTime after SendingTime: Reject, Logout
- number too high: one ResendRequest to infinity, the message waits; too low: ignored if PossDup, else Logout and closed
- fields against the dictionary: Reject, the number is used up; unsupported application message: 35=j. Tags that the dictionary lacks
  are accepted in reports, and in all that a venue sends
"""

from collections import deque
from collections.abc import Iterable, Sequence

from kernel.fix import tags
from kernel.fix.inbound import SYNCHRONISE_PREFIX, Inbound
from kernel.fix.message import Garbled, Message
from kernel.fix.steps import AppMessage, Notice, NoticeKind, Now, Phase, ResendRange, Role, Sequences, SessionConfig, Step, StoredMessage
from kernel.fix.timers import Due
from kernel.fix.writer import ResendPolicy, resend_all


class SessionNotReadyError(RuntimeError):
    """The session may not send now; see `Session.can_send`. Try again after a later step."""


class Session(Inbound):
    """One session over one or more connections. Not thread-safe; the driver calls it from one place."""

    def __init__(self, config: SessionConfig, sequences: Sequences) -> None:
        super().__init__(config, sequences)
        self._inbox: deque[Message | Garbled] = deque()
        self._deferred_from: int | None = None

    @property
    def phase(self) -> Phase:
        """Where the session stands on this connection."""
        return self._phase

    @property
    def sequences(self) -> Sequences:
        """The numbers to persist; also in every step."""
        return Sequences(self._next_in, self._writer.next_out)

    @property
    def can_send(self) -> bool:
        """Whether `send` is allowed: logged on, and no resend under way."""
        return self._phase is Phase.ACTIVE and self._resending is None

    @property
    def resending(self) -> ResendRange | None:
        """What `resend` still owes the peer."""
        return self._resending

    @property
    def synchronised(self) -> bool:
        """Logged on, with no gap in what was read and no resend under way."""
        return self.can_send and not self._gaps.open

    @property
    def confirmed_out(self) -> int:
        """The highest number of ours that the peer is known to have processed on this connection; see `synchronise`."""
        return self._confirmed_out

    @property
    def held_bytes(self) -> int:
        """The size of the messages that wait beyond a gap, at most `queue_bytes_max`."""
        return self._gaps.held_bytes

    def next_deadline(self) -> float | None:
        """The monotonic time in seconds by which `tick` must be called, or None while no timer runs."""
        if self._phase is Phase.AWAITING_LOGON:
            return self._phase_since + self._config.logon_timeout_seconds
        if self._phase is Phase.LOGOUT_SENT:
            return self._phase_since + self._config.logout_timeout_seconds
        if self._phase is not Phase.ACTIVE:
            return None
        gap = self._gaps.deadline if self._resending is None else None
        deadlines = (gap, self._timers.deadline(may_send=self._resending is None))
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def connect(self, now: Now) -> Step:
        """A connection stands. The initiator sends its Logon, without ResetSeqNumFlag: numbers go on where they were."""
        assert self._phase is Phase.DISCONNECTED, "one connection at a time"
        step = Step()
        self._enter(Phase.AWAITING_LOGON, now)
        self._confirmed_out = 0
        if self._config.role is Role.INITIATOR:
            self._send_logon(step, self._config.heartbeat_seconds, now, reset=False)
        return self._finish(step, now)

    def disconnected(self) -> None:
        """The connection is gone. What waited beyond a gap is dropped: the peer will be asked for it again."""
        self._phase = Phase.DISCONNECTED
        self._inbox.clear()
        self._gaps.clear()
        self._resending = self._deferred_from = None

    def receive(self, items: Iterable[Message | Garbled], now: Now) -> Step:
        """Messages came in. While a resend is under way they wait, at most `queue_max` of them; beyond that: disconnect."""
        step = Step()
        self._inbox.extend(items)
        if self._resending is not None and len(self._inbox) > self._config.queue_max:
            self._close(step, "too many messages came in during a resend")
        return self._drain(step, now)

    def send(self, messages: Sequence[AppMessage], now: Now) -> Step:
        """Sends application messages, all in one step.

        Raises SessionNotReadyError unless `can_send`; ValueError where a value cannot be encoded. Nothing is numbered then.
        """
        if not self.can_send:
            raise SessionNotReadyError(self._phase.value if self._resending is None else "a resend is under way")
        step = Step()
        self._writer.application(step, messages, now.utc)
        return self._finish(step, now)

    def defer(self, messages: Sequence[AppMessage], now: Now) -> Step:
        """Numbers and stores application messages during a resend, which grows to send them last; the step writes nothing.

        Raises SessionNotReadyError where no resend is under way; ValueError as `send` does.
        """
        if self._phase is not Phase.ACTIVE or self._resending is None:
            raise SessionNotReadyError("no resend is under way")
        step = Step()
        first = self._writer.next_out
        self._writer.number(step, messages, now.utc)
        if self._deferred_from is None:
            self._deferred_from = first
        return self._finish(step, now)

    def resend(self, stored: Iterable[StoredMessage], now: Now, policy: ResendPolicy = resend_all, *, through: int | None = None) -> Step:
        """Answers the ResendRequest of the last step that had `resend`.

        `stored` are the stored messages of that range, ascending; `through` cuts a long range (the step asks for the rest).
        Messages that the policy refuses, and numbers without a message, are gap-filled. A part counts as a sign of life: it
        is due once the peer has taken the one before, and what the peer sends meanwhile may not be read.
        """
        wanted = self._resending
        assert wanted is not None, "no resend is under way"
        end = wanted.end if through is None else min(through, wanted.end)
        step = Step()
        self._writer.resend(step, ResendRange(wanted.begin, end), stored, policy, now.utc)
        self._timers.received(now.monotonic_seconds)
        if end < wanted.end:
            self._resending = ResendRange(end + 1, wanted.end)
        elif self._deferred_from is not None:
            self._resending = ResendRange(self._deferred_from, self._writer.next_out - 1)
            self._deferred_from = None
        else:
            self._resending = None
        return self._drain(step, now)

    def synchronise(self, now: Now) -> Step:
        """Asks the peer to confirm all we sent: a TestRequest, whose answer raises `confirmed_out` to its number.

        The peer answers in sequence, so the answer proves that it has processed everything before, resent messages included.
        Raises SessionNotReadyError unless `can_send`.
        """
        if not self.can_send:
            raise SessionNotReadyError(self._phase.value if self._resending is None else "a resend is under way")
        step = Step()
        self._admin(step, tags.TEST_REQUEST, [(tags.TEST_REQ_ID, f"{SYNCHRONISE_PREFIX}{self._writer.next_out}")], now)
        return self._finish(step, now)

    def logout(self, now: Now, text: str = "") -> Step:
        """Starts a logout; the step that brings the peer's answer, or the timeout, disconnects."""
        step = Step()
        if self._phase is Phase.ACTIVE:
            self._send_logout(step, text, now)
        elif self._phase is Phase.AWAITING_LOGON:
            self._close(step, "logout before the Logon was answered")
        return self._finish(step, now)

    def tick(self, now: Now) -> Step:
        """Time has passed: heartbeats, test requests, requests for a gap that stays, timeouts."""
        step = Step()
        deadline = self.next_deadline()
        if deadline is None or now.monotonic_seconds < deadline:
            return self._finish(step, now)
        if self._phase is not Phase.ACTIVE:
            self._close(step, f"timed out: {self._phase.value}")
            return self._finish(step, now)
        may_send = self._resending is None
        if may_send and self._gaps.expired(now.monotonic_seconds):
            self._on_gap_expired(step, now)
        match self._timers.elapsed(now.monotonic_seconds, may_send=may_send):
            case Due.DROP:
                self._close(step, "the peer is silent")
            case Due.TEST_REQUEST:
                self._admin(step, tags.TEST_REQUEST, [(tags.TEST_REQ_ID, "TEST")], now)
            case Due.HEARTBEAT if not step.writes:
                self._admin(step, tags.HEARTBEAT, [], now)
        return self._finish(step, now)

    def _on_gap_expired(self, step: Step, now: Now) -> None:
        if self._gaps.exhausted:
            self._close(step, "a gap was requested again and again without progress")
        else:
            self._request_gap(step, self._gaps.end, now)

    def _drain(self, step: Step, now: Now) -> Step:
        self._take_queued(step, now)
        while self._inbox and self._resending is None and self._phase is not Phase.CLOSING:
            item = self._inbox.popleft()
            if isinstance(item, Garbled):
                step.notices.append(Notice(NoticeKind.GARBLED, f"{item.size} bytes ignored: {item.reason}"))
                if self._phase is Phase.AWAITING_LOGON:
                    self._close(step, f"garbled before the Logon: {item.reason}")
            elif self._phase is Phase.AWAITING_LOGON:
                self._on_first(step, item, now)
            elif self._phase is not Phase.DISCONNECTED:
                self._on_message(step, item, now)
            self._take_queued(step, now)
        step.resend = self._resending
        return self._finish(step, now)

    def _take_queued(self, step: Step, now: Now) -> None:
        while self._resending is None and self._phase in (Phase.ACTIVE, Phase.LOGOUT_SENT):
            message = self._gaps.take(self._next_in)
            if message is None:
                return
            self._process(step, message, self._next_in, now)
