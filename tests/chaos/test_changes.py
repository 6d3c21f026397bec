"""What is changed under load compiles, and what is wrong does not: neither takes a mesh to see."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mesh.local.compiler import ManifestError, compile_mesh, load, registry
from mesh.local.sidecar import MANIFESTS
from tests.chaos.faults.certificates import brief
from tests.chaos.faults.configuration import KINDS, MISTAKES, changed
from tests.unit.mesh.workloads import JWKS, proxy


def compiled(directory: Path) -> str:
    sidecars = (proxy("svc_oms-0", "svc-oms", 1), proxy("svc_risk-0", "svc-risk", 2))
    found = compile_mesh(registry(load(directory), sidecars), sidecars, JWKS)
    return str([(documents.listeners, documents.clusters) for documents in found.values()])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copytree(MANIFESTS, tmp_path / "istio")
    return tmp_path / "istio"


@pytest.mark.parametrize("kind", KINDS)
def test_every_change_is_another_configuration(kind: str, directory: Path) -> None:
    seen = {compiled(directory)}
    for number in range(2):
        for path in MANIFESTS.glob("*.yaml"):
            (directory / path.name).write_text(changed(path.read_text(), KINDS[kind], number))
        seen.add(compiled(directory))
    assert len(seen) == 3


def test_connections_are_brief_everywhere(directory: Path) -> None:
    for path in directory.glob("svc-*.yaml"):
        path.write_text(brief(path.read_text()))
    assert "'max_connection_duration': '20m'" not in compiled(directory)
    assert "1200" not in re.findall(r"max_connection_duration': '(\d+)", compiled(directory))


@pytest.mark.parametrize("name", [name for name in MISTAKES if name != "beyond-the-edge"])
def test_every_mistake_is_refused_by_file_object_and_field(name: str, directory: Path) -> None:
    mistake = MISTAKES[name]
    path = directory / mistake.file
    path.write_text(path.read_text().replace(mistake.right, mistake.wrong))
    with pytest.raises(ManifestError, match=re.escape(mistake.complaint)):
        compiled(directory)
