"""What a sidecar reads: bootstrap, listeners, clusters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.local.compiler import tls
from mesh.local.compiler.listeners import OWNER_ONLY
from mesh.local.compiler.proxies import Proxy

LISTENERS_FILE = "listeners.json"
CLUSTERS_FILE = "clusters.json"
FILTERS_FILE = "filters.json"
CONNECTIONS_MAX = 8_192
"""Downstream connections that one sidecar takes."""
_VERSION_CHARACTERS = 12

Json = dict[str, Any]


@dataclass(frozen=True)
class Documents:
    """The configuration of one Envoy, as JSON values.

    Attributes:
        bootstrap: what it is started with.
        listeners: plain resources.
        clusters: plain resources.
        filters: HTTP filters that the listeners only refer to (`discovered`): one that changes leaves the listener and its connections.
    """

    bootstrap: Json
    listeners: tuple[Json, ...]
    clusters: tuple[Json, ...]
    filters: tuple[Json, ...] = ()

    def static(self) -> Json:
        """Return one document that holds it all, for `envoy --mode validate`, which looks at no dynamic file."""
        bootstrap = {key: value for key, value in self.bootstrap.items() if key != "dynamic_resources"}
        whole = {found["name"]: found for found in self.filters}
        listeners = [resolved(listener, whole) for listener in self.listeners]
        return {**bootstrap, "static_resources": {"listeners": listeners, "clusters": list(self.clusters)}}

    def files(self) -> dict[str, Json]:
        """Return the discovery responses, by file name."""
        return {
            LISTENERS_FILE: _response("envoy.config.listener.v3.Listener", self.listeners),
            CLUSTERS_FILE: _response("envoy.config.cluster.v3.Cluster", self.clusters),
            **({FILTERS_FILE: _response("envoy.config.core.v3.TypedExtensionConfig", self.filters)} if self.filters else {}),
        }


def discovered(directory: Path, resource: Json) -> Json:
    """Return the reference that a listener has to an HTTP filter in `filters`."""
    source = tls.watched(directory, FILTERS_FILE)
    kinds = [resource["typed_config"]["@type"]]
    return {"name": resource["name"], "config_discovery": {"config_source": source, "type_urls": kinds}}


def calls_from(address: str) -> Json:
    """Return the part of a bootstrap by which an Envoy calls from an address, as it would from its pod's, and others can tell it apart."""
    return {"upstream_bind_config": {"source_address": {"address": address, "port_value": 0}}}


def stats_config() -> Json:
    """Return how names of statistics become labels, the ones by which Istio's proxies label theirs.

    By Envoy's own rules a cluster's name would end at its first dot, and the rest would be part of the statistic's name.
    """
    tags = {
        "cluster_name": r"^cluster(\.(.+);)",
        "http_conn_manager_prefix": r"^http\.((.*?)\.)",
        "listener_address": r"^listener\.((.*?)\.)",
        "response_code": r"_rq(_(\d{3}))$",
        "response_code_class": r"_rq(_(\dxx))$",
        "authz_enforce_result": r"rbac(\.(allowed|denied))",
    }
    return {"use_all_default_tags": False, "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in tags.items()]}


def bootstrap(proxy: Proxy) -> Json:
    """Return what Envoy is started with; everything else comes from files that it watches."""
    domain = f"{proxy.namespace}.svc.cluster.local"
    return {
        "node": {
            "id": f"sidecar~{proxy.address}~{proxy.instance}.{proxy.namespace}~{domain}",
            "cluster": f"{proxy.service_account}.{proxy.namespace}",
        },
        "admin": {"address": {"pipe": {"path": str(proxy.admin_socket), "mode": OWNER_ONLY}}},
        "cluster_manager": calls_from(proxy.address),
        "stats_config": stats_config(),
        "dynamic_resources": {
            "lds_config": tls.watched(proxy.configuration, LISTENERS_FILE),
            "cds_config": tls.watched(proxy.configuration, CLUSTERS_FILE),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": CONNECTIONS_MAX,
                    },
                }
            ]
        },
    }


def resolved(value: Any, filters: Mapping[str, Json]) -> Any:
    """Return a resource with the filters in it that it only refers to."""
    if isinstance(value, list):
        return [resolved(item, filters) for item in value]
    if isinstance(value, dict):
        return filters[value["name"]] if "config_discovery" in value else {key: resolved(item, filters) for key, item in value.items()}
    return value


def _response(kind: str, resources: tuple[Json, ...]) -> Json:
    found = [{"@type": f"type.googleapis.com/{kind}", **resource} for resource in resources]
    # Envoy tells it again (`version_text` of its statistics) once it has taken all of it.
    version = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:_VERSION_CHARACTERS]
    return {"version_info": version, "resources": found}
