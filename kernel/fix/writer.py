"""The sending half of a session: numbers, stamps and frames messages, and repeats stored ones."""

from collections.abc import Callable, Iterable
from datetime import datetime

from kernel.fix import tags
from kernel.fix.codec import encode_body, frame
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.message import Body
from kernel.fix.steps import AppMessage, Notice, NoticeKind, ResendRange, SessionConfig, Step, StoredMessage

ResendPolicy = Callable[[StoredMessage], bool]
"""Whether a stored message is sent again; where not, its number is filled by a SequenceReset."""


def resend_all(message: StoredMessage) -> bool:
    """The policy that sends every stored message again: right for reports, wrong for orders that may be stale."""
    return True


class Writer:
    """Owns the next outbound sequence number. Every method appends to the step it is given."""

    def __init__(self, config: SessionConfig, next_out: int) -> None:
        self._config = config
        self.next_out = next_out

    def admin(self, step: Step, msg_type: str, body: Body, utc: datetime) -> None:
        """Sends a session-level message; it is not stored, since a resend fills its number."""
        step.writes.append(self._frame(msg_type, self.next_out, format_timestamp(utc), encode_body(body)))
        self.next_out += 1

    def application(self, step: Step, messages: Iterable[AppMessage], utc: datetime) -> None:
        """Sends application messages and has them stored. Raises ValueError, before anything is numbered, for a bad value."""
        before = len(step.stored)
        self.number(step, messages, utc)
        for message in step.stored[before:]:
            step.writes.append(self._frame(message.msg_type, message.sequence, message.sent_time, message.body))

    def number(self, step: Step, messages: Iterable[AppMessage], utc: datetime) -> None:
        """Has application messages stored under their numbers, for a resend to send. Raises ValueError as `application` does."""
        sent_time = format_timestamp(utc)
        encoded = [(message, encode_body(message.body)) for message in messages]
        for message, body in encoded:
            step.stored.append(StoredMessage(self.next_out, message.msg_type, body, sent_time, message.reference))
            self.next_out += 1

    def resend(self, step: Step, wanted: ResendRange, stored: Iterable[StoredMessage], policy: ResendPolicy, utc: datetime) -> None:
        """Sends `wanted` again: stored messages that the policy keeps as possible duplicates, each run of the rest as one gap fill.

        `stored` is in ascending order and within the range.
        """
        sending_time = format_timestamp(utc)
        gap_start, sent = wanted.begin, 0
        for message in stored:
            assert gap_start <= message.sequence <= wanted.end, "stored messages must be in order and within the range"
            if not policy(message):
                continue
            self._gap_fill(step, gap_start, message.sequence, sending_time)
            # Sent by an owner whose clock was ahead of ours: OrigSendingTime (122) must not be after SendingTime (52).
            stamp = max(sending_time, message.sent_time)
            step.writes.append(self._frame(message.msg_type, message.sequence, stamp, message.body, orig_sending_time=message.sent_time))
            sent += 1
            gap_start = message.sequence + 1
        self._gap_fill(step, gap_start, wanted.end + 1, sending_time)
        step.notices.append(Notice(NoticeKind.RESENT, f"{wanted.begin} to {wanted.end}: {sent} messages sent again"))

    def _gap_fill(self, step: Step, begin: int, next_sequence: int, sending_time: str) -> None:
        if begin < next_sequence:
            body = encode_body([(tags.NEW_SEQ_NO, str(next_sequence)), (tags.GAP_FILL_FLAG, "Y")])
            step.writes.append(self._frame(tags.SEQUENCE_RESET, begin, sending_time, body, orig_sending_time=sending_time))

    def _frame(self, msg_type: str, sequence: int, sending_time: str, body: bytes, *, orig_sending_time: str | None = None) -> bytes:
        config = self._config
        return frame(
            config.begin_string,
            msg_type,
            sequence=sequence,
            sender=config.sender,
            target=config.target,
            sending_time=sending_time,
            body=body,
            orig_sending_time=orig_sending_time,
            sender_sub_id=config.sender_sub_id,
            target_sub_id=config.target_sub_id,
        )
