"""Environments: what `deploy/kustomize` makes of the manifests for a cluster, and whether each setting has arrived where it belongs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mesh.conformance.ads import CLUSTER, LISTENER, ROUTE, Resources
from mesh.conformance.compare import leaves
from mesh.conformance.render import documents, text
from mesh.local.compiler.manifests import KUSTOMIZATION_FILE, MESH_FILE
from mesh.local.control.plane import MANIFEST_ISSUER

FOLDER = Path("deploy") / "kustomize"
"""Beside `mesh/istio`, in any tree that has both."""
PROVIDER_FILE = "mesh-provider.yaml"
"""What a component adds to the end of MeshConfig, for which kustomize has no object."""
SETTINGS_FILE = "settings.yaml"
STAND_INS: Mapping[str, str] = {
    "issuer": MANIFEST_ISSUER,
    "jwksUri": f"{MANIFEST_ISSUER}/jwks",
    "users": f"{MANIFEST_ISSUER}/*",
    "host": "api.trademesh.local",
    "venue": "fix.venue.example.com",
}
"""What stands in the manifests for each setting of an environment."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes:
        directory: of its kustomization.
        manifests: the directory that its objects come from.
        components: the directories of parts that it takes besides.
    """

    directory: Path
    manifests: Path
    components: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.directory.name

    @property
    def mesh(self) -> str:
        """Return its MeshConfig, put together as the guide tells users to."""
        parts = [self.manifests / MESH_FILE, *(folder / PROVIDER_FILE for folder in self.components)]
        return "".join(path.read_text() for path in parts if path.is_file())

    @property
    def settings(self) -> Mapping[str, str]:
        """Return what it says of itself."""
        path = self.directory / SETTINGS_FILE
        found: Mapping[str, str] = _only(path)["data"] if path.is_file() else {}
        return found

    def sources(self) -> Iterator[Json]:
        """Return the objects that it is made of, before any setting is in them."""
        yield from documents(self.manifests)
        for folder in self.components:
            for name in _only(folder / KUSTOMIZATION_FILE).get("resources", ()):
                yield from _documents(folder / name)


def environments(manifests: Path) -> tuple[Environment, ...]:
    """Return the environments beside a directory of manifests: every kustomization of them that is not a component. There may be none."""
    found, manifests = [], manifests.resolve()
    for path in sorted(_folder(manifests).glob(f"*/{KUSTOMIZATION_FILE}")):
        content = _only(path)
        if content["kind"] == "Kustomization" and manifests in {(path.parent / name).resolve() for name in content["resources"]}:
            components = tuple((path.parent / name).resolve() for name in content.get("components", ()))
            found.append(Environment(path.parent, manifests, components))
    return tuple(found)


def files(manifests: Path) -> list[Path]:
    """Return the files that environments are made of, without the manifests themselves."""
    return [manifests / KUSTOMIZATION_FILE, *sorted(_folder(manifests).rglob("*.yaml"))] if environments(manifests) else []


def question(manifests: Path) -> Iterator[str]:
    """Return what kustomize is given, so that remarks and spaces make no other question."""
    for path in files(manifests):
        yield f"{path.parent.name}/{path.name}\n{text(_documents(path))}"
    # Of tokens' keys other rules come to Istio than to a cluster.
    yield text(documents(manifests))


def identity(document: Mapping[str, Any]) -> str:
    """Return kind, namespace and name of an object."""
    metadata = document["metadata"]
    return f"{document['kind']}/{metadata.get('namespace', '')}/{metadata['name']}"


def misplaced(environment: Environment, rendered: Sequence[Json]) -> list[str]:
    """Return what of an environment's settings is not where it belongs, and what is left of the values that they replace."""
    actual = {(identity(item), path): value for item in rendered for path, value in leaves(item)}
    settings = environment.settings
    known = {stand_in: name for name, stand_in in STAND_INS.items()}
    problems, reached = [], set()
    for item in environment.sources():
        for path, value in leaves(item):
            if isinstance(value, str) and value in known:
                name = known[value]
                reached.add(name)
                found = actual.get((identity(item), path))
                if found is None or found != settings.get(name):
                    problems.append(f"{identity(item)}: {'.'.join(path)}: must be the setting {name}, is {found!r}")
    for (owner, path), value in actual.items():
        left = next((stand_in for stand_in in (MANIFEST_ISSUER, STAND_INS["host"], STAND_INS["venue"]) if stand_in in str(value)), None)
        if left is not None:
            problems.append(f"{owner}: {'.'.join(path)}: holds {left}, which only stands in for a setting")
    problems.extend(f"settings: {name}: is put nowhere" for name in sorted(set(settings) - reached))
    return sorted(set(problems))


def unserved(objects: Iterable[Json], labels: Mapping[str, str], resources: Resources) -> list[str]:
    """Return what a workload would call in vain: hosts that its Sidecar lists and clusters that are named, which are not there.

    Args:
        objects: what a cluster gets.
        labels: the workload's.
        resources: what Istio answers it.
    """
    known = {str(item["name"]) for item in resources[CLUSTER]}
    named = set(_named([*resources[LISTENER], *resources[ROUTE]]))
    sidecars = (item["spec"] for item in objects if item["kind"] == "Sidecar")
    chosen = (spec for spec in sidecars if spec["workloadSelector"]["labels"].items() <= labels.items())
    listed = {host.partition("/")[2] for spec in chosen for listener in spec["egress"] for host in listener["hosts"]}
    missing = {host for host in listed if not any(name.endswith(f"|{host}") for name in known)}
    return [
        *(f"{host} is listed and not there" for host in sorted(missing)),
        *(f"{name} is called and not there" for name in sorted(named - known)),
    ]


def _named(value: Any) -> Iterator[str]:
    """Find clusters of other workloads. What has no bar in its name is part of every sidecar."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key in ("cluster", "cluster_name") and isinstance(entry, str) and entry.startswith("outbound|"):
                yield entry
            yield from _named(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _named(entry)


def _folder(manifests: Path) -> Path:
    return manifests.resolve().parent.parent / FOLDER


def _documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def _only(path: Path) -> Any:
    [document] = _documents(path)
    return document
