"""The strict door once more, by other means: Python's JSON parser, then rules on the parsed document. It shares no code with the Lua."""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

DEPTH_MAX = 32

_INTEGER = re.compile(r"-?[1-9][0-9]*|0")
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DURATION = re.compile(r"-?(\d{1,12})(\.\d{1,9})?s", re.ASCII)
_MASK = re.compile(r"(?:[a-z][A-Za-z0-9]*(?:\.[a-z][A-Za-z0-9]*)*(?:,(?=.)|$))*", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


class RefusedError(Exception):
    """The document is not one that the door takes."""


class Number(str):
    """A JSON number as it is written."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """A JSON object with its members in order, doubled ones included."""


def check(document: bytes, message: Descriptor, bound: frozenset[str]) -> None:
    """Check a document against a message of which the path gives some fields.

    Raises:
        RefusedError: it breaks a rule.
    """
    try:
        parsed = json.loads(
            document.decode("utf-8"), object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=_constant
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RefusedError(str(error)) from None
    _texts(parsed, 0)
    _message(parsed, message, bound)


def _constant(name: str) -> Any:
    raise RefusedError(name)


def _texts(value: Any, depth: int) -> None:
    """What holds everywhere: depth, characters, names once."""
    if isinstance(value, Pairs | list):
        if depth >= DEPTH_MAX:
            raise RefusedError("depth")
        if isinstance(value, Pairs):
            if len({name for name, _ in value}) != len(value):
                raise RefusedError("a name twice")
            for name, item in value:
                _texts(name, depth)
                _texts(item, depth + 1)
        else:
            for item in value:
                _texts(item, depth + 1)
    elif isinstance(value, str) and ("\0" in value or any(0xD800 <= ord(c) <= 0xDFFF for c in value)):
        raise RefusedError("characters")


def _message(value: Any, message: Descriptor, bound: frozenset[str] = frozenset()) -> None:
    if not isinstance(value, Pairs):
        raise RefusedError("not an object")
    by_name = {name: field for field in message.fields for name in (field.name, field.json_name)}
    given: set[str] = set()
    chosen: set[str] = set()
    for name, item in value:
        field = by_name.get(name)
        if field is None or field.name in given or field.name in bound:
            raise RefusedError(f"{name}: unknown, twice or bound")
        given.add(field.name)
        is_value = field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"
        if item is None and not is_value:
            continue
        oneof = field.containing_oneof
        if oneof is not None and not oneof.name.startswith("_"):
            if oneof.name in chosen:
                raise RefusedError("oneof")
            chosen.add(oneof.name)
        _field(item, field)


def _field(value: Any, field: FieldDescriptor) -> None:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        if not isinstance(value, Pairs):
            raise RefusedError("not a map")
        for key, item in value:
            _key(key, message.fields_by_name["key"])
            _one(item, message.fields_by_name["value"])
    elif field.is_repeated:
        if isinstance(value, Pairs) or not isinstance(value, list):
            raise RefusedError("not a list")
        for item in value:
            _one(item, field)
    else:
        _one(value, field)


def _key(key: str, field: FieldDescriptor) -> None:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if key not in {"true", "false"}:
            raise RefusedError("bool key")
    elif field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        _integer(key, field)


def _one(value: Any, field: FieldDescriptor) -> None:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name.startswith("google.protobuf."):
            _well_known(value, name.removeprefix("google.protobuf."), field.message_type)
        else:
            _message(value, field.message_type)
    elif field.enum_type is not None:
        if not _is_text(value) or value not in field.enum_type.values_by_name:
            raise RefusedError("enum")
    else:
        _scalar(value, field)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def _scalar(value: Any, field: FieldDescriptor) -> None:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise RefusedError("bool")
    elif kind in _RANGES:
        if not isinstance(value, str):
            raise RefusedError("integer")
        _integer(value, field)
    elif kind == FieldDescriptor.CPPTYPE_DOUBLE:
        if not isinstance(value, str) or not ((_is_text(value) and value in {"NaN", "Infinity", "-Infinity"}) or _NUMBER.fullmatch(value)):
            raise RefusedError("double")
        _finite(value)
    elif not _is_text(value):
        raise RefusedError("string")
    elif field.type == FieldDescriptor.TYPE_BYTES:
        _base64(value)


def _integer(value: str, field: FieldDescriptor) -> None:
    low, high = _RANGES[field.cpp_type]
    if _INTEGER.fullmatch(value) is None or not low <= int(value) <= high:
        raise RefusedError("integer")


def _finite(value: str) -> None:
    if _NUMBER.fullmatch(value) and math.isinf(float(value)):
        raise RefusedError("range")


def _base64(value: str) -> None:
    plain = value.rstrip("=")
    padding = len(value) - len(plain)
    alphabets = (r"[A-Za-z0-9+/]*", r"[A-Za-z0-9_-]*")
    if not any(re.fullmatch(alphabet, plain) for alphabet in alphabets) or len(plain) % 4 == 1:
        raise RefusedError("base64")
    if padding and (padding > 2 or len(value) % 4):
        raise RefusedError("base64 padding")
    base64.urlsafe_b64decode(plain.replace("+", "-").replace("/", "_") + "=" * (-len(plain) % 4))


def _well_known(value: Any, name: str, message: Descriptor) -> None:
    if name in {"Value", "Struct", "ListValue"}:
        wanted = {"Value": object, "Struct": Pairs, "ListValue": list}[name]
        if not isinstance(value, wanted) or (name == "ListValue" and isinstance(value, Pairs)):
            raise RefusedError(name)
        _numbers(value)
    elif name.endswith("Value"):
        _scalar(value, message.fields_by_name["value"])
    elif not _is_text(value):
        raise RefusedError(name)
    elif name == "Timestamp":
        _timestamp(value)
    elif name == "Duration":
        found = _DURATION.fullmatch(value)
        if found is None or int(found[1]) > 315_576_000_000 - (1 if found[2] else 0):
            raise RefusedError("duration")
    elif _MASK.fullmatch(value) is None:
        raise RefusedError("mask")


def _numbers(value: Any) -> None:
    if isinstance(value, Number):
        _finite(value)
    elif isinstance(value, Pairs):
        for _, item in value:
            _numbers(item)
    elif isinstance(value, list):
        for item in value:
            _numbers(item)


def _timestamp(value: str) -> None:
    found = _TIME.fullmatch(value)
    if found is None:
        raise RefusedError("time")
    try:
        when = datetime.datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise RefusedError("time") from None
    if found[3] != "Z":
        hours, minutes = int(found[3][1:3]), int(found[3][4:])
        if hours > 23 or minutes > 59 or not 1 < when.year < 9999:
            raise RefusedError("zone")
