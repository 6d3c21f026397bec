"""Alerts speak of metrics that there are, and each is explained to whom it wakes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
REFERENCE = ROOT / "docs" / "reference" / "alerts.md"
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(ROOT / ".venv" / "bin"))

_METRIC = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b(?!\s*[,)]\s*\()")
_LABELS = {"cluster_name", "authz_enforce_result"}


def rules() -> list[Any]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def metrics(expression: str) -> set[str]:
    """Return the metrics of an expression: names with an underscore that are no labels."""
    return set(_METRIC.findall(expression)) - _LABELS


def told() -> set[str]:
    """Return the names of the samples in the services' code."""
    files = [path for folder in ("kernel", *sorted(path.name for path in ROOT.glob("svc_*"))) for path in (ROOT / folder).rglob("*.py")]
    return {name for path in files for name in re.findall(r'Sample\(\s*"([a-z0-9_]+)"', path.read_text())}


def test_every_metric_of_a_service_is_one_that_it_tells() -> None:
    asked = {name for rule in rules() for name in metrics(rule["expr"]) if not name.startswith("envoy_")}
    assert {"breaker_state", "venue_logged_on", "feed_live", "rpc_server_shed_total"} <= asked
    assert asked <= told()


def test_every_alert_is_explained() -> None:
    explained = re.findall(r"^\| `([A-Za-z]+)` \|", REFERENCE.read_text(), re.MULTILINE)
    assert explained == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "{{" in rule["annotations"]["summary"], "a person needs to know whom it is about"


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: what the expressions say of series is not proven here")
def test_alerts_fire_when_they_should_and_no_longer() -> None:
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(RULES.with_name("rules.test.yaml"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
