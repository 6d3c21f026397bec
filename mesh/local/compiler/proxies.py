"""The workloads for which configuration is made, and the registry of them that Kubernetes would keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.local.compiler.manifests import Manifests

NAMESPACE = "trading"
DOMAIN = f"{NAMESPACE}.svc.cluster.local"

Json = dict[str, Any]


@dataclass(frozen=True)
class Proxy:
    """One sidecar.

    Attributes:
        instance: of the service, such as `svc_oms-0`.
        service_account: of the service, such as `svc-oms`; also its label `app`.
        address: where its inbound ports are, an address of its own in 127.0.0.0/8.
        applications: the application's UNIX sockets by inbound port.
        egress_socket: the UNIX socket on which the application's calls come in.
        admin_socket: of Envoy itself.
        configuration: the directory of its listeners and clusters.
        certificates: the directory of its certificate and of what it trusts.
        secret: what it adds to each call, so that the application knows that the call came through it.
        namespace: of the workload.
        locality: region, zone and subzone, as far as they are known.
    """

    instance: str
    service_account: str
    address: str
    applications: Mapping[int, Path]
    egress_socket: Path
    admin_socket: Path
    configuration: Path
    certificates: Path
    secret: str = field(repr=False)
    namespace: str = NAMESPACE
    locality: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """What selectors see."""
        return {"app": self.service_account}


def host_name(service_account: str) -> str:
    """Return the name under which a service is called."""
    return f"{service_account}.{DOMAIN}"


def registry(manifests: Manifests, proxies: Iterable[Proxy]) -> Manifests:
    """Return the manifests with a ServiceEntry for each workload whose Sidecar opens ports, and a WorkloadEntry for each instance.

    Kubernetes would keep these as Services and Pods.

    Raises:
        ManifestError: two instances have one name.
    """
    documents: list[Json] = []
    for sidecar in manifests.of("Sidecar"):
        ports = [item["port"] for item in sidecar.spec.get("ingress", [])]
        account = sidecar.spec.get("workloadSelector", {}).get("labels", {}).get("app")
        if ports and account is not None:
            spec = {
                "hosts": [host_name(account)],
                "location": "MESH_INTERNAL",
                "resolution": "STATIC",
                "ports": [dict(port) for port in ports],
                "workloadSelector": {"labels": {"app": account}},
            }
            documents.append(_object("ServiceEntry", account, spec))
    for proxy in proxies:
        entry: Json = {"address": proxy.address, "serviceAccount": proxy.service_account, "labels": proxy.labels}
        if proxy.locality:
            entry["locality"] = "/".join(proxy.locality)
        documents.append(_object("WorkloadEntry", proxy.instance.replace("_", "-"), entry))
    return manifests.with_objects(documents, origin="registry")


def _object(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
