"""Checks a message against the FIX 4.4 dictionary, for the session to answer with Reject (35=3).

    refusal = validate(message)
    if refusal is not None:
        refusal.reason, refusal.tag, refusal.text   # 373, 371 (None: not of one tag), 58

The reasons (SessionRejectReason) in the order in which they are looked for: 11 invalid MsgType; then per field 0 invalid tag
number, 2 tag not defined for this message type, 4 tag without a value, 14 header field after the body began, 6 incorrect
format, 5 value out of range; then 13 tag appears more than once, 16 incorrect NumInGroup count, 1 required tag missing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from kernel.fix import dictionary44, fieldtypes, tags
from kernel.fix.message import Message, Pair

INVALID_TAG_NUMBER: Final = 0
REQUIRED_TAG_MISSING: Final = 1
TAG_NOT_DEFINED: Final = 2
TAG_WITHOUT_VALUE: Final = 4
VALUE_INCORRECT: Final = 5
FORMAT_INCORRECT: Final = 6
COMP_ID_PROBLEM: Final = 9
SENDING_TIME_ACCURACY: Final = 10
INVALID_MSG_TYPE: Final = 11
TAG_REPEATED: Final = 13
TAG_OUT_OF_ORDER: Final = 14
GROUP_COUNT_INCORRECT: Final = 16

REASON_TEXT: Final = {
    INVALID_TAG_NUMBER: "Invalid tag number",
    REQUIRED_TAG_MISSING: "Required tag missing",
    TAG_NOT_DEFINED: "Tag not defined for this message type",
    TAG_WITHOUT_VALUE: "Tag specified without a value",
    VALUE_INCORRECT: "Value is incorrect (out of range) for this tag",
    FORMAT_INCORRECT: "Incorrect data format for value",
    COMP_ID_PROBLEM: "CompID problem",
    SENDING_TIME_ACCURACY: "SendingTime accuracy problem",
    INVALID_MSG_TYPE: "Invalid MsgType",
    TAG_REPEATED: "Tag appears more than once",
    TAG_OUT_OF_ORDER: "Tag specified out of required order",
    GROUP_COUNT_INCORRECT: "Incorrect NumInGroup count for repeating group",
}
"""The standard texts (58) of the reasons."""

USER_DEFINED_TAG_MIN: Final = 5000
"""Tags from here on are agreed bilaterally (FIX 4.4 Volume 1, "User Defined Fields")."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is refused: SessionRejectReason (373), the tag it is about (371), the standard text (58)."""

    reason: int
    tag: int | None = None

    @property
    def text(self) -> str:
        """The standard text of the reason."""
        return REASON_TEXT[self.reason]


_Check = Callable[[str], int]
"""The reason why a text is not a value of its tag, or -1."""
_RIGHT: Final = -1


def _from_reader(read: Callable[[str], object]) -> _Check:
    def check(text: str) -> int:
        try:
            read(text)
        except ValueError:
            return FORMAT_INCORRECT
        return _RIGHT

    return check


def _from_pattern(pattern: str) -> _Check:
    match = re.compile(pattern, re.ASCII).fullmatch
    return lambda text: FORMAT_INCORRECT if match(text) is None else _RIGHT


def _from_values(format_check: _Check, values: frozenset[str]) -> _Check:
    def check(text: str) -> int:
        if text in values:
            return _RIGHT
        return FORMAT_INCORRECT if format_check(text) == FORMAT_INCORRECT else VALUE_INCORRECT

    return check


def _any(text: str) -> int:
    return _RIGHT


_FLOAT = _from_reader(fieldtypes.parse_decimal)
_COUNT = _from_pattern(r"\d{1,9}")
_CHECKS: Final[dict[str, _Check]] = {
    "AMT": _FLOAT,
    "BOOLEAN": _from_values(_any, frozenset("YN")),
    "CHAR": _from_pattern(r"[^\x01]"),
    "FLOAT": _FLOAT,
    "INT": _from_reader(fieldtypes.parse_integer),
    "LENGTH": _COUNT,
    "LOCALMKTDATE": _from_reader(fieldtypes.parse_date),
    "MONTHYEAR": _from_pattern(r"\d{4}(0[1-9]|1[0-2])([0-3]\d|w[1-5])?"),
    "NUMINGROUP": _COUNT,
    "PERCENTAGE": _FLOAT,
    "PRICE": _FLOAT,
    "PRICEOFFSET": _FLOAT,
    "QTY": _FLOAT,
    "SEQNUM": _COUNT,
    "UTCDATEONLY": _from_reader(fieldtypes.parse_date),
    "UTCTIMEONLY": _from_pattern(r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.(\d{3}|\d{6}|\d{9}))?"),
    "UTCTIMESTAMP": _from_reader(fieldtypes.parse_timestamp),
}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


def _checks_by_tag() -> dict[int, _Check]:
    checks = {tag: _CHECKS.get(kind, _any) for kind, text in dictionary44.TAGS_BY_TYPE.items() for tag in _numbers(text)}
    for tag, values in dictionary44.VALUES.items():
        checks[tag] = _from_values(checks[tag], frozenset(values.split()))
    return checks


@dataclass(frozen=True, slots=True)
class _MessageRule:
    allowed: dict[int, _Check]
    required: frozenset[int]


