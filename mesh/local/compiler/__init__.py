"""Compiles the Istio manifests in use into Envoy configuration. A pure function: no file is written, no clock is read.

    manifests = registry(load(Path("mesh/istio")), proxies)         # plus the instances, which Kubernetes would know
    compiled = compile_mesh(manifests, proxies, {issuer: jwks})     # one `Documents` by instance

The language is a closed subset: an unknown kind, field, value or duration is refused (`ManifestError` names file, object and field).
Where a manifest is silent, Istio's defaults hold, not Envoy's.

For an Envoy that is no sidecar but calls services of the mesh itself, such as the edge:

    outbound = compile_outbound(manifests, "edge", certificates)
    outbound.clusters                                               # Envoy clusters, named as in Istio: `outbound|9000||<host>`
    outbound.routes["svc-oms.trading.svc.cluster.local:9000"]       # the VirtualService's routes in order, each with match and route

`certificates` is the directory of `current/default.json` and `current/ROOTCA.pem` that the control process keeps for `edge`. What the
workload may call is what its Sidecar lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.local.compiler import clusters, listeners
from mesh.local.compiler.authentication import jwt_filter
from mesh.local.compiler.authorization import rbac_filters
from mesh.local.compiler.documents import Documents, bootstrap
from mesh.local.compiler.manifests import Manifest, Manifests, load
from mesh.local.compiler.problems import ManifestError
from mesh.local.compiler.proxies import NAMESPACE, Proxy, host_name, registry
from mesh.local.compiler.registry import hosts, select_sidecar, visible
from mesh.local.compiler.routes import authority, registry_only, routes, virtual_host
from mesh.local.compiler.telemetry import access_logs

__all__ = [
    "Documents",
    "ManifestError",
    "Manifests",
    "Outbound",
    "Proxy",
    "compile_mesh",
    "compile_outbound",
    "host_name",
    "load",
    "registry",
]

Json = dict[str, Any]


@dataclass(frozen=True)
class Outbound:
    """What a workload may call: clusters, and routes by authority (`host:port`)."""

    clusters: tuple[Json, ...]
    routes: Mapping[str, tuple[Json, ...]]


def compile_outbound(
    manifests: Manifests, service_account: str, certificates: Path, *, namespace: str = NAMESPACE, locality: tuple[str, ...] = ()
) -> Outbound:
    """Return clusters and routes of the hosts that a workload may call, which its Sidecar lists.

    Raises:
        ManifestError: the manifests contradict each other.
    """
    labels = {"app": service_account}
    reachable = visible(manifests, hosts(manifests), labels, namespace)
    return Outbound(
        tuple(cluster for host in reachable for cluster in clusters.outbound(host, manifests.mesh, certificates, locality)),
        {
            authority(host.name, port): tuple(routes(host, port, manifests.mesh, labels))
            for host in reachable
            for port in sorted(host.ports)
        },
    )


def compile_mesh(manifests: Manifests, proxies: Sequence[Proxy], jwks: Mapping[str, str]) -> dict[str, Documents]:
    """Return the configuration of every proxy, by instance.

    Args:
        manifests: with the registry of hosts (`registry`).
        proxies: the sidecars.
        jwks: key sets as JSON text, by issuer.

    Raises:
        ManifestError: the manifests contradict each other, or need what is not there.
    """
    known = hosts(manifests)
    return {proxy.instance: _compile(manifests, proxy, jwks, visible(manifests, known, proxy.labels, proxy.namespace)) for proxy in proxies}


def _compile(manifests: Manifests, proxy: Proxy, jwks: Mapping[str, str], reachable: Sequence[Any]) -> Documents:
    mesh = manifests.mesh
    filters = _filters(manifests, proxy, jwks)
    logs = access_logs(_applying(manifests, "Telemetry", proxy), mesh)
    _require_strict(manifests, proxy)
    found_listeners, found_clusters = [], []
    for ingress in _ingress(manifests, proxy):
        port = ingress["port"]["number"]
        found_listeners.append(listeners.inbound(proxy, port, mesh, filters, logs))
        found_clusters.append(clusters.inbound(ingress, proxy.applications[port], mesh))
    virtual_hosts = [virtual_host(host, port, mesh, proxy.labels) for host in reachable for port in sorted(host.ports)]
    found_listeners.append(listeners.outbound(proxy, [*virtual_hosts, registry_only()], logs))
    found_clusters.extend(cluster for host in reachable for cluster in clusters.outbound(host, mesh, proxy.certificates, proxy.locality))
    return Documents(bootstrap(proxy), tuple(found_listeners), tuple(found_clusters))


def _ingress(manifests: Manifests, proxy: Proxy) -> list[Json]:
    """What the workload's Sidecar opens. The manifest's own endpoint is that of a pod."""
    sidecar = select_sidecar(manifests, proxy.labels, proxy.namespace)
    found: list[Json] = [] if sidecar is None else sidecar.spec.get("ingress", [])
    opened, served = sorted(item["port"]["number"] for item in found), sorted(proxy.applications)
    if opened != served:
        text = f"opens ports {opened}, and {proxy.instance} serves {served}"
        raise ManifestError([sidecar.problem(f"spec.ingress: {text}") if sidecar is not None else f"no Sidecar {text}"])
    return found


def _applying(manifests: Manifests, kind: str, proxy: Proxy) -> list[Manifest]:
    """Policies of the root namespace and of the workload's own, as far as they select it."""
    near = (manifests.mesh["rootNamespace"], proxy.namespace)
    return [item for item in manifests.of(kind) if item.namespace in near and item.selects(proxy.labels)]


def _filters(manifests: Manifests, proxy: Proxy, jwks: Mapping[str, str]) -> list[Json]:
    token = jwt_filter(_applying(manifests, "RequestAuthentication", proxy), jwks)
    policies = rbac_filters(_applying(manifests, "AuthorizationPolicy", proxy))
    return [*([token] if token is not None else []), *policies]


def _require_strict(manifests: Manifests, proxy: Proxy) -> None:
    """Istio's default is PERMISSIVE, which takes plaintext; this compiler cannot make that, and says so."""
    if not _applying(manifests, "PeerAuthentication", proxy):
        raise ManifestError(
            [f"no PeerAuthentication makes mTLS STRICT for {proxy.instance}; the default, PERMISSIVE, is not in the subset"]
        )
