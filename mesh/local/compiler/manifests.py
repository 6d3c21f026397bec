"""Reads Istio manifests and holds what was read, in the form that the rest of the compiler relies on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mesh.local.compiler.kinds import KINDS, MESH_CONFIG, OBJECT
from mesh.local.compiler.problems import ManifestError

MESH_FILE = "mesh.yaml"
KUSTOMIZATION_FILE = "kustomization.yaml"
"""What a cluster's deployment starts from; it holds no object."""
FILE_BYTES_MAX = 256 * 1024


@dataclass(frozen=True)
class Manifest:
    """One object. `spec` is checked and normalised: durations are in seconds. `origin` says where it stands, for messages."""

    kind: str
    name: str
    namespace: str
    spec: Mapping[str, Any]
    origin: str

    def problem(self, text: str) -> str:
        """Return a finding about this object."""
        return f"{self.origin}: {self.kind}/{self.name}: {text}"

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Say whether its selector, if it has one, takes a workload with these labels."""
        selector = self.spec.get("selector", {}).get("matchLabels") or self.spec.get("workloadSelector", {}).get("labels") or {}
        return all(labels.get(key) == value for key, value in selector.items())

    @property
    def selective(self) -> bool:
        """Say whether it has a selector."""
        return "selector" in self.spec or "workloadSelector" in self.spec


@dataclass(frozen=True)
class Manifests:
    """Everything that was read: MeshConfig and the objects, ordered by namespace and name."""

    mesh: Mapping[str, Any]
    objects: tuple[Manifest, ...]

    def of(self, kind: str) -> Iterator[Manifest]:
        """Return the objects of a kind."""
        return (item for item in self.objects if item.kind == kind)

    def with_objects(self, documents: Iterable[Mapping[str, Any]], *, origin: str) -> Manifests:
        """Return these manifests and further ones, such as the generated registry.

        Raises:
            ManifestError: one is not in the subset, or stands there already.
        """
        problems: list[str] = []
        added = [_manifest(copy.deepcopy(dict(document)), origin, problems) for document in documents]
        return _assemble(self.mesh, [*self.objects, *(item for item in added if item is not None)], problems)

    def with_issuer(self, named: str, actual: str) -> Manifests:
        """Return these manifests with another issuer of tokens: in the rules about tokens, and in principals of requests."""
        return replace(self, objects=tuple(replace(item, spec=_renamed(item.spec, named, actual)) for item in self.objects))


def load(directory: Path) -> Manifests:
    """Read `mesh.yaml` and every other `*.yaml` of a directory, the kustomization aside.

    Raises:
        ManifestError: with everything that is wrong in any of them.
    """
    problems: list[str] = []
    mesh: Any = None
    found: list[Manifest] = []
    for path in sorted(path for path in directory.glob("*.yaml") if path.name != KUSTOMIZATION_FILE):
        for document in _documents(path, problems):
            if path.name == MESH_FILE:
                mesh = MESH_CONFIG(document, "MeshConfig", _Prefixed(problems, path.name))
            elif (item := _manifest(document, path.name, problems)) is not None:
                found.append(item)
    if mesh is None and not problems:
        problems.append(f"{directory}: has no {MESH_FILE}")
    return _assemble(mesh, found, problems)


class _Prefixed(list[str]):
    """A list of findings that puts a place before each."""

    def __init__(self, problems: list[str], prefix: str) -> None:
        super().__init__()
        self._problems, self._prefix = problems, prefix

    def append(self, item: str) -> None:
        self._problems.append(f"{self._prefix}: {item}")

    def extend(self, items: Iterable[str]) -> None:
        for item in items:
            self.append(item)


class _Loader(yaml.SafeLoader):
    """Refuses what YAML lets pass silently: a key that stands twice in a mapping."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list)) or key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _documents(path: Path, problems: list[str]) -> Sequence[Any]:
    try:
        content = path.read_bytes()
        if len(content) > FILE_BYTES_MAX:
            raise ValueError(f"is longer than {FILE_BYTES_MAX} bytes")
        # A loader that builds nothing but plain values.
        return [document for document in yaml.load_all(content, _Loader) if document is not None]
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problems.append(f"{path.name}: cannot be read: {' '.join(str(error).split())}")
        return []


def _manifest(document: Any, origin: str, problems: list[str]) -> Manifest | None:
    kind, metadata = (document.get("kind"), document.get("metadata")) if isinstance(document, dict) else (None, None)
    name = metadata.get("name") if isinstance(metadata, dict) else None
    where = _Prefixed(problems, f"{origin}: {kind}/{name}" if kind and name else origin)
    before = len(problems)
    checked = OBJECT(document, "object", where)
    if len(problems) > before:
        return None
    kind, name = str(kind), str(name)
    if kind not in KINDS:
        where.append(f"kind: must be one of {', '.join(KINDS)}")
        return None
    version, form = KINDS[kind]
    if checked["apiVersion"] != version:
        where.append(f"apiVersion: must be {version}")
    spec = form(checked.get("spec", {}), "spec", where)
    return Manifest(kind, name, checked["metadata"]["namespace"], spec, origin) if len(problems) == before else None


def _assemble(mesh: Any, found: Sequence[Manifest], problems: list[str]) -> Manifests:
    by_key: dict[tuple[str, str, str], Manifest] = {}
    for item in found:
        first = by_key.setdefault((item.namespace, item.kind, item.name), item)
        if first is not item:
            problems.append(item.problem(f"metadata.name: stands in {first.origin} already"))
    if problems:
        raise ManifestError(problems)
    return Manifests(mesh, tuple(by_key[key] for key in sorted(by_key)))


def _renamed(value: Any, named: str, actual: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _renamed(entry, named, actual) for key, entry in value.items()}
    if isinstance(value, list):
        return [_renamed(entry, named, actual) for entry in value]
    if value == named:
        return actual
    return f"{actual}/{value[len(named) + 1 :]}" if isinstance(value, str) and value.startswith(f"{named}/") else value
