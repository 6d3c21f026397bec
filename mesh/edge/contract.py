"""The outside half of the contract, read from the generated descriptor: methods, their REST bindings, and what their JSON looks like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

import trademesh

HTTP_BODY = "google.api.HttpBody"

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^{}]*))?\}")


class ContractError(Exception):
    """The descriptor does not hold what the edge needs, or a binding is of a form that the edge does not take."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One REST door of a method.

    Attributes:
        verb: of HTTP, such as `POST`.
        segments: of the path; `*` for a variable of one segment, `**` for one of all that follow.
        custom_verb: behind the colon, such as `cancel`; empty for none.
        variables: fields that the path gives, dotted.
        body: `*`, a field's name, or empty for none.
    """

    verb: str
    segments: tuple[str, ...]
    custom_verb: str
    variables: tuple[str, ...]
    body: str


@dataclass(frozen=True, slots=True)
class Method:
    """One method for clients outside: its full path `/package.Service/Method`, its descriptor and its REST doors."""

    path: str
    descriptor: MethodDescriptor
    bindings: tuple[Binding, ...]

    @property
    def streams_json(self) -> bool:
        """Say whether a JSON client gets a stream of messages, and not one message or bytes."""
        return bool(self.descriptor.server_streaming) and self.descriptor.output_type.full_name != HTTP_BODY


class Contract:
    """A descriptor set with everything that it refers to.

    Args:
        descriptor_set: a serialized `google.protobuf.FileDescriptorSet`, dependencies included, in any order.

    Raises:
        ContractError: a file lacks a dependency.
    """

    def __init__(self, descriptor_set: bytes) -> None:
        self.descriptor_set = descriptor_set
        files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file}
        self._pool = descriptor_pool.DescriptorPool()
        self._services: list[str] = []
        for file in _in_order(files):
            self._pool.AddSerializedFile(file.SerializeToString())
            self._services += [f"{file.package}.{service.name}" for service in file.service]

    def services(self) -> dict[str, ServiceDescriptor]:
        """Return the services that have a REST binding, by full name; the others are for services inside."""
        found = {name: self._pool.FindServiceByName(name) for name in sorted(self._services)}
        return {name: service for name, service in found.items() if any(_rules(method) for method in service.methods)}

    def methods(self, service: str) -> list[Method]:
        """Return the methods of a service, those without a REST binding included.

        Raises:
            ContractError: there is no such service.
        """
        try:
            descriptor = self._pool.FindServiceByName(service)
        except KeyError:
            raise ContractError(f"the contract has no service {service}") from None
        return [
            Method(f"/{service}/{method.name}", method, tuple(_binding(rule) for rule in _rules(method))) for method in descriptor.methods
        ]

    def message(self, name: str) -> Descriptor:
        """Return a message's descriptor by full name.

        Raises:
            ContractError: there is no such message.
        """
        try:
            return self._pool.FindMessageTypeByName(name)
        except KeyError:
            raise ContractError(f"the contract has no message {name}") from None


def installed() -> Contract:
    """Return the contract that is generated beside the installed package `trademesh`.

    Raises:
        ContractError: there is none.
    """
    path = Path(next(iter(trademesh.__path__))).parent / "descriptor" / "trademesh.binpb"
    try:
        return Contract(path.read_bytes())
    except OSError as error:
        raise ContractError(f"cannot read the descriptor of the contract: {error}") from None


def _in_order(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """Every file after those that it imports."""
    done: set[str] = set()

    def visit(name: str, wanted_by: str) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        if name in done:
            return
        done.add(name)
        if name not in files:
            raise ContractError(f"the descriptor set lacks {name}, which {wanted_by} imports")
        for dependency in files[name].dependency:
            yield from visit(dependency, name)
        yield files[name]

    for name in files:
        yield from visit(name, "")


def _rules(method: MethodDescriptor) -> list[http_pb2.HttpRule]:
    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]  # type: ignore[index]  # the package's types are for another runtime
    return [one for one in (rule, *rule.additional_bindings) if one.WhichOneof("pattern")]


def _binding(rule: http_pb2.HttpRule) -> Binding:
    kind = rule.WhichOneof("pattern")
    if kind is None or kind == "custom":
        raise ContractError("custom HTTP verbs are not taken")
    template: str = getattr(rule, kind)
    variables: list[str] = []

    def opened(found: re.Match[str]) -> str:
        variables.append(found[1])
        return found[2] or "*"

    path = _VARIABLE.sub(opened, template)
    head, _, last = path.rpartition("/")
    last, _, custom_verb = last.partition(":")
    segments = tuple(f"{head}/{last}".strip("/").split("/"))
    if "{" in path or not all(segments) or "**" in segments[:-1]:
        raise ContractError(f"the path template is not taken: {template}")
    return Binding(kind.upper(), segments, custom_verb, tuple(variables), rule.body)


def verbs(methods: Iterable[Method]) -> frozenset[str]:
    """Return all custom verbs: a colon before one of them ends a path's last segment, any other colon is part of it."""
    return frozenset(binding.custom_verb for method in methods for binding in method.bindings if binding.custom_verb)
