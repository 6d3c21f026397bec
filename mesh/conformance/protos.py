"""Envoy's message types, read from the `xds-protos` package into a pool of their own.

The package and Envoy's own wheel are both called `envoy` in Python, and its `google.rpc` is not the one that the services were generated
for. So it is installed apart (`requirements-conformance.lock`, into `xds/` of the virtual environment), another interpreter reads it once,
and only descriptors come over.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

PACKAGES = Path(sys.prefix) / "xds"
DESCRIPTORS = PACKAGES / "descriptors.binpb"

Json = dict[str, Any]

# Runs isolated, with the package's folder as the only one beside the standard library.
_EXPORT = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root))
from google.protobuf import descriptor_pb2
found = {}
def add(file):
    if file.name not in found:
        found[file.name] = None
        for dependency in file.dependencies:
            add(dependency)
        found[file.name] = file
names = ['google/protobuf/wrappers_pb2', 'google/protobuf/struct_pb2']
names += [str(path.relative_to(root))[:-3] for path in sorted(root.glob('envoy/**/v3/*_pb2.py'))]
for name in names:
    add(importlib.import_module(name.replace('/', '.')).DESCRIPTOR)
whole = descriptor_pb2.FileDescriptorSet()
done = set()
def write(file):
    if file.name not in done:
        done.add(file.name)
        for dependency in file.dependencies:
            write(dependency)
        file.CopyToProto(whole.file.add())
for file in found.values():
    write(file)
pathlib.Path(sys.argv[2]).write_bytes(whole.SerializeToString(deterministic=True))
"""


class ProtosMissingError(Exception):
    """The package is not installed; the text says how it is."""


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """Return the pool of Envoy's v3 types.

    Raises:
        ProtosMissingError: the package is not there.
    """
    if not DESCRIPTORS.is_file():
        _export()
    whole = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    found = descriptor_pool.DescriptorPool()
    for file in whole.file:
        found.AddSerializedFile(file.SerializeToString())
    return found


def _export() -> None:
    if not (PACKAGES / "envoy").is_dir():
        raise ProtosMissingError(f"no xds-protos in {PACKAGES}; `make conformance` installs it")
    part = DESCRIPTORS.with_suffix(".part")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _EXPORT, str(PACKAGES), str(part)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ProtosMissingError(f"xds-protos cannot be read: {done.stderr.strip()[-400:]}")
    part.replace(DESCRIPTORS)


@cache
def message_class(name: str) -> type[Message]:
    """Return the class of a message by its full name, such as `envoy.config.cluster.v3.Cluster`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def to_json(message: Message) -> Json:
    """Return a message in protobuf's JSON mapping, with the fields' own names; what is unset or a plain default is left out."""
    found: Json = json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool())
    return found


def canonical(name: str, document: Json) -> Json:
    """Return a JSON document as a message of this type would be written.

    Raises:
        json_format.ParseError: it is none.
    """
    return to_json(json_format.ParseDict(document, message_class(name)(), descriptor_pool=pool()))
