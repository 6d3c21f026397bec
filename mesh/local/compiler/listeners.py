"""Envoy listeners of a sidecar: one for each inbound port, and one UNIX socket for all outbound calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kernel.identity import CLAIMS_HEADER, SECRET_HEADER
from mesh.local.compiler import tls
from mesh.local.compiler.clusters import inbound_name
from mesh.local.compiler.proxies import Proxy
from mesh.local.compiler.routes import fault_filters

OWNER_ONLY = 0o600
EGRESS = "egress"

Json = dict[str, Any]

_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_CONNECTION_BUFFER_BYTES = 1024 * 1024


def inbound(proxy: Proxy, port: int, mesh: Mapping[str, Any], filters: Sequence[Json], logs: Sequence[Json]) -> Json:
    """Return the listener of an inbound port: mutual TLS or nothing, who calls by XFCC and claims, and the sidecar's own secret.

    Args:
        proxy: whose.
        port: of the listener.
        mesh: MeshConfig.
        filters: for HTTP, before those that every listener has.
        logs: access logs.
    """
    cluster = inbound_name(port)
    # No bound but the caller's own deadline, which the callee's sidecar keeps too: what nobody waits for any more ends.
    deadline = {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}
    action = {"cluster": cluster, "timeout": "0s", "max_stream_duration": deadline}
    route_config = {
        "name": cluster,
        "virtual_hosts": [
            {
                "name": f"inbound|http|{port}",
                "domains": ["*"],
                "routes": [{"name": "default", "match": {"prefix": "/"}, "route": action}],
            }
        ],
        "request_headers_to_add": [
            {"header": {"key": SECRET_HEADER, "value": proxy.secret}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
        "validate_clusters": False,
    }
    manager = {
        **_http_connections(f"inbound_{port}", route_config, [*filters, _grpc_stats(), _router()], logs),
        "forward_client_cert_details": mesh["defaultConfig"]["proxyHeaders"]["forwardedClientCert"],
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        # Before any filter: what callers say of themselves is never mistaken for what filters find out.
        "early_header_mutation_extensions": [_without(CLAIMS_HEADER, SECRET_HEADER)],
    }
    return {
        "name": f"inbound|{proxy.address}|{port}",
        "address": {"socket_address": {"address": proxy.address, "port_value": port}},
        "traffic_direction": "INBOUND",
        "per_connection_buffer_limit_bytes": _CONNECTION_BUFFER_BYTES,
        "listener_filters": [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
            }
        ],
        "filter_chains": [
            {
                "name": str(port),
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": tls.downstream(mesh, proxy.certificates),
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            }
        ],
    }


def outbound(proxy: Proxy, virtual_hosts: Sequence[Json], logs: Sequence[Json]) -> Json:
    """Return the listener of the application's own calls, which ask for `host:port` by their authority."""
    filters = [_grpc_stats(), *fault_filters(route for host in virtual_hosts for route in host["routes"]), _router()]
    route_config = {"name": EGRESS, "virtual_hosts": list(virtual_hosts), "validate_clusters": False}
    manager = {
        **_http_connections(EGRESS, route_config, filters, logs),
        "forward_client_cert_details": "SANITIZE",
    }
    return {
        "name": EGRESS,
        "address": {"pipe": {"path": str(proxy.egress_socket), "mode": OWNER_ONLY}},
        "traffic_direction": "OUTBOUND",
        "per_connection_buffer_limit_bytes": _CONNECTION_BUFFER_BYTES,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }


def _http_connections(name: str, route_config: Json, filters: Sequence[Json], logs: Sequence[Json]) -> Json:
    return {
        "@type": _HCM,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": route_config,
        "http_filters": list(filters),
        "use_remote_address": False,
        "server_header_transformation": "PASS_THROUGH",
        # Streams are bounded by their own heartbeats and deadlines.
        "stream_idle_timeout": "0s",
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        **({"access_log": list(logs)} if logs else {}),
    }


def _without(*headers: str) -> Json:
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove": header} for header in headers],
        },
    }


def _grpc_stats() -> Json:
    return {
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
            "emit_filter_state": True,
            "stats_for_all_methods": False,
        },
    }


def _router() -> Json:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
