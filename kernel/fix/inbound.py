"""The reading half of a session: what each message in leads to. `kernel.fix.session.Session` is its public face."""

from collections.abc import Sequence
from typing import Final

from kernel.fix import checks, dictionary, tags
from kernel.fix.dictionary import Refusal
from kernel.fix.gaps import GapTracker
from kernel.fix.message import Field, Message
from kernel.fix.steps import (
    AppMessage,
    Delivery,
    Notice,
    NoticeKind,
    Now,
    Phase,
    Refused,
    ResendRange,
    Role,
    Sequences,
    SessionConfig,
    Step,
)
from kernel.fix.timers import HeartbeatTimers
from kernel.fix.writer import Writer

SYNCHRONISE_PREFIX: Final = "SYNC-"
"""TestReqIDs of this form ask which of our messages the peer has processed."""
_LAST_SEQUENCE_PROCESSED: Final = 369
_UNSUPPORTED_MESSAGE_TYPE: Final = "3"
_INFINITY: Final = (0, 999_999)
"""EndSeqNo that means "all there is": 0, and 999999 from engines of FIX 4.1 and before."""
_ALWAYS_DELIVERED: Final = frozenset({tags.REJECT, tags.BUSINESS_MESSAGE_REJECT})
_FACTS: Final = _ALWAYS_DELIVERED | {tags.EXECUTION_REPORT, tags.ORDER_CANCEL_REJECT}
"""Messages that say what has happened."""


