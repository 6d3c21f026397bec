"""A contract with a field of every kind that the strict door knows, and a request that consists of it."""

from __future__ import annotations

from typing import Any

from google.api import annotations_pb2
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from mesh.edge.contract import Contract

SERVICE = "test.v1.EverythingService"
MESSAGE = "test.v1.Everything"

_TYPE = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "text": _TYPE.TYPE_STRING,
    "raw_bytes": _TYPE.TYPE_BYTES,
    "flag": _TYPE.TYPE_BOOL,
    "small": _TYPE.TYPE_INT32,
    "count": _TYPE.TYPE_UINT32,
    "big_number": _TYPE.TYPE_INT64,
    "huge_number": _TYPE.TYPE_UINT64,
    "ratio": _TYPE.TYPE_DOUBLE,
    "path_id": _TYPE.TYPE_STRING,
}
_MESSAGES = {
    "inner": MESSAGE,
    "at_time": "google.protobuf.Timestamp",
    "wait_time": "google.protobuf.Duration",
    "update_mask": "google.protobuf.FieldMask",
    "facts": "google.protobuf.Struct",
    "any_value": "google.protobuf.Value",
    "any_list": "google.protobuf.ListValue",
    "maybe_text": "google.protobuf.StringValue",
    "maybe_big": "google.protobuf.Int64Value",
    "maybe_flag": "google.protobuf.BoolValue",
}
_REPEATED = {"inners": MESSAGE, "values": "google.protobuf.Value", "times": "google.protobuf.Timestamp"}
_MAPS = {"labels": (_TYPE.TYPE_STRING, None), "by_number": (_TYPE.TYPE_INT32, MESSAGE), "by_flag": (_TYPE.TYPE_BOOL, None)}
_DEPENDENCIES = (timestamp_pb2, duration_pb2, field_mask_pb2, struct_pb2, wrappers_pb2, annotations_pb2)


def contract() -> Contract:
    """Return the contract of one service, `POST /v1/everything/{path_id}`."""
    file = descriptor_pb2.FileDescriptorProto(name="test/v1/everything.proto", package="test.v1", syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in _DEPENDENCIES)
    color = file.enum_type.add(name="Color")
    for number, name in enumerate(("COLOR_UNSPECIFIED", "COLOR_RED", "COLOR_GREEN")):
        color.value.add(name=name, number=number)
    _fields(file.message_type.add(name="Everything"))
    file.message_type.add(name="Nothing")
    method = file.service.add(name="EverythingService").method.add(name="Put", input_type=f".{MESSAGE}", output_type=".test.v1.Nothing")
    rule: Any = method.options.Extensions[annotations_pb2.http]  # type: ignore[index]  # the package's types are for another runtime
    rule.post, rule.body = "/v1/everything/{path_id}", "*"
    files = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()
    for module in (*_DEPENDENCIES, error_details_pb2, status_pb2):
        _collect(module.DESCRIPTOR, files, seen)
    files.file.append(file)
    return Contract(files.SerializeToString())


def message_class(of: Contract) -> type[Message]:
    """Return the request's class."""
    return message_factory.GetMessageClass(of.message(MESSAGE))


def _fields(message: Any) -> None:
    def add(name: str, **more: Any) -> Any:
        label = more.pop("label", _TYPE.LABEL_OPTIONAL)
        json_name = "".join(part if not index else part.title() for index, part in enumerate(name.split("_")))
        return message.field.add(name=name, json_name=json_name, number=len(message.field) + 1, label=label, **more)

    for name, kind in _SCALARS.items():
        add(name, type=kind)
    add("color", type=_TYPE.TYPE_ENUM, type_name=".test.v1.Color")
    add("colors", type=_TYPE.TYPE_ENUM, type_name=".test.v1.Color", label=_TYPE.LABEL_REPEATED)
    add("texts", type=_TYPE.TYPE_STRING, label=_TYPE.LABEL_REPEATED)
    for name, message_name in _MESSAGES.items():
        add(name, type=_TYPE.TYPE_MESSAGE, type_name=f".{message_name}")
    for name, message_name in _REPEATED.items():
        add(name, type=_TYPE.TYPE_MESSAGE, type_name=f".{message_name}", label=_TYPE.LABEL_REPEATED)
    for name, (key, value) in _MAPS.items():
        entry_name = "".join(part.title() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=key, label=_TYPE.LABEL_OPTIONAL, json_name="key")
        item: dict[str, Any] = {"type": _TYPE.TYPE_STRING} if value is None else {"type": _TYPE.TYPE_MESSAGE, "type_name": f".{value}"}
        entry.field.add(name="value", number=2, label=_TYPE.LABEL_OPTIONAL, json_name="value", **item)
        add(name, type=_TYPE.TYPE_MESSAGE, type_name=f".{MESSAGE}.{entry_name}", label=_TYPE.LABEL_REPEATED)
    message.oneof_decl.add(name="choice")
    add("left_text", type=_TYPE.TYPE_STRING, oneof_index=0)
    add("right_inner", type=_TYPE.TYPE_MESSAGE, type_name=f".{MESSAGE}", oneof_index=0)
    message.oneof_decl.add(name="_note")
    add("note", type=_TYPE.TYPE_STRING, oneof_index=1, proto3_optional=True)


def _collect(file: Any, files: descriptor_pb2.FileDescriptorSet, seen: set[str]) -> None:
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        _collect(dependency, files, seen)
    file.CopyToProto(files.file.add())


def default_pool() -> descriptor_pool.DescriptorPool:
    """Return the pool of the installed messages."""
    return descriptor_pool.Default()
