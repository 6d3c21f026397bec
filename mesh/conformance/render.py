"""What istiod is started with: the manifests and the registry that the compiler reads, in the form that it needs without Kubernetes.

The files themselves are read, not what the compiler has made of them: a value that it reads wrongly must not be wrong on both sides.
Three things are changed, each because there is no Kubernetes and no redirection of sockets here:

- a Sidecar names the sockets (`captureMode: NONE`), with one egress listener for all hosts that its egress lists;
- a RequestAuthentication holds its keys, which istiod would fetch;
- ServiceEntries and WorkloadEntries, the compiler's own registry, stand for Services and Pods.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mesh.conformance.workloads import EGRESS_SOCKET, KEYS, issuers, workloads
from mesh.local.compiler import Manifests, Proxy, load, registry
from mesh.local.compiler.kinds import KINDS
from mesh.local.compiler.manifests import KUSTOMIZATION_FILE, MESH_FILE

ISTIO_VERSION = "1.31.0"
"""What a workload says of its own proxy: the release that the module under `istiod/` is of."""
REGISTRY = "registry"

Json = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """One mesh, for both sides.

    Attributes:
        manifests: what the compiler compiles.
        proxies: the workloads.
        keys: key sets as JSON text, by issuer.
        policies: the same manifests as they are written, for istiod.
        registered: the registry in the same form.
        mesh: MeshConfig, as text.
    """

    manifests: Manifests
    proxies: tuple[Proxy, ...]
    keys: Mapping[str, str]
    policies: tuple[Json, ...]
    registered: tuple[Json, ...]
    mesh: str

    @property
    def objects(self) -> tuple[Json, ...]:
        """Return all that istiod is given."""
        return (*self.policies, *self.registered)

    def deployed(self, policies: Iterable[Json], registered: Iterable[Json], mesh: str) -> Rendered:
        """Return the same workloads under the policies of an environment, with what is registered besides."""
        with_keys = tuple(_with_keys(item) for item in policies)
        return replace(self, policies=with_keys, registered=(*self.registered, *registered), mesh=mesh)

    def none_mode(self) -> tuple[Json, ...]:
        """Return the objects for workloads whose sockets nobody redirects."""
        return tuple(_bound(item) if item["kind"] == "Sidecar" else item for item in self.objects)


def render(directory: Path) -> Rendered:
    """Read a directory of manifests for both sides.

    Raises:
        ManifestError: the compiler refuses them.
    """
    read = load(directory)
    proxies = workloads(read)
    manifests = registry(read, proxies)
    registered = (_written(item.kind, item.name, item.namespace, item.spec) for item in manifests.objects if item.origin == REGISTRY)
    policies = (_with_keys(item) for item in documents(directory))
    return Rendered(manifests, proxies, issuers(read), tuple(policies), tuple(registered), (directory / MESH_FILE).read_text())


def documents(directory: Path) -> Iterable[Json]:
    """Return the objects of a directory as they are written."""
    for path in sorted(directory.glob("*.yaml")):
        if path.name not in (MESH_FILE, KUSTOMIZATION_FILE):
            yield from (document for document in yaml.safe_load_all(path.read_text()) if document is not None)


def text(objects: Iterable[Json]) -> str:
    """Return objects as one file of YAML."""
    return yaml.safe_dump_all(objects, sort_keys=True)


def node(proxy: Proxy, *, interception: str) -> Json:
    """Return how a workload's proxy presents itself to istiod, which finds out by the address who it is."""
    domain = f"{proxy.namespace}.svc.cluster.local"
    return {
        "id": f"sidecar~{proxy.address}~{proxy.instance.replace('_', '-')}.{proxy.namespace}~{domain}",
        "cluster": f"{proxy.service_account}.{proxy.namespace}",
        "locality": dict(zip(("region", "zone", "sub_zone"), proxy.locality, strict=False)),
        "metadata": {
            "CLUSTER_ID": "Kubernetes",
            "INSTANCE_IPS": proxy.address,
            "INTERCEPTION_MODE": interception,
            "ISTIO_VERSION": ISTIO_VERSION,
            "LABELS": dict(proxy.labels),
            "NAMESPACE": proxy.namespace,
            "SERVICE_ACCOUNT": proxy.service_account,
        },
    }


def _written(kind: str, name: str, namespace: str, spec: Mapping[str, Any]) -> Json:
    return {
        "apiVersion": KINDS[kind][0],
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": copy.deepcopy(dict(spec)),
    }


def _with_keys(item: Json) -> Json:
    if item["kind"] != "RequestAuthentication":
        return item
    changed = copy.deepcopy(item)
    for rule in changed["spec"]["jwtRules"]:
        rule.pop("jwksUri", None)
        rule["jwks"] = KEYS
    return changed


def _bound(sidecar: Json) -> Json:
    """A Sidecar may bind one socket once, so the hosts of all its egress listeners come together in it."""
    changed = copy.deepcopy(sidecar)
    spec = changed["spec"]
    hosts = [host for listener in spec["egress"] for host in listener["hosts"]]
    port = {"number": 0, "protocol": "HTTP", "name": "http-egress"}
    spec["egress"] = [{"port": port, "bind": f"unix://{EGRESS_SOCKET}", "captureMode": "NONE", "hosts": hosts}]
    for listener in spec.get("ingress", []):
        listener["captureMode"] = "NONE"
    return changed
