"""The manifests of a running mesh, changed while it runs: they are its own copy, in its state directory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from mesh.local.compiler.documents import CLUSTERS_FILE, LISTENERS_FILE
from mesh.local.compiler.tls import CURRENT
from mesh.local.control.plane import digest
from mesh.local.sidecar import CONTROL, OWN_MANIFESTS
from tests.chaos import sidecars
from tests.chaos.scene import Scene

TAKEN_SECONDS_MAX = 20.0
LOOK_SECONDS = 0.05
_VERSIONS = {"listener_manager.lds.version_text": LISTENERS_FILE, "cluster_manager.cds.version_text": CLUSTERS_FILE}
REFUSED = "the last good manifests stay in force"

Json = dict[str, Any]


def directory(scene: Scene) -> Path:
    """Return where they are."""
    return scene.world.mesh.layout.data(OWN_MANIFESTS)


def control_log(scene: Scene) -> Path:
    """Return where the control process writes what it did."""
    return scene.world.mesh.layout.log(CONTROL)


async def put(scene: Scene, files: Mapping[str, str], answer: str = "") -> str:
    """Put texts in place of these files, and return what the control process wrote, once it wrote the answer.

    Without an answer, return once it has said that just these are in force, and every Envoy that it has taken what came of them.

    Raises:
        TimeoutError: not in time.
    """
    log, changed = control_log(scene), {name: text for name, text in files.items() if (directory(scene) / name).read_text() != text}
    offset, deadline = log.stat().st_size, time.monotonic() + TAKEN_SECONDS_MAX
    for name, text in changed.items():
        aside = directory(scene) / f"{name}.new"
        aside.write_text(text)
        aside.rename(directory(scene) / name)
    in_force = not answer
    answer = answer or f"manifests {digest(directory(scene))} are in force"
    while changed and answer not in sidecars.log_since(log, offset):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the control process said nothing of {', '.join(changed)}: {sidecars.log_since(log, offset)[-500:]}")
        await asyncio.sleep(LOOK_SECONDS)
    if in_force:
        await _taken(scene)
    return sidecars.log_since(log, offset)


async def _taken(scene: Scene) -> None:
    """Return once every Envoy has taken the listeners and clusters that lie in front of it.

    Raises:
        TimeoutError: one has not, in time; it refused them, or has not seen them.
    """
    deadline = time.monotonic() + TAKEN_SECONDS_MAX
    for name in sidecars.everybody(scene):
        current = scene.world.mesh.layout.private(name) / "envoy" / CURRENT
        while True:
            wanted = {kind: json.loads((current / file).read_text())["version_info"] for kind, file in _VERSIONS.items()}
            told = await sidecars.asked(scene, name, "/stats?format=json&type=TextReadouts&filter=version_text")
            if wanted.items() <= {item["name"]: item["value"] for item in told["stats"]}.items():
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Envoy of {name} works with {told['stats']}, and has {wanted} in front of it")
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def kept(scene: Scene) -> AsyncIterator[dict[str, str]]:
    """Give all files by name, and put them back in the end.

    Raises:
        TimeoutError: the control process did not take them back.
    """
    before = {path.name: path.read_text() for path in directory(scene).glob("*.yaml")}
    try:
        yield dict(before)
    finally:
        await put(scene, before)


def documents(text: str) -> list[Json]:
    """Return the objects of a file."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def text(found: list[Json]) -> str:
    """Return a file of objects."""
    return yaml.safe_dump_all(found, sort_keys=False, width=140)


def replaced(files: Mapping[str, str], item: Json) -> dict[str, str]:
    """Return the file in which an object of the same kind and name stands, with this one in its place, as `kubectl apply` would.

    Raises:
        LookupError: there is none.
    """
    for name, content in files.items():
        found = documents(content)
        places = [number for number, other in enumerate(found) if _key(other) == _key(item)]
        if places:
            return {name: text([*found[: places[0]], item, *found[places[0] + 1 :]])}
    raise LookupError(f"no manifest is called {_key(item)}")


def _key(item: Json) -> tuple[object, ...]:
    metadata = item.get("metadata", {})
    return item.get("kind"), metadata.get("namespace"), metadata.get("name")
