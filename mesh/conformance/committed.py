"""What Istio answered, as it is committed beside the hashes of what it was asked with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.conformance.ads import Resources
from mesh.conformance.differences import RUNS
from mesh.conformance.istiod import MODULE, SETTINGS
from mesh.conformance.overlays import files, identity, question
from mesh.conformance.pods import pods
from mesh.conformance.render import Rendered, node, text
from mesh.local import compiler

EXPECTED = Path(__file__).parent / "expected"
_INPUTS, _ANALYSIS, _RESOURCES = "inputs.json", "analysis.json", "resources"
_OVERLAYS, _OBJECTS = "overlays.json", "overlays.jsonl"
_ID_CHARACTERS = 10
_ASKING = ("ads.py", "cluster.py", "istiod.py", "overlays.py", "pods.py", "render.py", "run.py", "workloads.py")
"""Modules here that may change what Istio is asked, or what is kept of its answers."""

Json = dict[str, Any]
Answers = dict[str, Resources]
"""Resources by instance."""


@dataclass(frozen=True)
class Inputs:
    """What an answer depends on.

    Attributes:
        istio: the version of Istio's module.
        asked: hash over everything that Istio's programs are given.
        sources: hash over manifests, compiler, rendering and the tool module, any of which may change what Istio is given.
    """

    istio: str
    asked: str
    sources: str


@dataclass(frozen=True)
class Overlay:
    """What comes of an environment.

    Attributes:
        analysis: what Istio's analyzers say.
        unserved: what workloads would call in vain.
        objects: what a cluster gets.
    """

    analysis: Json
    unserved: list[str]
    objects: list[Json]


@dataclass(frozen=True)
class Committed:
    """Istio's answers.

    Attributes:
        inputs: what they depend on.
        runs: resources by run and instance.
        analysis: what Istio's analyzers say of the manifests alone.
        overlays: what comes of each environment, by its name.
    """

    inputs: Inputs
    runs: Mapping[str, Answers]
    analysis: Json
    overlays: Mapping[str, Overlay]


def inputs(rendered: Rendered, directory: Path) -> Inputs:
    """Return what an answer for these manifests depends on now."""
    asked = _digest(
        [
            rendered.mesh,
            text(rendered.none_mode()),
            text(rendered.objects),
            json.dumps([node(proxy, interception="") for proxy in rendered.proxies], sort_keys=True),
            json.dumps(dict(SETTINGS), sort_keys=True),
            text(pods(rendered.manifests, rendered.proxies)),
            *question(directory),
        ]
    )
    read_files = [
        *sorted(directory.glob("*.yaml")),
        *files(directory),
        *sorted(Path(compiler.__file__).parent.glob("*.py")),
        *(Path(__file__).parent / name for name in _ASKING),
        *sorted(path for path in MODULE.iterdir() if path.suffix in (".go", ".mod", ".sum")),
    ]
    sources = _digest(f"{path.parent.name}/{path.name}\n{path.read_text()}" for path in read_files)
    return Inputs(istio_version(), asked, sources)


def istio_version() -> str:
    """Return the version of Istio's module that the tool module is built with."""
    found = re.search(r"^\s*(?:require )?istio\.io/istio (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def write(found: Committed, folder: Path = EXPECTED) -> None:
    """Write answers, each resource once and on a line of its own, whichever run and workload it is for."""
    (folder / _RESOURCES).mkdir(parents=True, exist_ok=True)
    _write_json(folder / _INPUTS, vars(found.inputs))
    _write_json(folder / _ANALYSIS, found.analysis)
    _write_overlays(folder, found.overlays)
    for old in (folder / _RESOURCES).iterdir():
        old.unlink()
    lines: dict[str, dict[str, Json]] = {}
    for run, answers in found.runs.items():
        index: Json = {}
        for instance, resources in sorted(answers.items()):
            index[instance] = {kind: [_keep(lines.setdefault(kind, {}), item) for item in items] for kind, items in resources.items()}
        _write_json(folder / f"{run}.json", _shared(index))
    for kind, items in lines.items():
        (folder / _RESOURCES / f"{kind}.jsonl").write_text("".join(f"{_line(items[key])}\n" for key in sorted(items)))


def read(folder: Path = EXPECTED) -> Committed | None:
    """Read what `write` wrote; None where nothing is committed."""
    if not (folder / _INPUTS).is_file():
        return None
    lines = {path.stem: _resources(path) for path in sorted((folder / _RESOURCES).glob("*.jsonl"))}
    runs: dict[str, Answers] = {}
    for run in RUNS:
        groups = json.loads((folder / f"{run}.json").read_text())
        runs[run] = {
            instance: {kind: [lines[kind][key] for key in keys] for kind, keys in group["resources"].items()}
            for group in groups
            for instance in group["instances"]
        }
    inputs_then = Inputs(**json.loads((folder / _INPUTS).read_text()))
    return Committed(inputs_then, runs, json.loads((folder / _ANALYSIS).read_text()), _read_overlays(folder))


def _write_overlays(folder: Path, overlays: Mapping[str, Overlay]) -> None:
    """Environments share most of their objects."""
    lines: dict[str, Json] = {}
    index = {name: {**vars(overlay), "objects": [_keep(lines, item) for item in overlay.objects]} for name, overlay in overlays.items()}
    _write_json(folder / _OVERLAYS, index)
    (folder / _OBJECTS).write_text("".join(f"{_line(lines[key])}\n" for key in sorted(lines)))


def _read_overlays(folder: Path) -> dict[str, Overlay]:
    lines = _resources(folder / _OBJECTS)
    index = json.loads((folder / _OVERLAYS).read_text())
    return {name: Overlay(**{**entry, "objects": [lines[key] for key in entry["objects"]]}) for name, entry in index.items()}


def _resources(path: Path) -> dict[str, Json]:
    return {_key(item): item for item in map(json.loads, path.read_text().splitlines())}


def _shared(index: Mapping[str, Any]) -> list[Json]:
    """Replicas of a service mostly get the same resources."""
    groups: dict[str, Json] = {}
    for instance, resources in index.items():
        groups.setdefault(_line(resources), {"instances": [], "resources": resources})["instances"].append(instance)
    return list(groups.values())


def _keep(lines: dict[str, Json], resource: Json) -> str:
    key = _key(resource)
    lines[key] = resource
    return key


def _key(resource: Json) -> str:
    name = identity(resource) if "kind" in resource else resource.get("name", resource.get("cluster_name"))
    return f"{name}@{hashlib.sha256(_line(resource).encode()).hexdigest()[:_ID_CHARACTERS]}"


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\n{part}".encode())
    return digest.hexdigest()
