"""What the manifests say about hosts: ports, endpoints, how to reach them. Istio's merge rules, applied once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.local.compiler.manifests import Manifest, Manifests
from mesh.local.compiler.problems import ManifestError


@dataclass(frozen=True)
class Endpoint:
    """One instance behind a host. `locality` is region, zone and subzone, as far as they are known."""

    address: str
    service_account: str
    labels: Mapping[str, str]
    locality: tuple[str, ...] = ()


@dataclass(frozen=True)
class Host:
    """A service of the mesh. `ports` gives the protocol by number; the policies are None where no manifest speaks of the host."""

    name: str
    namespace: str
    ports: Mapping[int, str]
    endpoints: tuple[Endpoint, ...]
    destination_rule: Manifest | None
    virtual_service: Manifest | None

    @property
    def traffic_policy(self) -> Mapping[str, Any]:
        """The policy of the host as a whole."""
        return self.destination_rule.spec.get("trafficPolicy", {}) if self.destination_rule is not None else {}

    def subsets(self) -> list[tuple[str, Mapping[str, Any], tuple[Endpoint, ...]]]:
        """Return name, policy and endpoints of each subset. Of the host's policy a subset's replaces whole parts, as in Istio."""
        if self.destination_rule is None:
            return []
        found: list[tuple[str, Mapping[str, Any], tuple[Endpoint, ...]]] = []
        for subset in self.destination_rule.spec.get("subsets", []):
            labels = subset.get("labels", {})
            endpoints = tuple(item for item in self.endpoints if labels.items() <= item.labels.items())
            found.append((subset["name"], {**self.traffic_policy, **subset.get("trafficPolicy", {})}, endpoints))
        return found


def locality_of(text: str) -> tuple[str, ...]:
    """Return region, zone and subzone of `region/zone/subzone`, of which later ones may be missing."""
    return tuple(text.split("/")) if text else ()


def hosts(manifests: Manifests) -> dict[str, Host]:
    """Return the hosts that ServiceEntries declare, with their WorkloadEntries, DestinationRule and VirtualService.

    Raises:
        ManifestError: a host is declared or ruled twice, or a rule or route speaks of what is not there.
    """
    problems: list[str] = []
    rules = _by_host(manifests, "DestinationRule", problems)
    services = _by_host(manifests, "VirtualService", problems)
    _check_gateways(manifests, problems)
    entries = _by_host(manifests, "ServiceEntry", problems)
    found = {}
    for name, entry in entries.items():
        endpoints = tuple(
            Endpoint(item.spec["address"], item.spec["serviceAccount"], item.spec["labels"], locality_of(item.spec.get("locality", "")))
            for item in manifests.of("WorkloadEntry")
            if item.namespace == entry.namespace and entry.spec["workloadSelector"]["labels"].items() <= item.spec["labels"].items()
        )
        ports = {port["number"]: port["protocol"] for port in entry.spec["ports"]}
        found[name] = Host(name, entry.namespace, ports, endpoints, rules.get(name), services.get(name))
    for item in (*rules.values(), *services.values()):
        problems.extend(item.problem(f"spec.host: no service is called {name}") for name in _hosts_of(item) if name not in found)
    for host in found.values():
        _check_routes(host, found, problems)
    if problems:
        raise ManifestError(problems)
    return found


def _hosts_of(item: Manifest) -> list[str]:
    return [item.spec["host"]] if item.kind == "DestinationRule" else list(item.spec["hosts"])


def _check_gateways(manifests: Manifests, problems: list[str]) -> None:
    """A VirtualService routes the mesh's calls (`http`), or what comes in at a Gateway (`gateways` with `tls`), which no sidecar sees."""
    known = {(item.namespace, item.name) for item in manifests.of("Gateway")}
    for item in manifests.of("VirtualService"):
        required, other, why = "http", "tls", "needs `gateways`"
        if "gateways" in item.spec:
            required, other, why = "tls", "http", "is not in the subset for gateways"
        if required not in item.spec:
            problems.append(item.problem(f"spec.{required}: is required"))
        if other in item.spec:
            problems.append(item.problem(f"spec.{other}: {why}"))
        for number, name in enumerate(item.spec.get("gateways", ())):
            if (item.namespace, name) not in known:
                problems.append(item.problem(f"spec.gateways[{number}]: no Gateway is called {name}"))


