"""JSON requests, read strictly: every name known and given once, every value of the type that the contract says.

`google.protobuf.json_format` alone lets both spellings of a field's name stand beside each other, and says in prose what it dislikes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kernel.errors import FieldViolation, InvalidArgumentError, Reason

DEPTH_MAX = 16
VIOLATIONS_MAX = 32

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})", re.ASCII)
_INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
_FLOATS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}
_KINDS: dict[type, str] = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}

M = TypeVar("M", bound=Message)


def parse_object(text: str) -> dict[str, Any]:
    """Read one JSON object (RFC 8259); no name twice in any object, no NaN.

    Raises:
        InvalidArgumentError: JSON_INVALID.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(Reason.JSON_INVALID, f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InvalidArgumentError(Reason.JSON_INVALID, "not JSON that anybody needs: nested too deeply") from None
    except ValueError as error:
        raise InvalidArgumentError(Reason.JSON_INVALID, f"not JSON: {error}"[:256]) from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(Reason.JSON_INVALID, "not a JSON object")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:64]!r} comes twice in one object")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def parse_request(value: Mapping[str, Any], request_type: type[M]) -> M:
    """Return the message that a JSON object stands for (proto3 JSON mapping, field names in either spelling).

    The rules of the contract beyond form (patterns, ranges) are left to the service.

    Raises:
        InvalidArgumentError: FIELD_UNKNOWN or FIELD_INVALID, with up to 32 violations, each naming its field.
    """
    violations: list[FieldViolation] = []
    for violation in _message(value, cast("Descriptor", request_type.DESCRIPTOR), "", 1):
        violations.append(violation)
        if len(violations) == VIOLATIONS_MAX:
            break
    if violations:
        unknown = any(violation.rule == "field.known" for violation in violations)
        first = violations[0]
        reason = Reason.FIELD_UNKNOWN if unknown else Reason.FIELD_INVALID
        raise InvalidArgumentError(reason, f"{first.field}: {first.description}", field_violations=violations)
    try:
        return json_format.ParseDict(dict(value), request_type())
    except json_format.ParseError as error:
        # What is left: numbers out of range, two members of a oneof.
        text = str(error).partition("\n")[0][:256]
        violation = FieldViolation("request", "json.type", text)
        raise InvalidArgumentError(Reason.FIELD_INVALID, text, field_violations=(violation,)) from None


def _message(value: object, descriptor: Descriptor, path: str, depth: int) -> Iterator[FieldViolation]:
    if descriptor.file.package == "google.protobuf":
        yield from _well_known(value, descriptor, path)
        return
    if depth > DEPTH_MAX:
        yield FieldViolation(path or "request", "json.depth", f"is nested deeper than {DEPTH_MAX} levels")
        return
    if not isinstance(value, dict):
        yield _mistyped(path or "request", value, "an object")
        return
    given: dict[str, str] = {}
    for name, member in value.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        inner = f"{path}.{name[:64]}" if path else name[:64]
        if field is None:
            yield FieldViolation(inner, "field.known", f"is not a field of {descriptor.full_name}")
        elif field.name in given:
            yield FieldViolation(inner, "field.once", f"is given twice, also as {given[field.name]}")
        else:
            given[field.name] = name
            yield from _field(member, field, inner, depth)


def _field(value: object, field: FieldDescriptor, path: str, depth: int) -> Iterator[FieldViolation]:
    if value is None:
        # proto3 JSON: null leaves a field unset.
        return
    entry = field.message_type if field.message_type is not None and field.message_type.GetOptions().map_entry else None
    if entry is not None:
        if not isinstance(value, dict):
            yield _mistyped(path, value, "an object")
            return
        for key, member in value.items():
            yield from _single(member, entry.fields_by_name["value"], f"{path}[{key[:64]!r}]", depth)
    elif field.is_repeated:
        if not isinstance(value, list):
            yield _mistyped(path, value, "a list")
            return
        for index, member in enumerate(value):
            yield from _single(member, field, f"{path}[{index}]", depth)
    else:
        yield from _single(value, field, path, depth)


def _single(value: object, field: FieldDescriptor, path: str, depth: int) -> Iterator[FieldViolation]:
    kind = field.cpp_type
    if field.message_type is not None:
        yield from _message(value, field.message_type, path, depth + 1)
    elif kind == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            yield _mistyped(path, value, "true or false")
    elif kind in _INTEGERS:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (isinstance(value, str) and _INTEGER.fullmatch(value)):
            yield _mistyped(path, value, "a whole number")
    elif kind in _FLOATS:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield _mistyped(path, value, "a number")
    elif field.enum_type is not None:
        if not isinstance(value, str) or value not in field.enum_type.values_by_name:
            names = ", ".join(value.name for value in field.enum_type.values)
            yield FieldViolation(path, "json.type", f"must be one of {names}"[:512])
    elif not isinstance(value, str):
        yield _mistyped(path, value, "a string")


def _well_known(value: object, descriptor: Descriptor, path: str) -> Iterator[FieldViolation]:
    try:
        json_format.Parse(json.dumps(value), GetMessageClass(descriptor)())
    except (json_format.ParseError, ValueError):
        yield FieldViolation(path, "json.type", f"is not the JSON form of {descriptor.full_name}")


def _mistyped(path: str, value: object, wanted: str) -> FieldViolation:
    return FieldViolation(path, "json.type", f"must be {wanted}, not {_KINDS.get(type(value), 'null')}")
