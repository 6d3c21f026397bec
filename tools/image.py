"""A compiled descriptor set, read without any generated code.

Everything comes from one private descriptor pool built of the image itself, so that the extensions in options (HTTP bindings,
validation rules, our own predefined rules) resolve against the very protos that are being looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import protovalidate
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

OWN_PREFIX = "trademesh/"

# Field numbers within FileDescriptorProto, DescriptorProto, ... that lead to an element; SourceCodeInfo addresses comments by them.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM, _MESSAGE_ONEOF = 2, 3, 4, 8
_ENUM_VALUE, _SERVICE_METHOD = 2, 2


@dataclass(frozen=True)
class Method:
    """One RPC with the service that it belongs to."""

    full_name: str
    service: descriptor_pb2.ServiceDescriptorProto
    proto: descriptor_pb2.MethodDescriptorProto


class Image:
    """Messages, enums, services and comments of a serialized FileDescriptorSet that includes its imports.

    `methods` are those of the contract's own packages, `foreign_methods` those of the packages that it imports.
    """

    def __init__(self, serialized: bytes) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        # Its own, because a validator remembers message types, and another image's may have the same names.
        self._validator = protovalidate.Validator()
        for file in descriptor_pb2.FileDescriptorSet.FromString(serialized).file:
            self._pool.AddSerializedFile(file.SerializeToString())
        files = self.message_class("google.protobuf.FileDescriptorSet").FromString(serialized)
        self.files = cast("descriptor_pb2.FileDescriptorSet", files).file
        self.messages: dict[str, descriptor_pb2.DescriptorProto] = {}
        self.enums: dict[str, descriptor_pb2.EnumDescriptorProto] = {}
        self.extensions: dict[str, descriptor_pb2.FieldDescriptorProto] = {}
        self.methods: list[Method] = []
        self.foreign_methods: list[Method] = []
        self.own: set[str] = set()
        self.comments: dict[str, str] = {}
        for file in self.files:
            self._read(file)

    def message_class(self, full_name: str) -> type[Message]:
        """The message class of this image's pool."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))

    def option(self, options: Message, extension: str) -> Any:
        """The value of an extension in options, or None where it is not set or the image does not know it."""
        try:
            field: Any = self._pool.FindExtensionByName(extension)
        except KeyError:
            return None
        if field.is_repeated:
            return list(options.Extensions[field])
        return options.Extensions[field] if options.HasExtension(field) else None

    def refused_when_unset(self, full_name: str) -> dict[str, str]:
        """Fields that an empty message violates, each with the rule's id; the validator itself says which."""
        refused = {}
        for violation in self._validator.collect_violations(self.message_class(full_name)()):
            path = violation.proto.field
            if path is not None and path.elements and path.elements[0].field_name:
                refused[path.elements[0].field_name] = violation.proto.rule_id or ""
        return refused

    def _read(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        names = dict(_addresses(file))
        for location in file.source_code_info.location:
            if tuple(location.path) in names and location.leading_comments:
                self.comments[names[tuple(location.path)]] = _plain(location.leading_comments)
        before = len(self.messages), len(self.enums)
        for message in file.message_type:
            self._read_message(f"{file.package}.{message.name}", message)
        for enum in file.enum_type:
            self.enums[f"{file.package}.{enum.name}"] = enum
        for extension in file.extension:
            self.extensions[f"{file.package}.{extension.name}"] = extension
        own = file.name.startswith(OWN_PREFIX)
        if own:
            self.own.update([*self.messages][before[0] :], [*self.enums][before[1] :])
        methods = self.methods if own else self.foreign_methods
        for service in file.service:
            methods += [Method(f"{file.package}.{service.name}.{method.name}", service, method) for method in service.method]

    def _read_message(self, full_name: str, message: descriptor_pb2.DescriptorProto) -> None:
        self.messages[full_name] = message
        for nested in message.nested_type:
            self._read_message(f"{full_name}.{nested.name}", nested)
        for enum in message.enum_type:
            self.enums[f"{full_name}.{enum.name}"] = enum


def _addresses(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for index, message in enumerate(file.message_type):
        yield from _message_addresses((_FILE_MESSAGE, index), f"{file.package}.{message.name}", message)
    for index, enum in enumerate(file.enum_type):
        yield from _enum_addresses((_FILE_ENUM, index), f"{file.package}.{enum.name}", enum)
    for index, service in enumerate(file.service):
        path, name = (_FILE_SERVICE, index), f"{file.package}.{service.name}"
        yield path, name
        for position, method in enumerate(service.method):
            yield (*path, _SERVICE_METHOD, position), f"{name}.{method.name}"


def _message_addresses(path: tuple[int, ...], name: str, message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _MESSAGE_FIELD, index), f"{name}.{field.name}"
    for index, oneof in enumerate(message.oneof_decl):
        yield (*path, _MESSAGE_ONEOF, index), f"{name}.{oneof.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _message_addresses((*path, _MESSAGE_NESTED, index), f"{name}.{nested.name}", nested)
    for index, enum in enumerate(message.enum_type):
        yield from _enum_addresses((*path, _MESSAGE_ENUM, index), f"{name}.{enum.name}", enum)


def _enum_addresses(path: tuple[int, ...], name: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for index, value in enumerate(enum.value):
        yield (*path, _ENUM_VALUE, index), f"{name}.{value.name}"


def _plain(comment: str) -> str:
    return "\n".join(line.strip() for line in comment.strip().splitlines())
