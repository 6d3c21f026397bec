"""The part of the contract that the transcoder needs: every copy of a descriptor costs Envoy some fifteen times its size."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from google.api import annotations_pb2
from google.longrunning import operations_proto_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, MethodDescriptorProto, MethodOptions

_DETAILS = "google/rpc/"
"""Details of errors: one of an unknown type would make the body of an error empty."""


def served_part(descriptor_set: bytes, methods: Collection[str]) -> bytes:
    """Return the services of these methods with these alone, every type that they use, and the details of errors.

    Of options only REST bindings stay: rules of validation are the services' matter, and they are most of a contract's bytes.

    Args:
        descriptor_set: a serialized `google.protobuf.FileDescriptorSet`, dependencies included.
        methods: full names, such as `trademesh.oms.v1.OrderService.GetOrder`.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    homes = {name: (file, _top(file, name)) for file in files for name in _names(file)}
    waiting: set[str] = set()
    for file in files:
        waiting |= _bare_services(file, methods)
        if file.name.startswith(_DETAILS):
            waiting |= {_full_name(file, kind) for kind in _kinds(file)}
    uses: dict[str, set[str]] = {}
    while waiting:
        file, kind = homes[waiting.pop()]
        name = _full_name(file, kind)
        if name not in uses:
            uses[name] = _bare_message(kind) if isinstance(kind, DescriptorProto) else _bare_enum(kind)
            waiting |= uses[name]
    return _without_others(files, uses, {name: file.name for name, (file, _) in homes.items()})


def _without_others(files: Iterable[FileDescriptorProto], uses: Mapping[str, set[str]], homes: Mapping[str, str]) -> bytes:
    kept = []
    for file in files:
        for kinds in (file.message_type, file.enum_type):
            for kind in [kind for kind in kinds if _full_name(file, kind) not in uses]:
                kinds.remove(kind)  # type: ignore[arg-type]  # both of one loop
        if not (file.message_type or file.enum_type or file.service):
            continue
        for field in ("options", "extension", "public_dependency", "weak_dependency", "dependency"):
            file.ClearField(field)
        types = {name for service in file.service for method in service.method for name in (method.input_type, method.output_type)}
        types = types.union(*(uses[_full_name(file, message)] for message in file.message_type))
        file.dependency.extend(sorted({homes[name] for name in types} - {file.name}))
        kept.append(file)
    return descriptor_pb2.FileDescriptorSet(file=kept).SerializeToString(deterministic=True)


def _top(file: FileDescriptorProto, name: str) -> DescriptorProto | EnumDescriptorProto:
    """Return the type of a file that a name is, or is nested in."""
    own = name.removeprefix(f".{file.package}.").partition(".")[0]
    return next(kind for kind in _kinds(file) if kind.name == own)


def _full_name(file: FileDescriptorProto, top: DescriptorProto | EnumDescriptorProto) -> str:
    return f".{file.package}.{top.name}"


def _kinds(file: FileDescriptorProto) -> list[DescriptorProto | EnumDescriptorProto]:
    return [*file.message_type, *file.enum_type]


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


def _bare_services(file: FileDescriptorProto, methods: Collection[str]) -> set[str]:
    """Take the other methods, services without any, and options out of a file; return the types that its methods use."""
    used = set()
    for service in tuple(file.service):
        service.ClearField("options")
        for method in tuple(service.method):
            if f"{file.package}.{service.name}.{method.name}" not in methods:
                service.method.remove(method)
                continue
            used |= {method.input_type, method.output_type, *_operation_types(file, method)}
            binding = MethodOptions()
            if method.options.HasExtension(annotations_pb2.http):  # type: ignore[arg-type]  # the package's types are for another runtime
                binding.Extensions[annotations_pb2.http].CopyFrom(method.options.Extensions[annotations_pb2.http])  # type: ignore[index]  # likewise
            method.options.CopyFrom(binding)
        if not service.method:
            file.service.remove(service)
    return used


def _operation_types(file: FileDescriptorProto, method: MethodDescriptorProto) -> set[str]:
    """Return what an operation of the method carries in an `Any`, which no field names."""
    operation: Any = method.options.Extensions[operations_proto_pb2.operation_info]  # type: ignore[index]  # as below
    named = {operation.response_type, operation.metadata_type} - {""}
    return {f".{name}" if "." in name else f".{file.package}.{name}" for name in named}


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


def _bare_enum(enum: EnumDescriptorProto) -> set[str]:
    enum.ClearField("options")
    for value in enum.value:
        value.ClearField("options")
    return set()
