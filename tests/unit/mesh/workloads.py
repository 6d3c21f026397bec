"""Manifests and sidecars for tests: the repository's own, and ones of a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from mesh.local.compiler import Documents, Manifests, Proxy, compile_mesh, load, registry
from mesh.local.compiler.manifests import MESH_FILE
from mesh.local.sidecar import MANIFESTS

ISSUER = "https://issuer.trademesh.local"
JWKS = {ISSUER: json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "kid": "one"}]})}


class Immediate(Executor):
    """Does everything at once, in the thread that asks."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments, **named))
        except Exception as error:  # noqa: BLE001 (whoever takes the result gets it)
            done.set_exception(error)
        return done


def proxy(instance: str, service_account: str, number: int, *, ports: Sequence[int] = (9000,), root: Path = Path("/run/mesh")) -> Proxy:
    """Return a sidecar with paths that say what they are."""
    private = root / instance
    return Proxy(
        instance=instance,
        service_account=service_account,
        address=f"127.77.0.{number}",
        applications={port: private / f"{port}.sock" for port in ports},
        egress_socket=private / "egress.sock",
        admin_socket=private / "envoy.sock",
        configuration=private / "envoy",
        certificates=private / "certificates",
        secret=f"secret-of-{instance}",
    )


ENTRY_PORTS = {"svc-gateway": (8080, 9000), "edge": ()}


def workloads(root: Path = Path("/run/mesh")) -> list[Proxy]:
    """Return two sidecars of each service that the repository has manifests for, and the edge's."""
    accounts = sorted(item.spec["workloadSelector"]["labels"]["app"] for item in load(MANIFESTS).of("Sidecar"))
    found: list[Proxy] = []
    for account in accounts:
        for replica in range(2):
            ports = ENTRY_PORTS.get(account, (9000,))
            found.append(proxy(f"{account.replace('-', '_')}-{replica}", account, len(found) + 1, ports=ports, root=root))
    return found


def shipped(proxies: Sequence[Proxy]) -> Manifests:
    """Return the repository's manifests with the registry of these sidecars."""
    return registry(load(MANIFESTS), proxies)


def compiled(proxies: Sequence[Proxy] | None = None) -> dict[str, Documents]:
    """Return what the repository's manifests become."""
    chosen = workloads() if proxies is None else proxies
    return compile_mesh(shipped(chosen), chosen, JWKS)


MESH = """
trustDomain: trademesh.local
rootNamespace: istio-system
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
defaultConfig: {proxyHeaders: {forwardedClientCert: SANITIZE_SET}}
"""

BASE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: trading}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: svc-oms, namespace: trading}
spec:
  workloadSelector: {labels: {app: svc-oms}}
  ingress: [{port: {number: 9000, protocol: GRPC, name: grpc}, defaultEndpoint: "unix:///run/x"}]
  egress: [{hosts: [./svc-risk.trading.svc.cluster.local]}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: svc-risk, namespace: trading}
spec:
  workloadSelector: {labels: {app: svc-risk}}
  ingress: [{port: {number: 9000, protocol: GRPC, name: grpc}, defaultEndpoint: "unix:///run/x"}]
  egress: [{hosts: ["./*"]}]
"""

PAIR = (proxy("svc_oms-0", "svc-oms", 1), proxy("svc_risk-0", "svc-risk", 2))


def written(directory: Path, text: str = "", *, mesh: str = MESH, base: str = BASE) -> Path:
    """Write manifests: the least that compiles, and what the test is about in `case.yaml`."""
    directory.mkdir(exist_ok=True)
    for name, content in ((MESH_FILE, mesh), ("base.yaml", base), ("case.yaml", text)):
        (directory / name).write_text(content)
    return directory


def small(directory: Path, text: str = "", **parts: str) -> dict[str, Documents]:
    """Compile the least that compiles, and what the test is about."""
    return compile_mesh(registry(load(written(directory, text, **parts)), PAIR), PAIR, JWKS)


def outbound_cluster(documents: Documents, name: str) -> dict[str, Any]:
    """Return a cluster by its name."""
    return next(cluster for cluster in documents.clusters if cluster["name"] == name)


def egress_routes(documents: Documents, authority: str) -> list[dict[str, Any]]:
    """Return the routes of an authority on the egress socket."""
    listener = documents.listeners[-1]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    hosts = manager["route_config"]["virtual_hosts"]
    found: list[dict[str, Any]] = next(host["routes"] for host in hosts if authority in host["domains"])
    return found


def inbound_filters(documents: Documents) -> list[dict[str, Any]]:
    """Return the HTTP filters of the first inbound port."""
    manager = documents.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    found: list[dict[str, Any]] = manager["http_filters"]
    return found
