"""The edge's routes: REST doors in front of the transcoder, one exact route for each method behind it, and svc_gateway's pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernel.server_context import REPLAYED_HEADER
from mesh.edge import filters
from mesh.edge.access import Grant
from mesh.edge.options import EdgeOptions

Json = dict[str, Any]

GATEWAY = "svc-gateway"
PUBLIC_PATHS = ("/docs", "/openapi.json")
SOCKET_PATH = "/v1/ws"
"""Browsers come with a ticket instead of a token; svc_gateway decides."""
TICKETS_PATH = "/v1/ws/tickets"
PASSED_PATHS = (*PUBLIC_PATHS, SOCKET_PATH, TICKETS_PATH)

ORDERS_SUBSET = "orders"
"""Of a DestinationRule: the pool that bounds what of order entry is under way."""

_GRPC_PORT = 9_000
_HTTP_PORT = 8_080
_PAGE_SECONDS = 10
_LUA_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"
_OFF: Json = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}


class RouteError(Exception):
    """The mesh has no route for what the edge shows, or one of a form that the edge cannot follow."""


def authority(workload: str, port: int) -> str:
    """Return the name under which the mesh knows a workload's port."""
    return f"{workload}.trading.svc.cluster.local:{port}"


def virtual_host(options: EdgeOptions, grants: Sequence[Grant], mesh_routes: Mapping[str, Sequence[Json]], *, sse: Json) -> Json:
    """Return the one virtual host of the edge.

    Args:
        options: of the edge.
        grants: the methods to show.
        mesh_routes: the mesh's routes by authority, as `mesh.local.compiler` exports them.
        sse: the transcoder's configuration for Server-Sent Events.

    Raises:
        RouteError: a grant's workload has no route in the mesh.
    """
    methods = [_method(options, grant, mesh_routes) for grant in grants]
    host: Json = {
        "name": "edge",
        "domains": ["*"],
        "routes": [*_pages(options, mesh_routes), _event_door(options, sse), _rest_door(options), *methods],
    }
    if options.origins:
        host["typed_per_filter_config"] = {"envoy.filters.http.cors": _cors(options)}
    return host


def _pages(options: EdgeOptions, mesh_routes: Mapping[str, Sequence[Json]]) -> list[Json]:
    """svc_gateway's own paths. A mesh without it has none."""
    target = authority(GATEWAY, _HTTP_PORT)
    if target not in mesh_routes:
        return []
    found = []
    for path in PASSED_PATHS:
        action = dict(_chosen(mesh_routes, target, path)["route"])
        action |= {"timeout": "0s" if path == SOCKET_PATH else f"{_PAGE_SECONDS}s", "host_rewrite_literal": target}
        action.pop("max_grpc_timeout", None)
        if path == SOCKET_PATH:
            action |= {
                "upgrade_configs": [{"upgrade_type": "websocket", "enabled": True}],
                "idle_timeout": f"{options.limits.stream_idle_seconds:g}s",
            }
        open_door = {filters.TRANSCODER: _OFF, filters.RBAC: filters.open_rules()}
        found.append({"name": path, "match": {"path": path}, "route": action, "typed_per_filter_config": open_door})
    return found


def _rest_door(options: EdgeOptions) -> Json:
    """Where REST requests stand while their body comes in. Behind the transcoder they have a method's route; this one leads nowhere."""
    return {"name": "rest", "match": {"prefix": "/v1/"}, **_waiting(options)}


def _waiting(options: EdgeOptions) -> Json:
    return {
        "route": {
            "cluster_header": "x-trademesh-nowhere",
            "cluster_not_found_response_code": "NOT_FOUND",
            "max_stream_duration": {"max_stream_duration": f"{options.limits.body_seconds:g}s"},
        }
    }


def _event_door(options: EdgeOptions, sse: Json) -> Json:
    """The same for streams of clients that accept Server-Sent Events: another style of transcoding, which knows streams alone."""
    wanted = {"name": "accept", "string_match": {"contains": "text/event-stream", "ignore_case": True}}
    match = {"safe_regex": {"regex": "/v1/.*:stream"}, "headers": [wanted]}
    return {"name": "events", "match": match, "typed_per_filter_config": {filters.TRANSCODER: sse}, **_waiting(options)}


def _method(options: EdgeOptions, grant: Grant, mesh_routes: Mapping[str, Sequence[Json]]) -> Json:
    target, path = authority(grant.workload, _GRPC_PORT), grant.method.path
    chosen = _chosen(mesh_routes, target, path)
    action = dict(chosen["route"]) | {"host_rewrite_literal": target}
    config: Json = {**chosen.get("typed_per_filter_config", {}), filters.RBAC: filters.route_rules(path, grant.roles)}
    if grant.method.descriptor.server_streaming or grant.method.descriptor.client_streaming:
        # A stream lasts; it ends where neither side says anything. A client's own deadline still holds.
        action |= {"timeout": "0s", "max_grpc_timeout": "0s", "idle_timeout": f"{options.limits.stream_idle_seconds:g}s"}
    else:
        timeout = action.get("timeout", "0s")
        if float(timeout.removesuffix("s")) == 0:
            timeout = f"{grant.timeout_seconds:g}s"
        action |= {"timeout": timeout, "max_grpc_timeout": timeout}
    if grant.method.streams_json:
        config[filters.LINES] = {"@type": _LUA_PER_ROUTE, "name": filters.LINES}
    if action.get("cluster", "").split("|")[2:3] == [ORDERS_SUBSET]:
        config[filters.FULL] = {"@type": _LUA_PER_ROUTE, "name": filters.FULL}
    if grant.priority:
        config[filters.USER_RATE] = filters.user_rate(options.limits.user_priority_requests_per_second, options.limits.users_max)
    return {"name": path, "match": {"path": path}, "route": action, "typed_per_filter_config": config}


def _chosen(mesh_routes: Mapping[str, Sequence[Json]], target: str, path: str) -> Json:
    """The mesh's route for a path, the first that matches, as Envoy would choose."""
    if target not in mesh_routes:
        raise RouteError(f"{path}: the mesh has no route to {target}")
    for route in mesh_routes[target]:
        match = route["match"]
        if set(match) - {"prefix", "path", "case_sensitive"} or not match.get("case_sensitive", True):
            raise RouteError(f"{target}: a route is matched by more than its path: {sorted(match)}")
        if match.get("path") == path or ("prefix" in match and path.startswith(match["prefix"])):
            return route
    raise RouteError(f"{path}: no route of {target} takes it")


def _cors(options: EdgeOptions) -> Json:
    names: Iterable[str] = ("authorization", "content-type", "accept", "grpc-timeout", "x-grpc-web", "x-user-agent", "traceparent")
    shown = ("grpc-status", "grpc-message", "grpc-status-details-bin", "retry-after", REPLAYED_HEADER, "www-authenticate", "allow")
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin} for origin in options.origins],
        "allow_methods": "GET, POST, PUT, PATCH, DELETE",
        "allow_headers": ", ".join(names),
        "expose_headers": ", ".join(shown),
        "max_age": "600",
        "allow_credentials": False,
        "forward_not_matching_preflights": False,
    }