def _by_host(manifests: Manifests, kind: str, problems: list[str]) -> dict[str, Manifest]:
    found: dict[str, Manifest] = {}
    for item in (item for item in manifests.of(kind) if "gateways" not in item.spec):
        for name in _hosts_of(item):
            first = found.setdefault(name, item)
            if first is not item:
                problems.append(item.problem(f"spec.host: {first.kind}/{first.name} in {first.origin} speaks of {name} already"))
    return found


def _check_routes(host: Host, known: Mapping[str, Host], problems: list[str]) -> None:
    """Every destination exists; Istio would route to nowhere and answer 503."""
    if host.virtual_service is None:
        return
    for number, http in enumerate(host.virtual_service.spec.get("http", [])):
        shares, where = http["route"], f"spec.http[{number}].route"
        if len(shares) > 1 and not all("weight" in share for share in shares):
            problems.append(host.virtual_service.problem(f"{where}: of several destinations each needs a weight"))
        elif len(shares) > 1 and not any(share["weight"] for share in shares):
            problems.append(host.virtual_service.problem(f"{where}: the weights add up to nothing"))
        for position, share in enumerate(shares):
            problems.extend(host.virtual_service.problem(text) for text in _missing(share["destination"], f"{where}[{position}]", known))


def _missing(destination: Mapping[str, Any], where: str, known: Mapping[str, Host]) -> list[str]:
    target = known.get(destination["host"])
    if target is None:
        return [f"{where}.destination.host: no service is called {destination['host']}"]
    port, subset = destination.get("port", {}).get("number"), destination.get("subset")
    problems = []
    if port is not None and port not in target.ports:
        problems.append(f"{where}.destination.port.number: {target.name} has no port {port}")
    if subset is not None and subset not in {name for name, _, _ in target.subsets()}:
        problems.append(f"{where}.destination.subset: {target.name} has no subset {subset}")
    return problems


def visible(manifests: Manifests, known: Mapping[str, Host], labels: Mapping[str, str], namespace: str) -> list[Host]:
    """Return the hosts that a workload may call: those of its own Sidecar, else of its namespace's, else all.

    Raises:
        ManifestError: two Sidecars select the workload, or one names a host that is not there.
    """
    sidecar = select_sidecar(manifests, labels, namespace)
    if sidecar is None:
        return [known[name] for name in sorted(known)]
    problems: list[str] = []
    found: dict[str, Host] = {}
    for number, egress in enumerate(sidecar.spec["egress"]):
        for position, pattern in enumerate(egress["hosts"]):
            scope, _, name = pattern.partition("/")
            wanted = namespace if scope == "." else scope
            matching = [host for host in known.values() if host.namespace == wanted and name in ("*", host.name)]
            if not matching and not (scope == "." and name == "*"):
                problems.append(sidecar.problem(f"spec.egress[{number}].hosts[{position}]: no service is called {pattern}"))
            found |= {host.name: host for host in matching}
    if problems:
        raise ManifestError(problems)
    return [found[name] for name in sorted(found)]


def select_sidecar(manifests: Manifests, labels: Mapping[str, str], namespace: str) -> Manifest | None:
    """Return the Sidecar of a workload: the one that selects it, else the namespace's without a selector.

    Raises:
        ManifestError: several select it.
    """
    near = [item for item in manifests.of("Sidecar") if item.namespace == namespace and item.selects(labels)]
    selecting = [item for item in near if item.selective] or near
    if len(selecting) > 1:
        raise ManifestError([selecting[1].problem(f"spec.workloadSelector: {selecting[0].name} selects the same workload")])
    return selecting[0] if selecting else None
