"""What a cluster gets is what is compiled here, and an environment's settings reach every object that speaks of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.conformance.committed import Overlay, read
from mesh.conformance.compare import ABSENT, differences
from mesh.conformance.overlays import STAND_INS, Environment, environments, identity, misplaced
from mesh.local.compiler.manifests import KUSTOMIZATION_FILE, MESH_FILE
from mesh.local.sidecar import MANIFESTS

OVERLAYS = MANIFESTS.parents[1] / "deploy" / "kustomize"
ENVIRONMENTS = ("production", "staging")
# Whom workloads may call in a cluster besides.
COLLECTOR, VENUE = "observability/otel-collector.observability.svc.cluster.local", "./venue-primary.external"


def objects(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def one(path: Path) -> Any:
    [document] = objects(path)
    return document


def speaking(part: str) -> set[tuple[str, str]]:
    """Return kind and name of each manifest that holds a text."""
    files = [path for path in MANIFESTS.glob("*.yaml") if path.name not in (MESH_FILE, KUSTOMIZATION_FILE)]
    return {
        (document["kind"], document["metadata"]["name"])
        for path in files
        for document in objects(path)
        if part in yaml.safe_dump(document["spec"])
    }


def reached(setting: str) -> set[tuple[str, str]]:
    """Return kind and name of what a setting is put into; a target without a name is every object of its kind."""
    found: set[tuple[str, str]] = set()
    for replacement in one(OVERLAYS / "settings" / KUSTOMIZATION_FILE)["replacements"]:
        if replacement["source"]["fieldPath"] == f"data.{setting}":
            for target in replacement["targets"]:
                kind, name = target["select"]["kind"], target["select"].get("name")
                found |= {(kind, name)} if name else {item for item in speaking("") if item[0] == kind}
    return found


def test_every_manifest_is_deployed() -> None:
    listed = one(MANIFESTS / KUSTOMIZATION_FILE)["resources"]
    assert listed == sorted(path.name for path in MANIFESTS.glob("*.yaml") if path.name not in (MESH_FILE, KUSTOMIZATION_FILE))


def test_settings_reach_whatever_speaks_of_them() -> None:
    tokens = {item for item in speaking("https://issuer.trademesh.local") if item[0] == "RequestAuthentication"}
    assert reached("issuer") == reached("jwksUri") == tokens
    assert reached("users") == speaking("https://issuer.trademesh.local") - tokens
    assert reached("host") == speaking("api.trademesh.local")
    assert reached("venue") == {("ServiceEntry", "venue-primary")}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_say_all_of_it_and_share_the_rest(environment: str) -> None:
    settings, base = one(OVERLAYS / environment / "settings.yaml"), one(OVERLAYS / environment / KUSTOMIZATION_FILE)
    assert set(settings["data"]) == {"issuer", "jwksUri", "users", "host", "venue"}
    assert settings["data"]["users"] == f"{settings['data']['issuer']}/*"
    assert base["components"] == ["../venues", "../tracing", "../settings"]
    assert (OVERLAYS / environment / base["resources"][0]).resolve() == MANIFESTS


def rendered(name: str) -> tuple[Environment, Overlay]:
    """Return an environment and what kustomize made of it, as it is committed."""
    answered = read()
    assert answered is not None
    [environment] = [item for item in environments(MANIFESTS) if item.name == name]
    return environment, answered.overlays[name]


def test_every_environment_was_rendered() -> None:
    answered = read()
    assert answered is not None
    assert tuple(answered.overlays) == tuple(item.name for item in environments(MANIFESTS)) == ENVIRONMENTS


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_cluster_gets_the_manifests_and_nothing_but_settings_differs(name: str) -> None:
    environment, overlay = rendered(name)
    deployed = {identity(item): item for item in overlay.objects}
    sources = {identity(item): item for item in environment.sources()}
    assert deployed.keys() == sources.keys()
    assert len(deployed) == len(overlay.objects)
    changed = [item for key, source in sources.items() for item in differences(key, source, deployed[key])[1]]
    added = [item for item in changed if item.istiod == ABSENT]
    setting = {stand_in: environment.settings[key] for key, stand_in in STAND_INS.items()}
    assert [str(item) for item in changed if item not in added and setting.get(item.istiod) != item.ours] == []
    assert {item.istiod for item in changed if item not in added} == set(setting)
    sidecars = {key for key in sources if key.startswith("Sidecar/")}
    assert all(item.path[:4] == ("spec", "egress", "0", "hosts") for item in added)
    assert {(item.workload, item.ours) for item in added} == {
        ("Sidecar/trading/svc-oms", VENUE),
        *((sidecar, COLLECTOR) for sidecar in sidecars),
    }


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_istio_has_nothing_to_say_against_an_environment(name: str) -> None:
    environment, overlay = rendered(name)
    assert overlay.analysis["findings"] == []
    assert overlay.unserved == []
    assert misplaced(environment, overlay.objects) == []
