"""What the manifests allow is what the services allow: method by method, caller by caller, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from kernel.server_policy import OUTSIDE_PEERS, ServiceBinding
from mesh.local.compiler.manifests import Manifests, load
from mesh.local.compiler.registry import hosts, visible
from mesh.local.services import CALLEES
from mesh.local.sidecar import MANIFESTS
from svc_gateway.codec.catalogue import Catalogue
from tests.contract.bindings import SERVED
from tests.unit.mesh.workloads import shipped, workloads

GATEWAY = "svc-gateway"
PRINCIPAL = "trademesh.local/ns/trading/sa/"
ANYBODY = "https://issuer.trademesh.local/*"


@dataclass(frozen=True)
class Allowed:
    """Who may call a method."""

    peers: frozenset[str]
    user_required: bool


def declared(bindings: list[ServiceBinding]) -> dict[str, Allowed]:
    """Return what a service's own table says, by path."""
    found = {}
    for binding in bindings:
        for method, policy in binding.policies.items():
            assert policy.peers is not None, method
            found[f"/{binding.descriptor.full_name}/{method}"] = Allowed(policy.peers, policy.user_required)
    return found


def granted(manifests: Manifests, service_account: str) -> dict[str, Allowed]:
    """Return what the manifests say of a service, by path; every path is exact and stands in one rule."""
    found: dict[str, Allowed] = {}
    for policy in manifests.of("AuthorizationPolicy"):
        if policy.spec.get("selector", {}).get("matchLabels") != {"app": service_account}:
            continue
        for rule in policy.spec["rules"]:
            [source] = [entry["source"] for entry in rule["from"]]
            assert all(name.startswith(PRINCIPAL) for name in source["principals"])
            peers = frozenset(name.removeprefix(PRINCIPAL) for name in source["principals"])
            users = source.get("requestPrincipals", [])
            assert users in ([], [ANYBODY])
            for entry in rule["to"]:
                operation: Mapping[str, Any] = entry["operation"]
                for path in operation.get("paths", []):
                    assert path not in found, f"{path} stands in two rules"
                    found[path] = Allowed(peers, bool(users))
    return found


def expected(account: str, table: Mapping[str, Allowed]) -> dict[str, Allowed]:
    """Return what the manifests have to say of a service with this table.

    Its own words, but for svc-gateway: a service tells users from services and not one door from the other, while the mesh gives the
    gateway only what it bridges, reads for users, so that whoever takes the gateway over can neither trade nor read whole logs.
    """
    bridged = Catalogue().paths(account)
    assert bridged <= {path for path, allowed in table.items() if GATEWAY in allowed.peers and allowed.user_required}
    others = {path: Allowed(allowed.peers - {GATEWAY}, allowed.user_required) for path, allowed in table.items() if path not in bridged}
    return {path: table[path] for path in bridged} | {path: allowed for path, allowed in others.items() if allowed.peers}


@pytest.mark.parametrize("service", sorted(SERVED))
def test_manifests_and_services_allow_the_same(service: str) -> None:
    account = service.replace("_", "-")
    assert granted(load(MANIFESTS), account) == expected(account, declared(SERVED[service]()))


@pytest.mark.parametrize("service", sorted(SERVED))
def test_whoever_may_call_a_service_has_it_in_his_sidecar(service: str) -> None:
    """A caller whose Sidecar does not list the host would get 502, and a Sidecar that lists it for nothing costs memory."""
    account = service.replace("_", "-")
    manifests = shipped(workloads())
    known = hosts(manifests)
    configured = {proxy.service_account for proxy in workloads()}
    outside = {peer for allowed in granted(manifests, account).values() if allowed.user_required for peer in allowed.peers}
    assert outside in (set(), OUTSIDE_PEERS)
    for peer in outside & configured:
        assert account in {host.name.partition(".")[0] for host in visible(manifests, known, {"app": peer}, "trading")}, peer


def test_nothing_is_allowed_that_is_not_a_services_own() -> None:
    """Every service that the manifests allow anything is one whose table was compared."""
    manifests = load(MANIFESTS)
    selected = {
        policy.spec["selector"]["matchLabels"]["app"] for policy in manifests.of("AuthorizationPolicy") if "selector" in policy.spec
    }
    assert selected <= {service.replace("_", "-") for service in SERVED} | {GATEWAY, "edge"}
    [deny] = [policy for policy in manifests.of("AuthorizationPolicy") if "selector" not in policy.spec]
    assert deny.spec == {}


def test_whom_the_plan_lets_a_service_call_its_sidecar_lists() -> None:
    manifests = shipped(workloads())
    known = hosts(manifests)
    for service, callees in CALLEES.items():
        reachable = {host.name.partition(".")[0] for host in visible(manifests, known, {"app": service.replace("_", "-")}, "trading")}
        assert {callee.replace("_", "-") for callee in callees} <= reachable, service
