"""What Istio serves, as files for a plain Envoy of a mesh on one machine, so that it can be tried as the compiled configuration can.

Only places are changed: where a resource is looked up (inline instead of discovered), where certificates are (files instead of the agent),
and which sockets an instance has. What a sidecar adds on one machine alone (its secret, ADR 26) is added, or no application would answer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from kernel.identity import SECRET_HEADER
from mesh.conformance.ads import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resources
from mesh.local.compiler import Documents, Proxy
from mesh.local.compiler.documents import bootstrap
from mesh.local.compiler.listeners import EGRESS, OWNER_ONLY
from mesh.local.compiler.tls import TRUST_FILE, identity

Json = dict[str, Any]

_HCM = "envoy.filters.network.http_connection_manager"
_REDIRECTED_ONLY = ("BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster")


def documents(resources: Resources, proxy: Proxy, places: Mapping[str, str]) -> Documents:
    """Return a workload's answers as documents.

    Args:
        resources: what Istio served to it in the run with bound sockets.
        proxy: the instance that takes its place.
        places: addresses of instances here, by those that Istio was told.
    """
    assignments = {item["cluster_name"]: item for item in resources[ENDPOINT]}
    routes = {item["name"]: item for item in resources[ROUTE]}
    listeners = tuple(_listener(copy.deepcopy(item), proxy, routes) for item in resources[LISTENER])
    clusters = tuple(
        _cluster(copy.deepcopy(item), proxy, assignments, places) for item in resources[CLUSTER] if item["name"] not in _REDIRECTED_ONLY
    )
    return Documents(bootstrap(proxy), listeners, clusters)


def _listener(listener: Json, proxy: Proxy, routes: Mapping[str, Json]) -> Json:
    inbound = listener["traffic_direction"] == "INBOUND"
    if inbound:
        port = listener["address"]["socket_address"]["port_value"]
        listener["address"]["socket_address"]["address"] = proxy.address
        # Under the compiler's name an Envoy takes one for a new version of the other.
        listener["name"] = f"inbound|{proxy.address}|{port}"
    else:
        listener["address"] = {"pipe": {"path": str(proxy.egress_socket), "mode": OWNER_ONLY}}
        listener["name"] = EGRESS
    for chain in listener["filter_chains"]:
        if "transport_socket" in chain:
            _with_files(chain["transport_socket"], proxy)
        for item in chain["filters"]:
            if item["name"] == _HCM:
                _inline(item["typed_config"], routes, proxy if inbound else None)
    return listener


def _inline(connections: Json, routes: Mapping[str, Json], proxy: Proxy | None) -> None:
    if "rds" in connections:
        config = copy.deepcopy(routes[connections.pop("rds")["route_config_name"]])
        # On a UNIX socket Istio looks for names without the port among names with it, and finds none.
        config["ignore_port_in_host_matching"] = False
        connections["route_config"] = config
    if proxy is not None:
        secret = {"header": {"key": SECRET_HEADER, "value": proxy.secret}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        connections["route_config"]["request_headers_to_add"] = [secret]


def _cluster(cluster: Json, proxy: Proxy, assignments: Mapping[str, Json], places: Mapping[str, str]) -> Json:
    if cluster.get("type") == "EDS":
        cluster["type"] = "STATIC"
        service = cluster.pop("eds_cluster_config").get("service_name", cluster["name"])
        cluster["load_assignment"] = {**copy.deepcopy(assignments[service]), "cluster_name": cluster["name"]}
        for group in cluster["load_assignment"].get("endpoints", []):
            # Not all instances are there.
            group["lb_endpoints"] = [item for item in group["lb_endpoints"] if _moved(item["endpoint"]["address"], places)]
            group.pop("load_balancing_weight", None)
    elif cluster["name"].startswith("inbound|"):
        port = int(cluster["name"].split("|")[1])
        cluster.pop("upstream_bind_config", None)
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = {
            "pipe": {"path": str(proxy.applications[port])}
        }
    if "transport_socket" in cluster:
        _with_files(cluster["transport_socket"], proxy)
    return cluster


def _moved(address: Json, places: Mapping[str, str]) -> bool:
    place = places.get(address["socket_address"]["address"])
    if place is not None:
        address["socket_address"]["address"] = place
    return place is not None


def _with_files(socket: Json, proxy: Proxy) -> None:
    """The names that a certificate may have stay as Istio wrote them."""
    common = socket["typed_config"]["common_tls_context"]
    common["tls_certificate_sds_secret_configs"] = [identity(proxy.certificates)]
    combined = common.pop("combined_validation_context")
    trusted = {"filename": str(proxy.certificates / "current" / TRUST_FILE)}
    common["validation_context"] = {**combined["default_validation_context"], "trusted_ca": trusted}
