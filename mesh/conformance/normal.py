"""One form for what a proxy is configured with, whoever configured it.

Only what says the same in other words is brought together: where a resource stands (inline, or discovered by its name), what has no order,
and logic with one member. Every field that Envoy reads stays, under a name or a place that both sides share. What still differs, differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mesh.conformance.ads import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resources
from mesh.conformance.protos import canonical
from mesh.local.compiler import Documents
from mesh.local.compiler.documents import resolved

Json = dict[str, Any]

_HCM = "envoy.filters.network.http_connection_manager"
_RBAC_LOGIC: Mapping[str, str] = {"and_rules": "rules", "or_rules": "rules", "and_ids": "ids", "or_ids": "ids"}


def compiled(documents: Documents) -> Json:
    """Return the normal form of what the compiler made.

    Raises:
        google.protobuf.json_format.ParseError: Envoy would not read it.
    """
    filters = {item["name"]: item for item in documents.filters}
    listeners = [canonical(LISTENER, resolved(item, filters)) for item in documents.listeners]
    return served({LISTENER: listeners, CLUSTER: [canonical(CLUSTER, item) for item in documents.clusters], ENDPOINT: [], ROUTE: []})


def served(resources: Resources) -> Json:
    """Return the normal form of what a control plane serves; every resource that another one names is there."""
    assignments = {item["cluster_name"]: item for item in resources[ENDPOINT]}
    routes = {item["name"]: item for item in resources[ROUTE]}
    return {
        "clusters": {item["name"]: _cluster(item, assignments) for item in resources[CLUSTER]},
        "listeners": {_listener_name(item): _listener(item, routes) for item in resources[LISTENER]},
    }


def _cluster(cluster: Json, assignments: Mapping[str, Json]) -> Json:
    found = {key: value for key, value in cluster.items() if key not in ("name", "load_assignment", "transport_socket")}
    service = cluster.get("eds_cluster_config", {}).get("service_name", cluster["name"])
    assignment = cluster.get("load_assignment") or assignments.get(service, {})
    found["endpoints"] = _endpoints(assignment)
    if "policy" in assignment:
        found["endpoint_policy"] = assignment["policy"]
    if "transport_socket" in cluster:
        found["transport_socket"] = _transport_socket(cluster["transport_socket"])
    for match in found.get("transport_socket_matches", []):
        match["transport_socket"] = _transport_socket(match["transport_socket"])
    return found


def _endpoints(assignment: Json) -> Json:
    """Endpoints have no order; each is known by its address."""
    found = {}
    for group in assignment.get("endpoints", []):
        shared = {key: value for key, value in group.items() if key != "lb_endpoints"}
        for item in group.get("lb_endpoints", []):
            rest = {key: value for key, value in item.items() if key != "endpoint"}
            endpoint = {key: value for key, value in item["endpoint"].items() if key != "address"}
            found[_address(item["endpoint"]["address"])] = {"group": shared, **rest, **endpoint, "present": True}
    return found


def _address(address: Json) -> str:
    if "pipe" in address:
        return f"unix:{address['pipe']['path']}"
    if "socket_address" in address:
        return f"{address['socket_address']['address']}:{address['socket_address'].get('port_value', 0)}"
    return _text(address)


def _transport_socket(socket: Json) -> Json:
    config = dict(socket["typed_config"])
    common = dict(config.pop("common_tls_context", {}))
    validation = common.pop("validation_context", None)
    combined = common.pop("combined_validation_context", None)
    if combined is not None:
        sds = combined.get("validation_context_sds_secret_config", {})
        validation = {**combined.get("default_validation_context", {}), "trusted_ca": {"sds": sds}}
    return {"name": socket["name"], **config, "common_tls_context": {**common, "validation": _validation(validation or {})}}


def _validation(context: Json) -> Json:
    """Names that a certificate may have are alternatives, without an order."""
    found = {key: value for key, value in context.items() if key not in ("match_subject_alt_names", "match_typed_subject_alt_names")}
    names = {_text(item): "any type" for item in context.get("match_subject_alt_names", [])}
    names |= {_text(item["matcher"]): item["san_type"] for item in context.get("match_typed_subject_alt_names", [])}
    return {**found, "subject_alt_names": names}


def _listener_name(listener: Json) -> str:
    """Inbound listeners are known by their port, whatever the address that they are bound to; an outbound one by its socket."""
    address = listener["address"]
    if listener.get("traffic_direction") == "INBOUND":
        return f"inbound|{address['socket_address'].get('port_value', 0)}"
    return f"outbound|{_address(address)}"


def _listener(listener: Json, routes: Mapping[str, Json]) -> Json:
    found = {key: value for key, value in listener.items() if key not in ("name", "filter_chains", "listener_filters")}
    found["listener_filters"] = _by_name(listener.get("listener_filters", []))
    found["filter_chains"] = _chains([_chain(item, routes) for item in listener.get("filter_chains", [])])
    return found


def _chains(chains: Sequence[Json]) -> Json:
    """Filter chains are known by what they take, encrypted connections or others; a second of a kind gets its number."""
    found: Json = {}
    for chain in chains:
        name = chain.get("filter_chain_match", {}).get("transport_protocol", "any")
        while name in found:
            name = f"{name}+"
        found[name] = chain
    return found


def _chain(chain: Json, routes: Mapping[str, Json]) -> Json:
    found = {key: value for key, value in chain.items() if key not in ("filters", "transport_socket")}
    if "transport_socket" in chain:
        found["transport_socket"] = _transport_socket(chain["transport_socket"])
    filters = [
        {**item, "typed_config": _connections(item["typed_config"], routes)} if item["name"] == _HCM else item for item in chain["filters"]
    ]
    return {**found, "filters": _by_name(filters)}


def _connections(manager: Json, routes: Mapping[str, Json]) -> Json:
    found = {key: value for key, value in manager.items() if key not in ("http_filters", "route_config", "rds")}
    config = manager.get("route_config") or routes[manager["rds"]["route_config_name"]]
    return {
        **found,
        "routes_discovered": "rds" in manager,
        "http_filters": _by_name([_http_filter(item) for item in manager.get("http_filters", [])]),
        "route_config": _routes(config),
    }


def _by_name(filters: Sequence[Json]) -> Json:
    """Filters by name, beside their order in one text; a name that stands there again gets its number."""
    found: Json = {}
    names = []
    for item in filters:
        name = item["name"]
        while name in found:
            name = f"{name}+"
        names.append(name)
        found[name] = {key: value for key, value in item.items() if key != "name"}
    return {"order": " > ".join(names), **found} if names else {}


def _routes(config: Json) -> Json:
    hosts = {}
    for host in config.get("virtual_hosts", []):
        rest = {key: value for key, value in host.items() if key not in ("name", "domains")}
        hosts[host["name"]] = {**rest, "domains": dict.fromkeys(host["domains"], True)}
    return {**{key: value for key, value in config.items() if key != "virtual_hosts"}, "virtual_hosts": hosts}


def _http_filter(item: Json) -> Json:
    config = item.get("typed_config", {})
    kind = config.get("@type", "").rpartition("/")[2]
    reading: Callable[[Json], Json] | None = {
        "envoy.extensions.filters.http.rbac.v3.RBAC": _rbac,
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication": _tokens,
    }.get(kind)
    return item if reading is None else {**item, "name": _filter_name(item, config), "typed_config": reading(config)}


def _filter_name(item: Json, config: Json) -> str:
    rules = config.get("rules")
    return f"{item['name']}[{rules.get('action', 'ALLOW')}]" if isinstance(rules, dict) else str(item["name"])


def _rbac(config: Json) -> Json:
    found = dict(config)
    for field in ("rules", "shadow_rules"):
        if field in config:
            policies = {name: _policy(policy) for name, policy in config[field].get("policies", {}).items()}
            found[field] = {**config[field], "policies": policies}
    return found


def _policy(policy: Json) -> Json:
    rest = {key: value for key, value in policy.items() if key not in ("permissions", "principals")}
    return {
        **rest,
        "permissions": _logic({"or_rules": {"rules": policy["permissions"]}}),
        "principals": _logic({"or_ids": {"ids": policy["principals"]}}),
    }


def _logic(node: Json) -> Any:
    """Members of `and` and `or` have no order, and one alone is itself."""
    (kind, value), *_ = node.items()
    if kind not in _RBAC_LOGIC:
        return {_text(node): True}
    members = [_logic(member) for member in value[_RBAC_LOGIC[kind]]]
    if len(members) == 1:
        return members[0]
    found: Json = {}
    for member in members:
        # What is no composition is known by its own text; compositions by their place among the sorted.
        found |= member if _plain(member) else {_text(member): member}
    return {kind: {key if value is True else f"#{number}": value for number, (key, value) in enumerate(sorted(found.items()))}}


def _plain(member: Json) -> bool:
    return all(value is True for value in member.values())


def _tokens(config: Json) -> Json:
    """Key sets are JSON in a text; they are compared as JSON."""
    providers = {}
    for name, provider in config.get("providers", {}).items():
        keys = provider.get("local_jwks", {}).get("inline_string")
        providers[name] = provider if keys is None else {**provider, "local_jwks": {"inline_string": _text(json.loads(keys))}}
    return {**config, "providers": providers}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
