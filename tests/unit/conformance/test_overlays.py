"""What is read of environments, and what is found wrong with what kustomize makes of them."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.conformance.ads import CLUSTER, LISTENER, ROUTE
from mesh.conformance.committed import inputs, read
from mesh.conformance.overlays import FOLDER, Environment, environments, identity, misplaced, unserved
from mesh.conformance.pods import collector_entries, collectors
from mesh.conformance.render import render
from mesh.conformance.workloads import shipped

COLLECTOR = "otel-collector.observability.svc.cluster.local"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """Return a copy of the manifests with the environments beside it."""
    shutil.copytree(shipped(), tmp_path / "mesh" / "istio")
    shutil.copytree(shipped().parents[1] / FOLDER, tmp_path / FOLDER)
    return tmp_path / "mesh" / "istio"


@pytest.fixture
def production() -> Environment:
    [found] = [item for item in environments(shipped()) if item.name == "production"]
    return found


@pytest.fixture
def objects() -> list[dict[str, Any]]:
    """Return what a cluster gets in production."""
    answered = read()
    assert answered is not None
    return copy.deepcopy(answered.overlays["production"].objects)


def one(objects: list[dict[str, Any]], kind: str, name: str) -> Any:
    [found] = [item for item in objects if identity(item) == f"{kind}/trading/{name}"]
    return found["spec"]


def test_components_are_no_environments_nor_is_what_is_made_of_other_manifests(manifests: Path) -> None:
    assert [item.name for item in environments(manifests)] == ["production", "staging"]
    assert environments(manifests.parent / "other") == ()
    assert environments(manifests / "alone") == ()


def test_mesh_config_is_put_together_as_the_guide_says(production: Environment) -> None:
    mesh = yaml.safe_load(production.mesh)
    assert [provider["name"] for provider in mesh["extensionProviders"]] == ["failures", "otel"]
    guide = (shipped().parents[1] / "docs" / "guide" / "kubernetes.md").read_text()
    assert "mesh/istio/mesh.yaml deploy/kustomize/tracing/mesh-provider.yaml" in guide
    [namespace, service] = collectors(production.mesh)
    assert (namespace["metadata"]["name"], identity(service)) == ("observability", "Service/observability/otel-collector")
    [entry] = collector_entries(production.mesh)
    assert (entry["spec"]["hosts"], entry["spec"]["ports"][0]["number"]) == ([COLLECTOR], 4317)
    assert list(collectors((shipped() / "mesh.yaml").read_text())) == []


def test_settings_are_where_they_belong(production: Environment, objects: list[dict[str, Any]]) -> None:
    assert misplaced(production, objects) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda objects: one(objects, "RequestAuthentication", "svc-oms")["jwtRules"][0].update(issuer="https://issuer.trademesh.local"),
            "RequestAuthentication/trading/svc-oms: spec.jwtRules.0.issuer: holds https://issuer.trademesh.local",
        ),
        (
            lambda objects: one(objects, "RequestAuthentication", "svc-oms")["jwtRules"][0].update(jwksUri="https://else.example/keys"),
            "RequestAuthentication/trading/svc-oms: spec.jwtRules.0.jwksUri: must be the setting jwksUri, is 'https://else.example/keys'",
        ),
        (
            lambda objects: one(objects, "Gateway", "edge")["servers"][0].update(hosts=[]),
            "Gateway/trading/edge: spec.servers.0.hosts.0: must be the setting host, is None",
        ),
        (
            lambda objects: one(objects, "Sidecar", "edge")["egress"][0]["hosts"].append("./api.trademesh.local"),
            "holds api.trademesh.local",
        ),
    ],
)
def test_a_setting_elsewhere_is_found(
    production: Environment, objects: list[dict[str, Any]], spoil: Callable[[list[dict[str, Any]]], object], said: str
) -> None:
    spoil(objects)
    found = misplaced(production, objects)
    assert any(said in problem for problem in found), found


def test_a_setting_for_nothing_is_found(manifests: Path, objects: list[dict[str, Any]]) -> None:
    path = manifests.parents[1] / FOLDER / "production" / "settings.yaml"
    path.write_text(f"{path.read_text()}  region: north\n")
    assert misplaced(environments(manifests)[0], objects) == ["settings: region: is put nowhere"]


def test_whom_a_workload_would_call_in_vain_is_found(objects: list[dict[str, Any]]) -> None:
    listed = {host.partition("/")[2] for host in one(objects, "Sidecar", "svc-oms")["egress"][0]["hosts"]}
    assert COLLECTOR in listed
    resources: dict[str, list[dict[str, Any]]] = {
        CLUSTER: [{"name": f"outbound|1||{host}"} for host in listed],
        LISTENER: [{"tracing": {"envoy_grpc": {"cluster_name": f"outbound|1||{COLLECTOR}"}}}, {"cluster_name": "sds-grpc"}],
        ROUTE: [],
    }
    assert unserved(objects, {"app": "svc-oms"}, resources) == []
    resources[CLUSTER] = [item for item in resources[CLUSTER] if not item["name"].endswith(COLLECTOR)]
    assert unserved(objects, {"app": "svc-oms"}, resources) == [
        f"{COLLECTOR} is listed and not there",
        f"outbound|1||{COLLECTOR} is called and not there",
    ]
    # Other workloads' lists are no matter of this one.
    assert f"{COLLECTOR} is listed and not there" not in unserved(objects, {"app": "nobody"}, resources)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("production/kustomization.yaml", "  - ../settings\n", ""),
        ("settings/kustomization.yaml", "name: svc-risk-outside", "name: svc-risk"),
        ("staging/settings.yaml", "api.staging", "api.other"),
        ("tracing/mesh-provider.yaml", "4317", "4318"),
    ],
)
def test_another_overlay_is_another_question(manifests: Path, file: str, before: str, after: str) -> None:
    asked = inputs(render(manifests), manifests)
    path = manifests.parents[1] / FOLDER / file
    assert path.read_text().count(before) == 1
    path.write_text(path.read_text().replace(before, after))
    now = inputs(render(manifests), manifests)
    assert now.asked != asked.asked
    assert now.sources != asked.sources


def test_a_remark_in_an_overlay_is_no_other_question(manifests: Path) -> None:
    asked = inputs(render(manifests), manifests)
    path = manifests.parents[1] / FOLDER / "settings" / "kustomization.yaml"
    path.write_text(f"# A remark.\n{path.read_text()}")
    now = inputs(render(manifests), manifests)
    assert now.asked == asked.asked
    assert now.sources != asked.sources
