"""What the session checks in a message before it looks at its number: pure questions, no state."""

from dataclasses import dataclass

from kernel.fix import dictionary, tags
from kernel.fix.dictionary import Refusal
from kernel.fix.message import FieldError, Message
from kernel.fix.steps import Now, Role, SessionConfig


@dataclass(frozen=True, slots=True)
class HeaderProblem:
    """A header that is refused. `logout`: the session ends with it. `uses_number`: its number counts as received."""

    refusal: Refusal
    logout: bool
    uses_number: bool = True


def sequence_of(message: Message) -> int | None:
    """MsgSeqNum (34), or None where it is missing, malformed or below 1."""
    try:
        sequence = message.integer(tags.MSG_SEQ_NUM)
    except FieldError:
        return None
    return sequence if sequence is not None and sequence >= 1 else None


def is_poss_dup(message: Message) -> bool:
    """PossDupFlag (43) is Y."""
    return message.get(tags.POSS_DUP_FLAG) == "Y"


def comp_ids_match(config: SessionConfig, message: Message) -> bool:
    """49 and 56 are the peer's and ours."""
    return message.get(tags.SENDER_COMP_ID) == config.target and message.get(tags.TARGET_COMP_ID) == config.sender


def logon_problem(config: SessionConfig, message: Message, now: Now) -> str | None:
    """Why a first message is not a good Logon, for the log only: nothing is answered, so a stranger learns nothing."""
    if message.msg_type != tags.LOGON:
        return "the first message is not a Logon"
    if message.begin_string != config.begin_string:
        return "Logon with another BeginString"
    if not comp_ids_match(config, message):
        return "Logon with other CompIDs"
    lenient = config.role is Role.INITIATOR  # venues have dictionaries of their own
    refusal = dictionary.validate(message, user_defined_tags=config.user_defined_tags, unknown_tags=lenient)
    if refusal is not None:
        return f"Logon refused: {refusal.text} (tag {refusal.tag})"
    sequence = sequence_of(message)
    if sequence is None:
        return "Logon without a MsgSeqNum"
    if not _is_on_time(config, message, now):
        return "Logon with a SendingTime beyond the tolerance"
    heartbeat = message.integer(tags.HEART_BT_INT)
    if heartbeat is None or not 0 <= heartbeat <= config.heartbeat_seconds_max:
        return "Logon with a HeartBtInt out of bounds"
    if message.boolean(tags.RESET_SEQ_NUM_FLAG) and (not config.accept_reset or sequence != 1):
        return "Logon with a ResetSeqNumFlag that is not accepted"
    return None


def header_problem(config: SessionConfig, message: Message, now: Now) -> HeaderProblem | None:
    """What is wrong with CompIDs and times (FIX 4.4 Volume 2, test cases 2.f, 2.g, 2.k, 2.o).

    A possible duplicate with a bad OrigSendingTime does not use up its number: what it carries may be new to this side.
    """
    for tag in (tags.SENDER_COMP_ID, tags.TARGET_COMP_ID, tags.SENDING_TIME):
        if tag not in message:
            return HeaderProblem(Refusal(dictionary.REQUIRED_TAG_MISSING, tag), logout=False)
    if not comp_ids_match(config, message):
        return HeaderProblem(Refusal(dictionary.COMP_ID_PROBLEM), logout=True)
    try:
        if not _is_on_time(config, message, now):
            return HeaderProblem(Refusal(dictionary.SENDING_TIME_ACCURACY), logout=True)
    except FieldError as error:
        return HeaderProblem(Refusal(error.reason, error.tag), logout=False)
    if is_poss_dup(message) and message.msg_type != tags.SEQUENCE_RESET:
        return _poss_dup_problem(message)
    return None


def _poss_dup_problem(message: Message) -> HeaderProblem | None:
    try:
        original, sent = message.timestamp(tags.ORIG_SENDING_TIME), message.timestamp(tags.SENDING_TIME)
    except FieldError as error:
        return HeaderProblem(Refusal(error.reason, error.tag), logout=False, uses_number=False)
    if original is None:
        return HeaderProblem(Refusal(dictionary.REQUIRED_TAG_MISSING, tags.ORIG_SENDING_TIME), logout=False, uses_number=False)
    if sent is not None and original > sent:
        return HeaderProblem(Refusal(dictionary.SENDING_TIME_ACCURACY), logout=True, uses_number=False)
    return None


def _is_on_time(config: SessionConfig, message: Message, now: Now) -> bool:
    sent = message.timestamp(tags.SENDING_TIME)
    return sent is not None and abs((now.utc - sent).total_seconds()) <= config.sending_time_tolerance_seconds
