"""Writes the Lua that checks requests: tables of the contract, then the grammar, the mapping and the door."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from mesh.edge.contract import Binding, ContractError, Method, verbs

Value: TypeAlias = str | int | bool | Mapping[str, "Value"]

_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "double",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_SINT64: "int64",
    FieldDescriptor.TYPE_SFIXED64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_FIXED64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_SINT32: "int32",
    FieldDescriptor.TYPE_SFIXED32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_FIXED32: "uint32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_ENUM: "enum",
}
_WELL_KNOWN = {
    "google.protobuf.Timestamp": "timestamp",
    "google.protobuf.Duration": "duration",
    "google.protobuf.FieldMask": "field_mask",
    "google.protobuf.Struct": "struct",
    "google.protobuf.Value": "value",
    "google.protobuf.ListValue": "list",
    "google.protobuf.Any": "any",
    "google.protobuf.DoubleValue": "double",
    "google.protobuf.FloatValue": "double",
    "google.protobuf.Int64Value": "int64",
    "google.protobuf.UInt64Value": "uint64",
    "google.protobuf.Int32Value": "int32",
    "google.protobuf.UInt32Value": "uint32",
    "google.protobuf.BoolValue": "bool",
    "google.protobuf.StringValue": "string",
    "google.protobuf.BytesValue": "bytes",
}
_PLAIN = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
_HERE = Path(__file__).parent
_SOURCES = ("strict_json.lua", "json_mapping.lua", "door.lua")


def script(methods: Sequence[Method], passed: Iterable[str], *, body_bytes_max: int, depth_max: int) -> str:
    """Return the Lua of the edge.

    Args:
        methods: those that clients outside may call.
        passed: paths that are no RPC and go on as they are.
        body_bytes_max: of a JSON body.
        depth_max: of objects and arrays within each other.

    Raises:
        ContractError: two methods share a door, or a binding names a field that there is not.
    """
    messages = _Messages()
    tree = _tree(methods, messages)
    parts = [
        f"local BODY_BYTES_MAX, DEPTH_MAX = {body_bytes_max}, {depth_max}",
        "local SOURCES = {}",
        *(f"SOURCES[{number}] = {_quoted(f'return {_lua(table)}')}" for number, table in messages.tables()),
        f"local TREE = {_lua(tree)}",
        f"local VERBS = {_lua(dict.fromkeys(sorted(verbs(methods)), True))}",
        f"local GRPC = {_lua({method.path: True for method in methods})}",
        f"local PASSED = {_lua(dict.fromkeys(sorted(passed), True))}",
    ]
    return "\n".join([*parts, *((_HERE / name).read_text() for name in _SOURCES)])


def full_script(*, header: str, status: int, hold_milliseconds: int) -> str:
    """Return the Lua that remembers that a pool is full.

    Args:
        header: marks the answer of whoever found it full.
        status: of those who are refused without asking.
        hold_milliseconds: how long one word is taken.
    """
    known = f'local HEADER, STATUS, HOLD_MS = "{header}", "{status}", {hold_milliseconds}'
    return "\n".join([known, (_HERE / "full.lua").read_text()])


def lines_script() -> str:
    """Return the Lua that labels streams of lines."""
    return (_HERE / "lines.lua").read_text()


def _quoted(text: str) -> str:
    """A table as text, which is made when it is first needed."""
    if "]==]" in text:
        raise ContractError("a name ends Lua's longest quotes")
    return f"[==[{text}]==]"


class _Messages:
    """Numbers the messages that requests are made of, and describes them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._descriptors: list[Descriptor] = []

    def number(self, message: Descriptor) -> int:
        known = self._numbers.get(message.full_name)
        if known is None:
            known = self._numbers[message.full_name] = len(self._descriptors) + 1
            self._descriptors.append(message)
        return known

    def tables(self) -> Iterable[tuple[int, Value]]:
        number = 0
        while number < len(self._descriptors):
            message = self._descriptors[number]
            number += 1
            fields: dict[str, Value] = {field.name: self._field(field) for field in message.fields}
            spellings: dict[str, Value] = {field.json_name: field.name for field in message.fields if field.json_name != field.name}
            yield number, {"n": message.name, "f": fields, "a": spellings}

    def _field(self, field: FieldDescriptor) -> Value:
        table: dict[str, Value] = {"n": field.name}
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            table["o"] = f"oneof {oneof.name}"
        inner = field
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            table["key"] = _KINDS[message.fields_by_name["key"].type]
            inner = message.fields_by_name["value"]
        elif field.is_repeated:
            table["r"] = True
        return {**table, **self._kind(inner)}

    def _kind(self, field: FieldDescriptor) -> dict[str, Value]:
        message = field.message_type
        if message is not None:
            known = _WELL_KNOWN.get(message.full_name)
            return {"k": known} if known else {"k": "message", "m": self.number(message)}
        if field.enum_type is not None:
            names: dict[str, Value] = {value.name: True for value in field.enum_type.values}
            return {"k": "enum", "e": names, "t": field.enum_type.name}
        return {"k": _KINDS[field.type]}


def _tree(methods: Sequence[Method], messages: _Messages) -> Value:
    tree: dict[str, Value] = {}
    for method in methods:
        for binding in method.bindings:
            node = tree
            for segment in binding.segments:
                if segment == "**":
                    node = _branch(node, "x")
                    break
                node = _branch(node, "w") if segment == "*" else _branch(_branch(node, "s"), segment)
            else:
                node = _branch(node, "e")
            doors = _branch(node, binding.custom_verb)
            if binding.verb in doors:
                raise ContractError(f"{method.path} shares its door {binding.verb} /{'/'.join(binding.segments)} with another method")
            doors[binding.verb] = _door(method, binding, messages)
            doors["allow"] = ", ".join(sorted(verb for verb in doors if verb != "allow"))
    return tree


def _branch(node: dict[str, Value], name: str) -> dict[str, Value]:
    branch = node.setdefault(name, {})
    assert isinstance(branch, dict)
    return branch


def _door(method: Method, binding: Binding, messages: _Messages) -> Value:
    message = method.descriptor.input_type
    door: dict[str, Value] = {"m": method.path, "i": messages.number(message)}
    bound: dict[str, Value] = {}
    for variable in binding.variables:
        _mark(message, variable, bound)
    if bound:
        door["p"] = bound
    if binding.body:
        if binding.body != "*" and binding.body not in message.fields_by_name:
            raise ContractError(f"{method.path}: the body {binding.body} is no field of {message.full_name}")
        door["b"] = binding.body
    if binding.body != "*":
        door["q"] = {**bound, binding.body: True} if binding.body else bound
    return door


def _mark(message: Descriptor, variable: str, bound: dict[str, Value]) -> None:
    """Mark a dotted field as given by the path."""
    *outer, last = variable.split(".")
    for name in outer:
        field = message.fields_by_name.get(name)
        if field is None or field.message_type is None:
            raise ContractError(f"the path variable {variable} is no field of {message.full_name}")
        message, bound = field.message_type, _branch(bound, name)
    if last not in message.fields_by_name:
        raise ContractError(f"the path variable {variable} is no field of {message.full_name}")
    bound[last] = True


def _lua(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) is None:
            raise ContractError(f"not a plain name: {value!r}")
        return f'"{value}"'
    return "{" + ",".join(f"[{_lua(key)}]={_lua(item)}" for key, item in value.items()) + "}"
