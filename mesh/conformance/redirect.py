"""The part of a configuration that does not depend on how sockets are bound: clusters, routes, policies and token rules.

In pods connections are redirected, so that Istio makes one listener for everything inbound and one for each outbound port. What these
listeners are for is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

_HCM = "envoy.filters.network.http_connection_manager"
_POLICIES = ("envoy.filters.http.jwt_authn", "envoy.filters.http.rbac")
_REDIRECTED_ONLY = ("BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster")
_REDIRECTED_PORT = 15_006
"""Where inbound connections are redirected to. Chains that name no other port take what no Service declares, which nothing does here."""


def essence(normal: Mapping[str, Any]) -> Json:
    """Return that part of a normal form, in places like its own: clusters, filters by inbound port, and all routes in one."""
    listeners: Json = {}
    hosts: Json = {}
    for name, listener in normal["listeners"].items():
        for chain, manager in _with_connections(listener):
            if name.startswith("inbound|"):
                port = chain.get("filter_chain_match", {}).get("destination_port", int(name.partition("|")[2]))
                found = {key: value for key, value in manager["http_filters"].items() if key.startswith(_POLICIES)}
                if port != _REDIRECTED_PORT:
                    listeners[f"inbound|{port}"] = {"http_filters": found}
            else:
                hosts |= {key: _virtual_host(key, value) for key, value in manager["route_config"]["virtual_hosts"].items()}
    clusters = {name: value for name, value in normal["clusters"].items() if name not in _REDIRECTED_ONLY}
    return {"clusters": clusters, "listeners": {**listeners, "outbound|all": {"virtual_hosts": hosts}}}


def _with_connections(listener: Mapping[str, Any]) -> Iterator[tuple[Json, Json]]:
    for chain in listener["filter_chains"].values():
        if _HCM in chain["filters"]:
            yield chain, chain["filters"][_HCM]["typed_config"]


def _virtual_host(name: str, host: Json) -> Json:
    """A listener of one port leaves the port out of the names that it takes."""
    _, _, port = name.rpartition(":")
    if not port.isdigit():
        return host
    domains = {domain if domain.endswith(f":{port}") else f"{domain}:{port}": taken for domain, taken in host["domains"].items()}
    return {**host, "domains": domains}