class Inbound:
    """The state of a session and its rules for what comes in."""

    def __init__(self, config: SessionConfig, sequences: Sequences) -> None:
        assert min(sequences.next_in, sequences.next_out) >= 1, "MsgSeqNum starts at 1"
        self._config = config
        self._writer = Writer(config, sequences.next_out)
        self._next_in = sequences.next_in
        self._gaps = GapTracker(config.queue_max, config.queue_bytes_max, config.resend_timeout_seconds)
        self._timers = HeartbeatTimers()
        self._phase = Phase.DISCONNECTED
        self._phase_since = 0.0
        self._resending: ResendRange | None = None
        self._confirmed_out = 0

    # Before the Logon.

    def _on_first(self, step: Step, message: Message, now: Now) -> None:
        if self._config.role is Role.INITIATOR and message.msg_type in (tags.LOGOUT, tags.REJECT):
            self._on_logon_refused(step, message, now)
            return
        problem = checks.logon_problem(self._config, message, now)
        sequence = checks.sequence_of(message)
        heartbeat = message.integer(tags.HEART_BT_INT) if problem is None else None
        if problem is not None or sequence is None or heartbeat is None:
            self._close(step, problem or "Logon without a number")
            return
        reset = message.boolean(tags.RESET_SEQ_NUM_FLAG)
        if reset:
            self._reset(step)
        if sequence < self._next_in:
            self._on_too_low(step, sequence, now)
            return
        if self._config.role is Role.ACCEPTOR:
            self._send_logon(step, heartbeat, now, reset=reset)
        else:
            heartbeat = self._config.heartbeat_seconds  # an answer of 0 would leave us blind to a dead link
        self._enter(Phase.ACTIVE, now)
        self._timers.start(heartbeat, now.monotonic_seconds)
        step.notices.append(Notice(NoticeKind.LOGGED_ON, f"heartbeat {heartbeat} s"))
        if sequence == self._next_in:
            self._advance(sequence + 1, now)
        else:
            self._request_gap(step, sequence, now)

    def _on_logon_refused(self, step: Step, message: Message, now: Now) -> None:
        if message.begin_string != self._config.begin_string or not checks.comp_ids_match(self._config, message):
            self._close(step, "the Logon was refused by somebody else")
            return
        if checks.sequence_of(message) == self._next_in:
            self._advance(self._next_in + 1, now)
        text = message.get(tags.TEXT) or "no text"
        kind = NoticeKind.PEER_LOGOUT if message.msg_type == tags.LOGOUT else NoticeKind.REJECTED
        step.notices.append(Notice(kind, text))
        self._close(step, f"the Logon was refused: {text}")

    # After it: header, number, content.

    def _on_message(self, step: Step, message: Message, now: Now) -> None:
        sequence = checks.sequence_of(message)
        if message.begin_string != self._config.begin_string:
            if sequence is not None and sequence == self._next_in:
                self._advance(sequence + 1, now)
                self._note_refused(step, message, sequence, "Incorrect BeginString")
            self._send_logout(step, "Incorrect BeginString", now)
        elif message.msg_type == tags.LOGON:
            self._close(step, "a second Logon")
        elif sequence is None:
            self._send_logout(step, "MsgSeqNum missing or malformed", now)
            self._close(step, "a message without a MsgSeqNum")
        elif (problem := checks.header_problem(self._config, message, now)) is not None:
            if problem.uses_number and sequence == self._next_in:
                self._advance(sequence + 1, now)
                self._note_refused(step, message, sequence, problem.refusal.text)
            self._reject(step, message, sequence, problem.refusal, now)
            if problem.logout:
                self._send_logout(step, "", now)
        else:
            self._timers.received(now.monotonic_seconds)
            self._on_number(step, message, sequence, now)

    def _on_number(self, step: Step, message: Message, sequence: int, now: Now) -> None:
        if message.msg_type == tags.SEQUENCE_RESET and message.get(tags.GAP_FILL_FLAG) != "Y":
            self._on_sequence_reset(step, message, sequence, now)
        elif sequence > self._next_in:
            self._on_too_high(step, message, sequence, now)
        elif sequence == self._next_in:
            self._process(step, message, sequence, now)
        elif checks.is_poss_dup(message):
            step.notices.append(Notice(NoticeKind.DUPLICATE, f"{sequence} was processed before"))
        else:
            self._on_too_low(step, sequence, now)

    def _on_too_low(self, step: Step, sequence: int, now: Now) -> None:
        self._send_logout(step, f"MsgSeqNum too low, expecting {self._next_in} but received {sequence}", now)
        self._close(step, f"MsgSeqNum too low: {sequence}, expected {self._next_in}")

    def _on_too_high(self, step: Step, message: Message, sequence: int, now: Now) -> None:
        if message.msg_type == tags.LOGOUT:
            # Its number stays missing, and with it all before: the next Logon shows the gap and brings them.
            self._on_logout(step, message, now)
            return
        wanted = self._gaps.should_request(self._next_in, resent=checks.is_poss_dup(message))
        if message.msg_type == tags.RESEND_REQUEST and dictionary.validate(message) is None:
            # Served at once: the peer may be unable to fill our gap before its own is filled. The gap takes in its number.
            if wanted:
                self._request_gap(step, sequence, now)
            else:
                self._gaps.extend(sequence)
            self._on_resend_request(step, message, sequence, now)
            return
        if wanted:
            self._request_gap(step, sequence - 1, now)
        self._gaps.hold(sequence, message)

    def _process(self, step: Step, message: Message, sequence: int, now: Now) -> None:
        """The message is the one expected."""
        refusal = self._refusal(message)
        if message.msg_type == tags.SEQUENCE_RESET:
            self._on_gap_fill(step, message, sequence, refusal, now)
            return
        self._advance(sequence + 1, now)
        self._accept(step, message, sequence, refusal, now)

    def _accept(self, step: Step, message: Message, sequence: int, refusal: Refusal | None, now: Now) -> None:
        """The message's number is used up; what is in it?"""
        msg_type = message.msg_type
        self._note_confirmed(message.get(_LAST_SEQUENCE_PROCESSED) or "")
        if refusal is not None:
            self._note_refused(step, message, sequence, f"{refusal.text} (tag {refusal.tag})")
            self._reject(step, message, sequence, refusal, now)
        elif msg_type == tags.HEARTBEAT:
            test_request_id = message.get(tags.TEST_REQ_ID) or ""
            if test_request_id.startswith(SYNCHRONISE_PREFIX):
                self._note_confirmed(test_request_id.removeprefix(SYNCHRONISE_PREFIX))
        elif msg_type == tags.TEST_REQUEST:
            self._admin(step, tags.HEARTBEAT, [(tags.TEST_REQ_ID, message.require(tags.TEST_REQ_ID))], now)
        elif msg_type == tags.RESEND_REQUEST:
            self._on_resend_request(step, message, sequence, now)
        elif msg_type == tags.LOGOUT:
            self._on_logout(step, message, now)
        elif msg_type in self._config.app_types or msg_type in _ALWAYS_DELIVERED:
            poss_dup, poss_resend = checks.is_poss_dup(message), message.get(tags.POSS_RESEND) == "Y"
            step.delivered.append(Delivery(message, sequence, poss_dup, poss_resend))
        else:
            self._reject_unsupported(step, message, sequence, now)

    def _note_confirmed(self, text: str) -> None:
        if text.isascii() and text.isdigit() and len(text) <= 18:
            self._confirmed_out = max(self._confirmed_out, min(int(text), self._writer.next_out - 1))

    def _on_logout(self, step: Step, message: Message, now: Now) -> None:
        if self._phase is Phase.ACTIVE:
            step.notices.append(Notice(NoticeKind.PEER_LOGOUT, message.get(tags.TEXT) or ""))
            self._send_logout(step, "", now)
        self._close(step, "logout")

    def _on_resend_request(self, step: Step, message: Message, sequence: int, now: Now) -> None:
        begin, end = message.integer(tags.BEGIN_SEQ_NO) or 0, message.integer(tags.END_SEQ_NO) or 0
        last = self._writer.next_out - 1
        if not 1 <= begin <= last:
            self._reject(step, message, sequence, Refusal(dictionary.VALUE_INCORRECT, tags.BEGIN_SEQ_NO), now)
        elif end not in _INFINITY and end < begin:
            self._reject(step, message, sequence, Refusal(dictionary.VALUE_INCORRECT, tags.END_SEQ_NO), now)
        else:
            self._resending = ResendRange(begin, last if end in _INFINITY else min(end, last))

    def _on_gap_fill(self, step: Step, message: Message, sequence: int, refusal: Refusal | None, now: Now) -> None:
        new = message.integer(tags.NEW_SEQ_NO) if refusal is None else None
        if new is None or new <= sequence:
            self._reject(step, message, sequence, refusal or Refusal(dictionary.VALUE_INCORRECT, tags.NEW_SEQ_NO), now)
        else:
            self._skip_to(step, new, now)

    def _on_sequence_reset(self, step: Step, message: Message, sequence: int, now: Now) -> None:
        """SequenceReset-Reset counts whatever its own number is; it never lowers ours."""
        refusal = self._refusal(message)
        new = message.integer(tags.NEW_SEQ_NO) if refusal is None else None
        if new is None or new < self._next_in:
            self._reject(step, message, sequence, refusal or Refusal(dictionary.VALUE_INCORRECT, tags.NEW_SEQ_NO), now)
        elif new > self._next_in:
            step.notices.append(Notice(NoticeKind.RESET, f"the peer skipped {self._next_in} to {new - 1}"))
            self._skip_to(step, new, now)

    def _skip_to(self, step: Step, new: int, now: Now) -> None:
        """The peer will not send the numbers below `new`. Requests that waited among them are withdrawn; reports have happened."""
        self._next_in = new
        for sequence, message in self._gaps.advance(new, now.monotonic_seconds):
            if message.msg_type in _FACTS:
                self._accept(step, message, sequence, self._refusal(message), now)

    # What the rules are made of.

    def _refusal(self, message: Message) -> Refusal | None:
        """A venue's message, and any report, may have tags of another dictionary: venues have their own, and it may be a fill."""
        lenient = self._config.role is Role.INITIATOR or message.msg_type in _FACTS
        return dictionary.validate(message, user_defined_tags=self._config.user_defined_tags, unknown_tags=lenient)

    def _advance(self, next_in: int, now: Now) -> None:
        self._next_in = next_in
        self._gaps.advance(next_in, now.monotonic_seconds)

    def _reset(self, step: Step) -> None:
        step.reset = True
        step.notices.append(Notice(NoticeKind.RESET, f"both numbers start again, from {self._next_in} in, {self._writer.next_out} out"))
        self._next_in = self._writer.next_out = 1

    def _request_gap(self, step: Step, end: int, now: Now) -> None:
        self._gaps.requested(self._next_in, end, now.monotonic_seconds)
        step.notices.append(Notice(NoticeKind.GAP, f"{self._next_in} to {end} are missing"))
        self._admin(step, tags.RESEND_REQUEST, [(tags.BEGIN_SEQ_NO, str(self._next_in)), (tags.END_SEQ_NO, "0")], now)

    def _note_refused(self, step: Step, message: Message, sequence: int, problem: str) -> None:
        if message.msg_type in _ALWAYS_DELIVERED or message.msg_type not in tags.ADMIN_TYPES:
            step.refused.append(Refused(message, sequence, problem))

    def _reject(self, step: Step, message: Message, sequence: int, refusal: Refusal, now: Now) -> None:
        step.notices.append(Notice(NoticeKind.REJECTED, f"{message.msg_type} {sequence}: {refusal.text} (tag {refusal.tag})"))
        if message.msg_type == tags.REJECT:
            return  # two sides that refuse each other's refusals would not stop
        body: list[Field] = [(tags.REF_SEQ_NUM, str(sequence)), (tags.TEXT, refusal.text)]
        if refusal.tag is not None:
            body.append((tags.REF_TAG_ID, str(refusal.tag)))
        body += [(tags.REF_MSG_TYPE, message.msg_type), (tags.SESSION_REJECT_REASON, str(refusal.reason))]
        self._admin(step, tags.REJECT, body, now)

    def _reject_unsupported(self, step: Step, message: Message, sequence: int, now: Now) -> None:
        step.notices.append(Notice(NoticeKind.REJECTED, f"{message.msg_type} {sequence}: unsupported message type"))
        body: list[Field] = [
            (tags.REF_SEQ_NUM, str(sequence)),
            (tags.TEXT, "Unsupported Message Type"),
            (tags.REF_MSG_TYPE, message.msg_type),
            (tags.BUSINESS_REJECT_REASON, _UNSUPPORTED_MESSAGE_TYPE),
        ]
        self._writer.application(step, [AppMessage(tags.BUSINESS_MESSAGE_REJECT, body)], now.utc)

    def _send_logon(self, step: Step, heartbeat_seconds: int, now: Now, *, reset: bool) -> None:
        body = [(tags.ENCRYPT_METHOD, "0"), (tags.HEART_BT_INT, str(heartbeat_seconds))]
        if reset:
            body.append((tags.RESET_SEQ_NUM_FLAG, "Y"))
        if self._config.role is Role.INITIATOR and self._config.username:
            body += [(tags.USERNAME, self._config.username), (tags.PASSWORD, self._config.password)]
        self._admin(step, tags.LOGON, body, now)

    def _send_logout(self, step: Step, text: str, now: Now) -> None:
        if self._phase is Phase.LOGOUT_SENT:
            return  # once; and a peer that goes on erring must not put off the timeout
        self._admin(step, tags.LOGOUT, [(tags.TEXT, text)] if text else [], now)
        self._enter(Phase.LOGOUT_SENT, now)

    def _admin(self, step: Step, msg_type: str, body: Sequence[Field], now: Now) -> None:
        self._writer.admin(step, msg_type, body, now.utc)

    def _enter(self, phase: Phase, now: Now) -> None:
        self._phase = phase
        self._phase_since = now.monotonic_seconds

    def _close(self, step: Step, reason: str) -> None:
        self._phase = Phase.CLOSING
        if step.disconnect is None:
            step.disconnect = reason

    def _finish(self, step: Step, now: Now) -> Step:
        step.sequences = Sequences(self._next_in, self._writer.next_out)
        if step.writes:
            self._timers.sent(now.monotonic_seconds)
        return step
