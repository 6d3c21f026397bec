"""The experiments are what is in force otherwise, with a fault in it; and each of them compiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from mesh.local.compiler import load
from mesh.local.sidecar import MANIFESTS
from tests.chaos import manifests
from tests.chaos.experiment import DIRECTORY, EXPERIMENTS, Experiment
from tests.chaos.faults.injected import EXPECTED


def test_every_experiment_is_committed_as_it_would_be_written_now() -> None:
    written = {path.stem: path.read_text() for path in DIRECTORY.glob("*.yaml")}
    assert written == {experiment.name: experiment.text() for experiment in EXPERIMENTS}, "run `python -m tests.chaos.experiment`"
    assert set(written) == set(EXPECTED)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_an_experiment_takes_the_place_of_what_it_stands_for_and_differs_by_its_fault_alone(experiment: Experiment, tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "istio")
    files = {path.name: path.read_text() for path in (tmp_path / "istio").glob("*.yaml")}
    item = yaml.safe_load((DIRECTORY / f"{experiment.name}.yaml").read_text())
    ((name, text),) = manifests.replaced(files, item).items()
    assert name == f"{experiment.service}.yaml"
    (tmp_path / "istio" / name).write_text(text)
    (found,) = (entry for entry in load(tmp_path / "istio").of("VirtualService") if entry.name == experiment.service)
    (usual,) = (entry for entry in load(MANIFESTS).of("VirtualService") if entry.name == experiment.service)
    faulty = [http for http in found.spec["http"] if "fault" in http]
    assert [http for http in found.spec["http"] if "fault" not in http] == usual.spec["http"]
    assert [http["match"][0]["sourceLabels"] for http in faulty] == [{"app": experiment.caller}]


def test_an_object_that_is_not_there_cannot_be_replaced() -> None:
    with pytest.raises(LookupError):
        manifests.replaced({}, {"kind": "VirtualService", "metadata": {"name": "svc-none", "namespace": "trading"}})
