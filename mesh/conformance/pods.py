"""The workloads as Kubernetes keeps them, for Istio's analyzers, which look up what selectors and routes speak of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from mesh.local.compiler import Manifests, Proxy
from mesh.local.compiler.proxies import NAMESPACE

INGRESS_NAMESPACE, INGRESS = "istio-ingress", "istio-ingressgateway"

Json = dict[str, Any]


def pods(manifests: Manifests, proxies: tuple[Proxy, ...]) -> Iterator[Json]:
    """Return namespaces, Services and Pods of the workloads, and Istio's ingress, which the Gateway selects."""
    yield _object("v1", "Namespace", {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}})
    yield _object("v1", "Namespace", {"name": INGRESS_NAMESPACE, "labels": {"istio-injection": "enabled"}})
    for entry in manifests.of("ServiceEntry"):
        ports = [{"name": port["name"], "port": port["number"], "appProtocol": _protocol(port["protocol"])} for port in entry.spec["ports"]]
        selector = entry.spec["workloadSelector"]["labels"]
        yield _object("v1", "Service", {"name": entry.name, "namespace": NAMESPACE}, {"selector": selector, "ports": ports})
    # The edge is no host of the mesh, but the ingress sends to it.
    listening = {"selector": {"app": "edge"}, "ports": [{"name": "tls", "port": 8443}]}
    yield _object("v1", "Service", {"name": "edge", "namespace": NAMESPACE}, listening)
    for proxy in proxies:
        ports = [{"containerPort": port} for port in proxy.applications]
        yield _pod(proxy.instance.replace("_", "-"), proxy.namespace, dict(proxy.labels), proxy.service_account, ports)
    yield _pod(INGRESS, INGRESS_NAMESPACE, {"istio": "ingressgateway"}, INGRESS, [{"containerPort": 443}])
    entrance = {"selector": {"istio": "ingressgateway"}, "ports": [{"name": "tls", "port": 443, "targetPort": 443}]}
    yield _object("v1", "Service", {"name": INGRESS, "namespace": INGRESS_NAMESPACE}, entrance)


def collectors(mesh: str) -> Iterator[Json]:
    """Return namespaces and Services of whom MeshConfig sends spans to."""
    for name, namespace, port in _collectors(mesh):
        yield _object("v1", "Namespace", {"name": namespace})
        ports = [{"name": "grpc", "port": port, "appProtocol": "grpc"}]
        yield _object("v1", "Service", {"name": name, "namespace": namespace}, {"selector": {"app": name}, "ports": ports})


def collector_entries(mesh: str) -> Iterator[Json]:
    """Return the same for a registry without Kubernetes."""
    for name, namespace, port in _collectors(mesh):
        spec = {
            "hosts": [f"{name}.{namespace}.svc.cluster.local"],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": port, "name": "grpc", "protocol": "GRPC"}],
            "endpoints": [{"address": "127.78.0.1"}],
        }
        yield _object("networking.istio.io/v1", "ServiceEntry", {"name": name, "namespace": namespace}, spec)


def _collectors(mesh: str) -> Iterator[tuple[str, str, int]]:
    for provider in yaml.safe_load(mesh).get("extensionProviders", ()):
        if "opentelemetry" in provider:
            name, namespace = provider["opentelemetry"]["service"].split(".")[:2]
            yield name, namespace, provider["opentelemetry"]["port"]


def _pod(name: str, namespace: str, labels: Json, account: str, ports: list[Json]) -> Json:
    spec = {
        "serviceAccountName": account,
        "containers": [{"name": "application", "ports": ports}, {"name": "istio-proxy", "image": "proxyv2"}],
    }
    return _object("v1", "Pod", {"name": name, "namespace": namespace, "labels": labels}, spec)


def _protocol(name: str) -> str:
    return name.lower()


def _object(version: str, kind: str, metadata: Json, spec: Json | None = None) -> Json:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **({"spec": spec} if spec is not None else {})}
