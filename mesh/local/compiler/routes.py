"""VirtualServices as Envoy routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.local.compiler.clusters import outbound_name
from mesh.local.compiler.registry import Host

Json = dict[str, Any]

# What Istio does where nobody speaks of retries; pilot's `defaultRetryPolicy`.
_ISTIO_RETRIES: Mapping[str, Any] = {
    "attempts": 2,
    "retryOn": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
}
_HOST_SELECTION_ATTEMPTS = 5


def authority(host: str, port: int) -> str:
    """Return what callers ask for."""
    return f"{host}:{port}"


def routes(host: Host, port: int, mesh: Mapping[str, Any]) -> list[Json]:
    """Return the routes of a host's port, in order; without a VirtualService one that takes everything to the whole host."""
    if host.virtual_service is None:
        return [{"name": "default", "match": {"prefix": "/"}, "route": _action(outbound_name(port, "", host.name), {}, mesh)}]
    found = []
    for http in host.virtual_service.spec["http"]:
        destination = http["route"][0]["destination"]
        cluster = outbound_name(destination.get("port", {}).get("number", port), destination.get("subset", ""), destination["host"])
        for match in http.get("match", [{"uri": {"prefix": "/"}}]):
            if match.get("port", port) == port:
                found.append({"name": http["name"], "match": _match(match["uri"]), "route": _action(cluster, http, mesh)})
    return found


def virtual_host(host: Host, port: int, mesh: Mapping[str, Any]) -> Json:
    """Return the virtual host of a host's port, found by its authority."""
    name = authority(host.name, port)
    return {"name": name, "domains": [name], "routes": routes(host, port, mesh)}


def registry_only() -> Json:
    """Return what answers for hosts that are not there: 502, as Istio's `block_all`."""
    return {
        "name": "block_all",
        "domains": ["*"],
        "routes": [{"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}],
    }


def _match(uri: Mapping[str, str]) -> Json:
    return {"path": uri["exact"], "case_sensitive": True} if "exact" in uri else {"prefix": uri["prefix"], "case_sensitive": True}


def _action(cluster: str, http: Mapping[str, Any], mesh: Mapping[str, Any]) -> Json:
    # Unset means no bound in Istio, where Envoy's default is 15 s; with a bound, callers without a deadline get it as theirs.
    timeout = http.get("timeout", "0s")
    action: Json = {"cluster": cluster, "timeout": timeout, "max_grpc_timeout": timeout}
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
