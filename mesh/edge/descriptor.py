"""The part of the contract that the transcoder needs: every copy of a descriptor costs Envoy some fifteen times its size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, MethodOptions

_DETAILS = "google/rpc/"
"""Details of errors: one of an unknown type would make the body of an error empty."""


def served_part(descriptor_set: bytes, services: Iterable[str]) -> bytes:
    """Return the files of these services, of every type that their files use, and of the details of errors.

    Of options only REST bindings stay: rules of validation are the services' matter, and they are most of a contract's bytes.

    Args:
        descriptor_set: a serialized `google.protobuf.FileDescriptorSet`, dependencies included.
        services: full names.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    wanted = frozenset(services)
    homes = {name: file.name for file in files for name in _names(file)}
    by_name = {file.name: file for file in files}
    kept: set[str] = set()
    waiting = [file.name for file in files if file.name.startswith(_DETAILS) or _served(file, wanted)]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        kept.add(name)
        file = by_name[name]
        used = {homes[type_name] for type_name in _bare(file, wanted)} - {name}
        for field in ("options", "extension", "public_dependency", "weak_dependency", "dependency"):
            file.ClearField(field)
        file.dependency.extend(sorted(used))
        waiting.extend(used)
    found = descriptor_pb2.FileDescriptorSet(file=[file for file in files if file.name in kept])
    return found.SerializeToString(deterministic=True)


def _served(file: FileDescriptorProto, wanted: frozenset[str]) -> bool:
    return any(f"{file.package}.{service.name}" in wanted for service in file.service)


def _names(file: FileDescriptorProto) -> Iterator[str]:
    scope = f".{file.package}"
    yield from (f"{scope}.{enum.name}" for enum in file.enum_type)
    for message in file.message_type:
        yield from _names_in(scope, message)


def _names_in(scope: str, message: DescriptorProto) -> Iterator[str]:
    own = f"{scope}.{message.name}"
    yield own
    yield from (f"{own}.{enum.name}" for enum in message.enum_type)
    for nested in message.nested_type:
        yield from _names_in(own, nested)


def _bare(file: FileDescriptorProto, wanted: frozenset[str]) -> set[str]:
    """Take options, and services that are not wanted, out of a file; return the types that it still uses."""
    others = [service for service in file.service if f"{file.package}.{service.name}" not in wanted]
    for service in others:
        file.service.remove(service)
    used = set()
    for service in file.service:
        service.ClearField("options")
        for method in service.method:
            used |= {method.input_type, method.output_type}
            binding = MethodOptions()
            if method.options.HasExtension(annotations_pb2.http):  # type: ignore[arg-type]  # the package's types are for another runtime
                binding.Extensions[annotations_pb2.http].CopyFrom(method.options.Extensions[annotations_pb2.http])  # type: ignore[index]  # likewise
            method.options.CopyFrom(binding)
    for enum in file.enum_type:
        _bare_enum(enum)
    for message in file.message_type:
        used |= _bare_message(message)
    return used


def _bare_message(message: DescriptorProto) -> set[str]:
    entry = message.options.map_entry
    message.ClearField("options")
    if entry:
        message.options.map_entry = True
    for part in (*message.field, *message.oneof_decl):
        part.ClearField("options")
    for enum in message.enum_type:
        _bare_enum(enum)
    used = {field.type_name for field in message.field if field.type_name}
    return used.union(*(_bare_message(nested) for nested in message.nested_type))


def _bare_enum(enum: EnumDescriptorProto) -> None:
    enum.ClearField("options")
    for value in enum.value:
        value.ClearField("options")
