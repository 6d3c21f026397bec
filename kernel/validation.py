"""Form: a message is parsed, has no field that the contract does not know, and obeys the contract's rules (protovalidate).

All three are exact and cheap: 1 µs for the unknown fields of an order, some 15 µs for its rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import protovalidate
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from kernel.errors import FieldViolation, InvalidArgumentError, Reason

M = TypeVar("M", bound=Message)

VIOLATIONS_MAX = 32
"""Violations that one error reports; a message with more is broken enough."""

_MESSAGE_DEPTH_MAX = 60
# The longest texts of a violation's description that name the field themselves, `limit_price: required on a limit order`.
_FIELD_PREFIX_MAX = 64

_collect_violations = protovalidate.Validator().collect_violations


def parse(message_type: type[M], data: bytes) -> M:
    """Return the message that the bytes hold.

    Raises:
        InvalidArgumentError: FIELD_INVALID, the bytes are no such message.
    """
    try:
        return message_type.FromString(data)
    except DecodeError:
        raise InvalidArgumentError(Reason.FIELD_INVALID, f"the bytes are not a {message_type.DESCRIPTOR.full_name}") from None


def refuse_unknown_fields(message: Message) -> None:
    """Check that no part of the message carries a field that its type does not know.

    Serialization keeps unknown fields, so discarding them makes the message shorter exactly when there are any, at any depth.

    Raises:
        InvalidArgumentError: FIELD_UNKNOWN.
    """
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise InvalidArgumentError(
            Reason.FIELD_UNKNOWN, f"{message.DESCRIPTOR.full_name} carries fields that this version of the contract does not know"
        )


def check(message: Message) -> None:
    """Check the contract's rules, all of them at once.

    Raises:
        InvalidArgumentError: FIELD_INVALID with one violation per field and rule, at most 32.
    """
    found = _collect_violations(message)
    if found:
        violations = [_violation(message.DESCRIPTOR, item.proto) for item in found[:VIOLATIONS_MAX]]
        first = violations[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        text = f"{first.field}: {first.description}" if first.field else first.description
        raise InvalidArgumentError(Reason.FIELD_INVALID, text + more, field_violations=violations)


def compile_rules(message_type: type[Message]) -> None:
    """Compile the rules of a type now rather than in its first call.

    Raises:
        protovalidate.CompilationError: a rule of the contract does not compile.
    """
    _collect_violations(message_type(), fail_fast=True)


def check_exact(descriptor: Descriptor) -> None:
    """Check that the unknown-field rule is exact for a type: discarding stops at a depth that only a recursive type can reach.

    Raises:
        ValueError: the type is recursive.
    """
    _check_depth(descriptor, ())


def _check_depth(descriptor: Descriptor, path: tuple[str, ...]) -> None:
    if descriptor.full_name in path or len(path) > _MESSAGE_DEPTH_MAX:
        raise ValueError(f"{path[0]} is recursive through {descriptor.full_name}; unknown fields in it could hide")
    for field in descriptor.fields:
        if field.message_type is not None:
            _check_depth(field.message_type, (*path, descriptor.full_name))


def _violation(descriptor: Any, violation: Any) -> FieldViolation:
    elements: Sequence[Any] = violation.field.elements if violation.field is not None else ()
    path = "".join(_step(element, first=index == 0) for index, element in enumerate(elements))
    message = str(violation.message or "")
    # A rule across fields belongs to no one field; by convention its text begins with the one to blame.
    name, separator, rest = message[:_FIELD_PREFIX_MAX].partition(": ")
    if separator and name in _fields_at(descriptor, elements):
        path, message = f"{path}.{name}" if path else name, message[len(name) + 2 :] if rest else message
    return FieldViolation(path, str(violation.rule_id or ""), message)


def _step(element: Any, *, first: bool) -> str:
    name = str(element.field_name) if first else f".{element.field_name}"
    subscript = element.subscript
    if subscript is None:
        return name
    value = subscript.value
    return f'{name}["{value}"]' if isinstance(value, str) else f"{name}[{value}]"


def _fields_at(descriptor: Any, elements: Sequence[Any]) -> frozenset[str]:
    """Names of the fields of the message that a path leads to; none where the path leads to a plain value."""
    for element in elements:
        field = descriptor.fields_by_name.get(str(element.field_name))
        if field is None or field.message_type is None:
            return frozenset()
        descriptor = field.message_type
    return frozenset(field.name for field in descriptor.fields)
