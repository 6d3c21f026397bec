"""The edge's Envoy documents, as one pure function of options, clusters and routes.

    outbound = compile_outbound(manifests, "edge", certificates)
    found = documents(options, installed(), outbound.clusters, outbound.routes)

`found.bootstrap` is what Envoy is started with; `found.files()` go into `options.configuration`/current, and are read again when that link
is replaced. New routes or limits need no restart, and new keys not even new connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.edge import access, filters, refusals
from mesh.edge.contract import Contract, Method
from mesh.edge.descriptor import served_part
from mesh.edge.lua_tables import full_script, lines_script, script
from mesh.edge.options import EdgeOptions
from mesh.edge.routes import PASSED_PATHS, PUBLIC_PATHS, SOCKET_PATH, virtual_host
from mesh.local.compiler.documents import CLUSTERS_FILE, LISTENERS_FILE, Documents, calls_from, discovered, stats_config
from mesh.local.compiler.routes import fault_filters
from mesh.local.compiler.tls import watched

Json = dict[str, Any]

CERTIFICATE_FILE = "edge.json"

_CERTIFICATE = "edge"
_OWNER_ONLY = 0o600
_REQUESTS_A_TURN = 8
"""Of one connection, before others' requests and services' answers have theirs."""
_FULL_MILLISECONDS = 20
"""So long one word for a full pool is taken. Of 128 places, at a thousand orders a second, a sixth come free meanwhile."""
_RELEASED_BYTES = 16 * 1024 * 1024
_HCM_NAME = "envoy.filters.network.http_connection_manager"
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_HEAP = "envoy.resource_monitors.fixed_heap"
_HEAP_TYPE = "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
# What only the mesh says of a caller. Clients on this machine would otherwise count as inside it.
_STRIPPED_PREFIXES = ("x-trademesh-", "x-envoy-", "x-forwarded-")
_STRIPPED = ("forwarded", "x-real-ip", "x-original-method", "x-http-method-override", "x-client-trace-id")


def documents(
    options: EdgeOptions,
    contract: Contract,
    clusters: Sequence[Json],
    mesh_routes: Mapping[str, Sequence[Json]],
    grants: Sequence[access.Grant] | None = None,
) -> Documents:
    """Return the edge's configuration.

    Args:
        options: where and for whom to serve.
        contract: what there is to serve.
        clusters: Envoy clusters that `mesh_routes` lead to.
        mesh_routes: routes by authority (`svc-oms.trading.svc.cluster.local:9000`), each with `match` and `route`.
        grants: who may call what; by default those of `access.yaml`.

    Raises:
        AccessError, ContractError, RouteError: table, contract and routes do not fit each other.
    """
    if grants is None:
        grants = access.load(contract)
    methods = [grant.method for grant in grants]
    lines = _transcoder(options, contract, methods, sse=False)
    events = _transcoder(options, contract, [method for method in methods if method.streams_json], sse=True)
    host = virtual_host(options, grants, mesh_routes, sse=events)
    checks = script(methods, PASSED_PATHS, body_bytes_max=options.limits.body_bytes_max, depth_max=options.limits.json_depth_max)
    # By reference: new keys must cost nobody a stream, and a second listener's memory is as much as the first's.
    tokens = filters.tokens(options, public=PUBLIC_PATHS, tickets=(SOCKET_PATH,))
    asked = discovered(options.configuration, tokens)
    full = full_script(header=refusals.FULL_HEADER, status=refusals.STILL_FULL_STATUS, hold_milliseconds=_FULL_MILLISECONDS)
    chain = filters.http_filters(options, tokens=asked, full=full, script=checks, lines=lines_script(), transcoder=lines)
    chain[-1:-1] = fault_filters(host["routes"])
    called = {name for route in host["routes"] for name in _clusters(route["route"])}
    used = tuple(item for item in clusters if item["name"] in called)
    return Documents(_bootstrap(options), (_listener(options, host, chain),), used, (tokens,))


def _clusters(action: Json) -> list[str]:
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    return [item["name"] for item in weighted] or [action.get("cluster", "")]


def _transcoder(options: EdgeOptions, contract: Contract, methods: Sequence[Method], *, sse: bool) -> Json:
    part = served_part(contract.descriptor_set, {method.descriptor.full_name for method in methods})
    services = sorted({method.descriptor.containing_service.full_name for method in methods})
    return filters.transcoder(options, part, services, sse=sse)


def server_certificate(chain: str, key: str) -> Json:
    """Return the document `edge.json` of `options.certificates`: certificate and key, both PEM, in one file, so that they change as one."""
    pair = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
    return {"resources": [{"@type": f"{_TLS}.Secret", "name": _CERTIFICATE, "tls_certificate": pair}]}


def _listener(options: EdgeOptions, host: Json, chain: list[Json]) -> Json:
    return {
        "name": "edge",
        "address": {"socket_address": {"address": options.address, "port_value": options.port}},
        "per_connection_buffer_limit_bytes": options.limits.body_bytes_max,
        "listener_filters_timeout": f"{options.limits.headers_seconds:g}s",
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": _http_connections(options, host, chain)}
                ],
                "transport_socket": _tls(options),
                "transport_socket_connect_timeout": f"{options.limits.headers_seconds:g}s",
            }
        ],
    }


def _http_connections(options: EdgeOptions, host: Json, chain: list[Json]) -> Json:
    limits = options.limits
    return {
        "@type": _HCM,
        "stat_prefix": "edge",
        "route_config": {"name": "edge", "virtual_hosts": [host]},
        "http_filters": chain,
        "access_log": [_access_log(options)],
        "local_reply_config": refusals.local_reply_config(),
        "early_header_mutation_extensions": [_stripped()],
        "use_remote_address": True,
        "skip_xff_append": True,
        # Nobody is inside: the one range is the broadcast address, which is no client's.
        "internal_address_config": {"unix_sockets": False, "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "forward_client_cert_details": "SANITIZE",
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": True,
        "normalize_path": True,
        # Not merged: an empty account in a path must not turn into another method's path. The strict door refuses empty segments.
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "strip_trailing_host_dot": True,
        "upgrade_configs": [{"upgrade_type": "websocket", "enabled": False}],
        "max_request_headers_kb": limits.headers_kilobytes_max,
        "request_headers_timeout": f"{limits.headers_seconds:g}s",
        "stream_idle_timeout": f"{limits.stream_idle_seconds:g}s",
        "drain_timeout": f"{limits.drain_seconds:g}s",
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": f"{limits.connection_idle_seconds:g}s",
            "max_headers_count": limits.headers_max,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": limits.streams_max,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        },
    }


def _stripped() -> Json:
    matchers = [*({"prefix": prefix} for prefix in _STRIPPED_PREFIXES), *({"exact": name} for name in _STRIPPED)]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove_on_match": {"key_matcher": matcher}} for matcher in matchers],
        },
    }


def _tls(options: EdgeOptions) -> Json:
    certificate = {"name": _CERTIFICATE, "sds_config": watched(options.certificates, CERTIFICATE_FILE)}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [certificate],
            },
        },
    }


def _access_log(options: EdgeOptions) -> Json:
    claims = f"%DYNAMIC_METADATA({filters.JWT}:{filters.CLAIMS}:"
    line = {
        "time": "%START_TIME%",
        "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
        # Never the query: it is the client's, and may hold anything.
        "path": "%PATH(NQ:ORIG_OR_PATH)%",
        "rpc": f"%REQ({filters.METHOD_HEADER})%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS_NUMBER%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "principal": f"{claims}sub)%",
        "tenant": f"{claims}tenant)%",
        "duration_ms": "%DURATION%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "peer": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "upstream": "%UPSTREAM_CLUSTER%",
        "trace": "%REQ(TRACEPARENT)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {"@type": kind, "path": str(options.access_log), "log_format": {"json_format": line}},
    }


def _bootstrap(options: EdgeOptions) -> Json:
    connections = "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    monitor = {"@type": connections, "max_active_downstream_connections": options.limits.connections_max}
    return {
        "node": {"id": "edge", "cluster": "edge.trading"},
        "admin": {"address": {"pipe": {"path": str(options.admin_socket), "mode": _OWNER_ONLY}}},
        # What reading the documents took goes back to the kernel; without that it stays for good.
        "memory_allocator_manager": {"bytes_to_release": _RELEASED_BYTES, "memory_release_interval": "1s"},
        **({} if options.source_address is None else {"cluster_manager": calls_from(options.source_address)}),
        "stats_config": stats_config(),
        "layered_runtime": {"layers": [{"name": "edge", "static_layer": {"http.max_requests_per_io_cycle": _REQUESTS_A_TURN}}]},
        "dynamic_resources": {
            "lds_config": watched(options.configuration, LISTENERS_FILE),
            "cds_config": watched(options.configuration, CLUSTERS_FILE),
        },
        "overload_manager": {
            "refresh_interval": "0.1s",
            "resource_monitors": [
                {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": monitor},
                {"name": _HEAP, "typed_config": {"@type": _HEAP_TYPE, "max_heap_size_bytes": options.limits.heap_bytes_max}},
            ],
            "actions": [
                _above("envoy.overload_actions.shrink_heap", 0.8),
                _above("envoy.overload_actions.stop_accepting_requests", 0.95),
            ],
        },
    }


def _above(action: str, share: float) -> Json:
    return {"name": action, "triggers": [{"name": _HEAP, "threshold": {"value": share}}]}
