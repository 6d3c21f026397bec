"""What `make conformance` ends with where Go is not installed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.conformance import __main__ as command
from mesh.conformance import istiod
from mesh.conformance.committed import Committed, inputs, read
from mesh.conformance.differences import Judgement
from mesh.conformance.overlays import FOLDER
from mesh.conformance.render import render
from mesh.conformance.run import Compared
from mesh.conformance.workloads import shipped


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Committed:
    """Say that Go is not there, that nothing differs, and that Istio's analyzers find nothing."""
    found = read()
    assert found is not None
    monkeypatch.setattr(istiod, "go", lambda: None)
    monkeypatch.setattr(command, "compiled", lambda rendered: {})
    monkeypatch.setattr(command, "compare", lambda *arguments: Compared(16, 1, 1, Judgement((), 0, ())))
    monkeypatch.setattr(command, "_probe", lambda: 1)
    return replace(found, analysis={**found.analysis, "findings": []})


def ended(capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, object]]:
    said = capsys.readouterr().out
    summary: dict[str, object] = json.loads(said.splitlines()[-1])
    return said, summary


def test_answers_to_another_question_prove_nothing(
    answered: Committed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(answered, inputs=replace(answered.inputs, asked="something else"))
    monkeypatch.setattr(command, "read", lambda: other)
    assert command.main([]) == 1
    said, summary = ended(capsys)
    assert "Go is not installed" in said
    assert "NOT PROVEN" in said
    assert (summary["proven"], summary["istiod_asked"], summary["unexplained"]) == (False, False, 0)


def test_answers_to_the_same_question_do_although_a_source_has_changed(
    answered: Committed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = inputs(render(shipped()), shipped())
    monkeypatch.setattr(command, "read", lambda: replace(answered, inputs=replace(now, sources="older")))
    assert command.main([]) == 0
    said, summary = ended(capsys)
    assert "those are compared" in said
    assert (summary["proven"], summary["istiod_asked"], summary["unexplained"]) == (True, False, 0)


def test_an_analyzers_finding_is_not_right(
    answered: Committed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"level": "Error", "code": "IST0000", "object": "trading/x", "message": "is wrong"}
    now = inputs(render(shipped()), shipped())
    monkeypatch.setattr(command, "read", lambda: replace(answered, inputs=now, analysis={**answered.analysis, "findings": [found]}))
    assert command.main([]) == 1
    assert "Error IST0000 trading/x: is wrong" in ended(capsys)[0]


def test_an_analyzers_finding_in_an_environment_is_not_right(
    answered: Committed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"level": "Error", "code": "IST0000", "object": "trading/x", "message": "is wrong"}
    staging = answered.overlays["staging"]
    overlays = {**answered.overlays, "staging": replace(staging, analysis={**staging.analysis, "findings": [found]})}
    now = inputs(render(shipped()), shipped())
    monkeypatch.setattr(command, "read", lambda: replace(answered, inputs=now, overlays=overlays))
    assert command.main([]) == 1
    said, summary = ended(capsys)
    assert "Error IST0000 trading/x: is wrong" in said
    assert (summary["overlays"], summary["analyzer_messages"], summary["overlay_problems"]) == (2, 1, 0)


def test_an_environment_that_is_not_what_its_settings_say_is_not_right(
    answered: Committed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overlays = {**answered.overlays, "staging": replace(answered.overlays["production"], unserved=["svc_oms-0: x is listed and not there"])}
    now = inputs(render(shipped()), shipped())
    monkeypatch.setattr(command, "read", lambda: replace(answered, inputs=now, overlays=overlays))
    assert command.main([]) == 1
    said, summary = ended(capsys)
    assert "staging: svc_oms-0: x is listed and not there" in said
    assert "staging: Gateway/trading/edge: spec.servers.0.hosts.0: must be the setting host, is 'api.production.example.com'" in said
    assert int(str(summary["overlay_problems"])) > 2


def test_a_broken_overlay_proves_nothing_without_go(
    answered: Committed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    manifests = shutil.copytree(shipped(), tmp_path / "mesh" / "istio")
    overlays = shutil.copytree(shipped().parents[1] / FOLDER, tmp_path / FOLDER)
    now = inputs(render(manifests), manifests)
    monkeypatch.setattr(command, "read", lambda: replace(answered, inputs=now))
    assert command.main(["--manifests", str(manifests)]) == 0
    broken = overlays / "staging" / "kustomization.yaml"
    broken.write_text(broken.read_text().replace("  - ../settings\n", ""))
    assert command.main(["--manifests", str(manifests)]) == 1
    assert ended(capsys)[1]["proven"] is False


def test_a_probe_that_differs_is_not_right(
    answered: Committed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "read", lambda: replace(answered, inputs=inputs(render(shipped()), shipped())))
    monkeypatch.setattr(command, "_probe", lambda: None)
    assert command.main([]) == 1
    assert ended(capsys)[1]["probes"] is None


def test_staleness_is_an_exit_code(answered: Committed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "read", lambda: replace(answered, inputs=inputs(render(shipped()), shipped())))
    assert command.main(["--stale"]) == 3
    monkeypatch.setattr(command, "read", lambda: None)
    assert command.main(["--stale"]) == 0