_CHECK_BY_TAG: Final = _checks_by_tag()
_HEADER: Final = frozenset(_numbers(dictionary44.HEADER))
_HEADER_REQUIRED: Final = frozenset(_numbers(dictionary44.HEADER_REQUIRED))
_TRAILER: Final = frozenset(_numbers(dictionary44.TRAILER))
_MESSAGE_TYPES: Final = frozenset(dictionary44.MESSAGE_TYPES.split())
_GROUPS: Final = {tag: tuple(_numbers(members)) for tag, members in dictionary44.GROUPS.items()}
_GROUP_TAGS: Final = frozenset(_GROUPS)
_RULES: Final = {
    msg_type: _MessageRule(
        {tag: _CHECK_BY_TAG[tag] for tag in {*_numbers(required), *_numbers(optional), *_HEADER, *_TRAILER}},
        frozenset(_numbers(required)) | _HEADER_REQUIRED,
    )
    for msg_type, (required, optional) in dictionary44.MESSAGES.items()
}


# A peer repeats a handful of field sequences. One without groups that passed once needs only its values checked again, a
# third of the work; a peer that varies them without end fills the table once and costs nothing more.
_PLAIN_SHAPES_MAX: Final = 512
_SHAPE_FIELDS_MAX: Final = 128
_plain_shapes: dict[tuple[object, ...], tuple[tuple[int, _Check], ...]] = {}
_HOLDS_NO_VALUE: Final = b"=\x01"
_by_tag = itemgetter(0)


def is_message_type(msg_type: str) -> bool:
    """Whether FIX 4.4 has a message of this type."""
    return msg_type in _MESSAGE_TYPES


def validate(message: Message, *, user_defined_tags: bool = True, unknown_tags: bool = False) -> Refusal | None:
    """The first thing wrong with a message, or None.

    A message of FIX 4.4 that is not in use here is not checked field by field. With `user_defined_tags` False, tags from
    5000 on are refused as invalid tag numbers. With `unknown_tags` True, no tag is refused for not being defined here.
    """
    rule = _RULES.get(message.msg_type)
    if rule is None:
        return None if message.msg_type in _MESSAGE_TYPES else Refusal(INVALID_MSG_TYPE)
    shape = (message.msg_type, user_defined_tags, unknown_tags, *map(_by_tag, message.fields))
    checks = _plain_shapes.get(shape)
    if checks is not None and message.raw and _HOLDS_NO_VALUE not in message.raw:
        for position, check in checks:
            tag, text = message.fields[position]
            reason = check(text)
            if reason >= 0:
                return Refusal(reason, tag)
        return None
    refusal = _check_fields(message, rule, user_defined_tags, unknown_tags)
    if refusal is not None:
        return refusal
    present = message.first_by_tag.keys()
    grouped = message.duplicates or not _GROUP_TAGS.isdisjoint(present)
    if grouped:
        refusal = _check_structure(message.fields)
        if refusal is not None:
            return refusal
    if not rule.required <= present:
        return Refusal(REQUIRED_TAG_MISSING, min(rule.required - present))
    if not grouped and len(_plain_shapes) < _PLAIN_SHAPES_MAX and len(shape) <= _SHAPE_FIELDS_MAX:
        found = [(position, rule.allowed.get(tag, _any)) for position, (tag, _) in enumerate(message.fields)]
        _plain_shapes[shape] = tuple((position, check) for position, check in found if check is not _any)
    return None


def _check_fields(message: Message, rule: _MessageRule, user_defined_tags: bool, unknown_tags: bool) -> Refusal | None:
    allowed, header, in_header = rule.allowed, _HEADER, True
    for tag, text in message.fields:
        check = allowed.get(tag)
        if check is None:
            if unknown_tags or (tag >= USER_DEFINED_TAG_MIN and user_defined_tags):
                check = _any
            else:
                return Refusal(TAG_NOT_DEFINED if tag in _CHECK_BY_TAG else INVALID_TAG_NUMBER, tag)
        if not text:
            return Refusal(TAG_WITHOUT_VALUE, tag)
        if tag not in header:
            in_header = False
        elif not in_header:
            return Refusal(TAG_OUT_OF_ORDER, tag)
        reason = check(text)
        if reason >= 0:
            return Refusal(reason, tag)
    return None


def _check_structure(fields: list[Pair]) -> Refusal | None:
    """Tags outside repeating groups occur once, and groups have as many entries as their count says."""
    seen: set[int] = set()
    position = 0
    while position < len(fields):
        tag = fields[position][0]
        if tag in seen:
            return Refusal(TAG_REPEATED, tag)
        seen.add(tag)
        if tag in _GROUPS:
            result = _skip_group(fields, position)
            if isinstance(result, Refusal):
                return result
            position = result
        else:
            position += 1
    return None


def _skip_group(fields: list[Pair], start: int) -> int | Refusal:
    """The position after the group whose count field is at `start`. Groups nest as deep as the dictionary's do."""
    count_tag, count_text = fields[start]
    members = _GROUPS[count_tag]
    position, entries = start + 1, 0
    seen: set[int] = set()
    while position < len(fields) and (tag := fields[position][0]) in members:
        if tag == members[0]:
            entries += 1
            seen.clear()
        elif entries == 0:
            break
        if tag in seen:
            return Refusal(TAG_REPEATED, tag)
        seen.add(tag)
        if tag in _GROUPS:
            result = _skip_group(fields, position)
            if isinstance(result, Refusal):
                return result
            position = result
        else:
            position += 1
    if entries != int(count_text):
        return Refusal(GROUP_COUNT_INCORRECT, count_tag)
    return position


def is_admin(msg_type: str) -> bool:
    """Whether a message is of the session level; the rest is for the application."""
    return msg_type in tags.ADMIN_TYPES
