"""VirtualServices as Envoy routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mesh.local.compiler.clusters import outbound_name
from mesh.local.compiler.kinds import GRPC_STATUS
from mesh.local.compiler.registry import Host

Json = dict[str, Any]

# What Istio does where nobody speaks of retries; pilot's `defaultRetryPolicy`.
_ISTIO_RETRIES: Mapping[str, Any] = {
    "attempts": 2,
    "retryOn": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
}
_HOST_SELECTION_ATTEMPTS = 5

_FAULT_FILTER = "envoy.filters.http.fault"
_FAULT_TYPE = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"


def authority(host: str, port: int) -> str:
    """Return what callers ask for."""
    return f"{host}:{port}"


def routes(host: Host, port: int, mesh: Mapping[str, Any], labels: Mapping[str, str]) -> list[Json]:
    """Return the routes of a host's port for callers with these labels, in order; without a VirtualService one that takes everything."""
    if host.virtual_service is None:
        return [{"name": "default", "match": {"prefix": "/"}, "route": _action({"cluster": outbound_name(port, "", host.name)}, {}, mesh)}]
    found = []
    for http in host.virtual_service.spec["http"]:
        extensions = {"typed_per_filter_config": {_FAULT_FILTER: fault(http["fault"])}} if "fault" in http else {}
        for match in http.get("match", [{}]):
            if match.get("port", port) == port and match.get("sourceLabels", {}).items() <= labels.items():
                action = _action(_destination(http["route"], port), http, mesh)
                found.append({"name": http["name"], "match": _match(match), "route": action, **extensions})
    return found


def virtual_host(host: Host, port: int, mesh: Mapping[str, Any], labels: Mapping[str, str]) -> Json:
    """Return the virtual host of a host's port, found by its authority."""
    name = authority(host.name, port)
    return {"name": name, "domains": [name], "routes": routes(host, port, mesh, labels)}


def registry_only() -> Json:
    """Return what answers for hosts that are not there: 502, as Istio's `block_all`."""
    return {
        "name": "block_all",
        "domains": ["*"],
        "routes": [{"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}],
    }


def fault_filters(routes: Iterable[Json]) -> list[Json]:
    """Return the HTTP filter that injects the faults of these routes, if they have any; Istio's listeners always have one."""
    injected = any(_FAULT_FILTER in route.get("typed_per_filter_config", {}) for route in routes)
    return [{"name": _FAULT_FILTER, "typed_config": {"@type": _FAULT_TYPE}}] if injected else []


def fault(rule: Mapping[str, Any]) -> Json:
    """Return the configuration of Envoy's fault filter for a route; shares are in millionths."""
    found: Json = {"@type": _FAULT_TYPE}
    if "delay" in rule:
        found["delay"] = {"fixed_delay": rule["delay"]["fixedDelay"], "percentage": _share(rule["delay"])}
    if "abort" in rule:
        abort = rule["abort"]
        code = {"grpc_status": GRPC_STATUS.index(abort["grpcStatus"])} if "grpcStatus" in abort else {"http_status": abort["httpStatus"]}
        found["abort"] = {**code, "percentage": _share(abort)}
    return found


def _share(rule: Mapping[str, Any]) -> Json:
    return {"numerator": rule["percentage"]["value"], "denominator": "MILLION"}


def _match(match: Mapping[str, Any]) -> Json:
    uri = match.get("uri", {"prefix": "/"})
    found: Json = {"path": uri["exact"]} if "exact" in uri else {"prefix": uri["prefix"]}
    found["case_sensitive"] = True
    if "headers" in match:
        found["headers"] = [
            {"name": name, "string_match": {"safe_regex": {"regex": wanted["regex"]}} if "regex" in wanted else dict(wanted)}
            for name, wanted in sorted(match["headers"].items())
        ]
    return found


def _destination(shares: Sequence[Mapping[str, Any]], port: int) -> Json:
    """One cluster, or several by weight; of several, those of weight 0 get nothing and are not named."""
    if len(shares) == 1:
        return {"cluster": _cluster(shares[0], port)}
    weighted = [{"name": _cluster(share, port), "weight": share["weight"]} for share in shares if share["weight"] > 0]
    return {"weighted_clusters": {"clusters": weighted}}


def _cluster(share: Mapping[str, Any], port: int) -> str:
    destination = share["destination"]
    return outbound_name(destination.get("port", {}).get("number", port), destination.get("subset", ""), destination["host"])


def _action(destination: Json, http: Mapping[str, Any], mesh: Mapping[str, Any]) -> Json:
    # Unset means no bound in Istio, where Envoy's default is 15 s; with a bound, callers without a deadline get it as theirs.
    timeout = http.get("timeout", "0s")
    action: Json = {**destination, "timeout": timeout, "max_grpc_timeout": timeout}
    retries = http.get("retries", mesh.get("defaultHttpRetryPolicy", _ISTIO_RETRIES))
    if retries["attempts"] > 0:
        policy: Json = {
            "retry_on": retries.get("retryOn", _ISTIO_RETRIES["retryOn"]),
            "num_retries": retries["attempts"],
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": _HOST_SELECTION_ATTEMPTS,
        }
        if "perTryTimeout" in retries:
            policy["per_try_timeout"] = retries["perTryTimeout"]
        action["retry_policy"] = policy
    return action
