"""Envoy clusters: where calls go, over mutual TLS to other sidecars, and over a UNIX socket to the own application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mesh.local.compiler import tls
from mesh.local.compiler.registry import Endpoint, Host
from mesh.local.compiler.schema import UINT32_MAX

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_CONNECT_TIMEOUT = "10s"
_RETRY_CONCURRENCY_MIN = 3
_LEVELS = 3
"""Of a locality: region, zone, subzone."""

Json = dict[str, Any]


def outbound_name(port: int, subset: str, host: str) -> str:
    """Return the name that Istio gives a cluster."""
    return f"outbound|{port}|{subset}|{host}"


def outbound(host: Host, mesh: Mapping[str, Any], certificates: Path, locality: tuple[str, ...]) -> list[Json]:
    """Return the clusters of a host for callers in a locality: for each port the whole of it, then each subset."""
    found = []
    for port in sorted(host.ports):
        for subset, policy, endpoints in (("", host.traffic_policy, host.endpoints), *host.subsets()):
            cluster = _outbound(host, port, subset, policy, endpoints, mesh, certificates)
            groups = _groups(endpoints, locality if _prefers_near(policy) else None)
            found.append({**cluster, "load_assignment": _assignment(cluster["name"], groups, port)})
    return found


def _outbound(
    host: Host,
    port: int,
    subset: str,
    policy: Mapping[str, Any],
    endpoints: Sequence[Endpoint],
    mesh: Mapping[str, Any],
    certificates: Path,
) -> Json:
    pool = policy.get("connectionPool", {})
    cluster: Json = {
        "name": outbound_name(port, subset, host.name),
        "alt_stat_name": f"{outbound_name(port, subset, host.name)};",
        "type": "STATIC",
        "connect_timeout": _connect_timeout(pool, mesh),
        "lb_policy": policy.get("loadBalancer", {}).get("simple", "LEAST_REQUEST"),
        "circuit_breakers": {"thresholds": [_thresholds(pool, policy.get("retryBudget"))]},
        "typed_extension_protocol_options": {HTTP_OPTIONS: _http_options(pool, http2=host.ports[port] == "GRPC")},
        # In Istio mTLS is automatic wherever the other side has a sidecar, whether or not a rule says so.
        "transport_socket": tls.upstream(
            sni=f"outbound_.{port}_.{subset}_.{host.name}",
            spiffe_ids=[
                tls.spiffe_id(mesh["trustDomain"], host.namespace, name) for name in sorted({e.service_account for e in endpoints})
            ],
            certificates=certificates,
            http2=host.ports[port] == "GRPC",
        ),
    }
    if "outlierDetection" in policy:
        cluster |= _outlier_detection(policy["outlierDetection"])
    return cluster


def inbound(ingress: Mapping[str, Any], socket: Path, mesh: Mapping[str, Any]) -> Json:
    """Return the cluster of the application behind a port that a Sidecar opens."""
    port, pool = ingress["port"], ingress.get("connectionPool", {})
    name = inbound_name(port["number"])
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": _connect_timeout(pool, mesh),
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [_thresholds(pool, None)]},
        "typed_extension_protocol_options": {HTTP_OPTIONS: _http_options(pool, http2=port["protocol"] == "GRPC")},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}],
        },
    }


def inbound_name(port: int) -> str:
    """Return the name that Istio gives the cluster of the own application."""
    return f"inbound|{port}||"


def _connect_timeout(pool: Mapping[str, Any], mesh: Mapping[str, Any]) -> str:
    found: str = pool.get("tcp", {}).get("connectTimeout", mesh.get("connectTimeout", _CONNECT_TIMEOUT))
    return found


def _thresholds(pool: Mapping[str, Any], budget: Mapping[str, Any] | None) -> Json:
    """Istio's default is no limit, where Envoy's is 1024 connections and requests and 3 retries."""
    http = pool.get("http", {})
    thresholds: Json = {
        "max_connections": pool.get("tcp", {}).get("maxConnections", UINT32_MAX),
        "max_pending_requests": http.get("http1MaxPendingRequests", UINT32_MAX),
        "max_requests": http.get("http2MaxRequests", UINT32_MAX),
        "max_retries": http.get("maxRetries", UINT32_MAX),
        "track_remaining": True,
    }
    if budget is not None:
        thresholds["retry_budget"] = {
            "budget_percent": {"value": budget["percent"]},
            "min_retry_concurrency": budget.get("minRetryConcurrency", _RETRY_CONCURRENCY_MIN),
        }
    return thresholds


def _http_options(pool: Mapping[str, Any], *, http2: bool) -> Json:
    http = pool.get("http", {})
    protocol: Json = {}
    if http2 and "http2KeepAlive" in http:
        protocol["connection_keepalive"] = {"interval": http["http2KeepAlive"]["interval"], "timeout": http["http2KeepAlive"]["timeout"]}
    if http2 and "maxConcurrentStreams" in http:
        protocol["max_concurrent_streams"] = http["maxConcurrentStreams"]
    shared: Json = {}
    if "idleTimeout" in http:
        shared["idle_timeout"] = http["idleTimeout"]
    if "maxConnectionDuration" in pool.get("tcp", {}):
        shared["max_connection_duration"] = pool["tcp"]["maxConnectionDuration"]
    return {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        # With any option Istio writes these down, empty or not.
        **({"common_http_protocol_options": shared} if shared or protocol else {}),
        "explicit_http_config": {"http2_protocol_options": protocol} if http2 else {"http_protocol_options": {}},
    }


def _outlier_detection(rule: Mapping[str, Any]) -> Json:
    """Success rates never eject in Istio, and panic routing to ejected hosts is off unless asked for."""
    detection: Json = {
        "enforcing_success_rate": 0,
        "interval": rule["interval"],
        "base_ejection_time": rule["baseEjectionTime"],
        "max_ejection_percent": rule["maxEjectionPercent"],
    }
    for field, threshold, enforcing in (
        ("consecutive5xxErrors", "consecutive_5xx", "enforcing_consecutive_5xx"),
        ("consecutiveGatewayErrors", "consecutive_gateway_failure", "enforcing_consecutive_gateway_failure"),
    ):
        if field in rule:
            detection |= {threshold: rule[field], enforcing: 100 if rule[field] > 0 else 0}
    if rule.get("splitExternalLocalOriginErrors"):
        detection["split_external_local_origin_errors"] = True
        failures = rule.get("consecutiveLocalOriginFailures")
        if failures is not None:
            detection |= {
                "consecutive_local_origin_failure": failures,
                "enforcing_consecutive_local_origin_failure": 100 if failures > 0 else 0,
                "enforcing_local_origin_success_rate": 0,
            }
    return {
        "outlier_detection": detection,
        "common_lb_config": {"healthy_panic_threshold": {"value": rule.get("minHealthPercent", 0)}},
    }


def _prefers_near(policy: Mapping[str, Any]) -> bool:
    """Istio fails over between localities unless it is told not to, and only where outlier detection can empty the nearer one."""
    chosen = policy.get("loadBalancer", {}).get("localityLbSetting", {}).get("enabled", True)
    return chosen and "outlierDetection" in policy


def _groups(endpoints: Sequence[Endpoint], near: tuple[str, ...] | None) -> list[tuple[int, tuple[str, ...], list[Endpoint]]]:
    """Return priority, locality and endpoints by locality; priorities are without gaps, 0 for what has most in common with the caller."""
    by_locality: dict[tuple[str, ...], list[Endpoint]] = {}
    for endpoint in endpoints:
        by_locality.setdefault(endpoint.locality, []).append(endpoint)
    distances = {locality: 0 if near is None else _distance(near, locality) for locality in by_locality}
    ranks = {distance: rank for rank, distance in enumerate(sorted(set(distances.values())))}
    return [(ranks[distances[locality]], locality, found) for locality, found in sorted(by_locality.items())]


def _distance(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """0 in the same subzone, 1 in the same zone, 2 in the same region, 3 elsewhere; what is not known equals what is not known."""
    pairs = list(zip_longest(one, other, fillvalue=""))
    agreeing = next((number for number, (left, right) in enumerate(pairs) if left != right), _LEVELS)
    return _LEVELS - agreeing


def _assignment(name: str, groups: Sequence[tuple[int, tuple[str, ...], Sequence[Endpoint]]], port: int) -> Json:
    found = []
    for priority, locality, endpoints in groups:
        group: Json = {"lb_endpoints": [{"endpoint": {"address": _tcp(item.address, port)}} for item in endpoints]}
        if locality:
            group["locality"] = dict(zip(("region", "zone", "sub_zone"), locality, strict=False))
        if priority:
            group["priority"] = priority
        found.append(group)
    return {"cluster_name": name, "endpoints": found}


def _tcp(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}
