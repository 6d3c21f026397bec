"""Every scalar of the manifests, each changed once, and what the comparison with Istio's committed answers says of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mesh.conformance import normal
from mesh.conformance.committed import Committed, read
from mesh.conformance.compare import Difference, differences
from mesh.conformance.differences import Entry, table
from mesh.conformance.run import SOCKETS
from mesh.conformance.workloads import issuers, shipped, workloads
from mesh.local.compiler import Manifests, compile_mesh, load, registry
from mesh.local.compiler.manifests import KUSTOMIZATION_FILE, MESH_FILE

Json = dict[str, Any]
Steps = tuple[str | int, ...]

_DURATION = re.compile(r"(\d+)(ms|s|m|h)")


@dataclass(frozen=True)
class Leaf:
    """One scalar of a manifest: its file, the object's place in it, the steps to the scalar, and how people name it."""

    file: str
    position: int
    steps: Steps
    name: str


def leaves() -> list[Leaf]:
    """Return every scalar of MeshConfig and of every object's spec."""
    return [
        Leaf(file, position, steps, f"{file}: {_object_name(document)}{_shown(steps)}")
        for file, documents in originals().items()
        for position, document in enumerate(documents)
        for steps in _scalars(document)
        if file == MESH_FILE or steps[0] == "spec"
    ]


@cache
def originals() -> Mapping[str, list[Json]]:
    """Return the documents of each file, as they are written."""
    return {
        path.name: [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
        for path in sorted(shipped().glob("*.yaml"))
        if path.name != KUSTOMIZATION_FILE
    }


def mutated(leaf: Leaf, folder: Path) -> Manifests:
    """Return the manifests with one scalar changed, without a registry.

    Raises:
        mesh.local.compiler.ManifestError: they are refused.
    """
    document = copy.deepcopy(originals()[leaf.file][leaf.position])
    holder: Any = document
    for step in leaf.steps[:-1]:
        holder = holder[step]
    holder[leaf.steps[-1]] = _changed(holder[leaf.steps[-1]])
    if leaf.file == MESH_FILE:
        (folder / MESH_FILE).write_text(yaml.safe_dump(document))
        return replace(_loaded(), mesh=load(folder).mesh)
    kind, metadata = document["kind"], document["metadata"]
    others = tuple(
        item for item in _loaded().objects if (item.kind, item.name, item.namespace) != (kind, metadata["name"], metadata["namespace"])
    )
    return replace(_loaded(), objects=others).with_objects([document], origin=leaf.file)


@cache
def _loaded() -> Manifests:
    return load(shipped())


def _changed(value: Any) -> Any:
    """Another value of the same form, as far as there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if value.isdigit():
        return str(int(value) + 1)
    duration = _DURATION.fullmatch(value)
    return f"{int(duration[1]) + 1}{duration[2]}" if duration is not None else f"{value}x"


class Oracle:
    """Istio's committed answers, and what of them differs anyway."""

    def __init__(self) -> None:
        answered = read()
        assert answered is not None, "nothing of Istio's is committed: `make conformance`"
        self._answered: Committed = answered
        self._entries: tuple[Entry, ...] = table()
        self._forms = {instance: normal.served(resources) for instance, resources in answered.runs[SOCKETS].items()}
        self._plain = self._compiled(_loaded())
        self._known = {instance: {_identity(item) for item in self._differences(instance, form)} for instance, form in self._plain.items()}

    def notices(self, manifests: Manifests, near: str) -> bool:
        """Say whether the comparison finds fault with what is compiled of these manifests; what happens near a service is looked at first.

        Raises:
            mesh.local.compiler.ManifestError: they are refused.
        """
        first = {f"{near.replace('-', '_')}-0", "edge-0"}
        return self._finds(manifests, first) or self._finds(manifests, set(self._plain) - first)

    def changes(self, manifests: Manifests) -> bool:
        """Say whether anything that is compiled changes."""
        return self._compiled(manifests, set(self._plain)) != self._plain

    def _finds(self, manifests: Manifests, instances: set[str]) -> bool:
        found = self._compiled(manifests, instances)
        gone = (instances & set(self._plain)) - set(found)
        return bool(gone) or any(
            not any(entry.explains(item) for entry in self._entries if SOCKETS in entry.runs)
            for instance, form in found.items()
            if form != self._plain.get(instance)
            for item in self._differences(instance, form)
            if _identity(item) not in self._known.get(instance, set())
        )

    def _differences(self, instance: str, form: Json) -> list[Difference]:
        return differences(instance, self._forms.get(instance, {}), form)[1]

    def _compiled(self, manifests: Manifests, instances: set[str] | None = None) -> dict[str, Json]:
        proxies = workloads(manifests)
        # One replica of each tells as much as both.
        chosen = [proxy for proxy in proxies if proxy.instance.endswith("-0") and (instances is None or proxy.instance in instances)]
        found = compile_mesh(registry(manifests, proxies), chosen, issuers(manifests))
        return {instance: _form(instance, documents) for instance, documents in found.items()}


_forms: dict[str, tuple[Any, Json]] = {}


def _form(instance: str, documents: Any) -> Json:
    """Most changes leave most workloads alone, and reading a configuration is what takes time."""
    known = _forms.get(instance)
    if known is None:
        _forms[instance] = known = (documents, normal.compiled(documents))
    return known[1] if known[0] == documents else normal.compiled(documents)


def _identity(item: Difference) -> tuple[Any, ...]:
    return (item.path, repr(item.istiod), repr(item.ours))


def _scalars(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _scalars(entry, (*steps, key))
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _scalars(entry, (*steps, number))
    else:
        yield steps


def _object_name(document: Json) -> str:
    return f"{document['kind']}/{document['metadata']['name']}: " if "kind" in document else "MeshConfig: "


def _shown(steps: Steps) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
