"""Mutual TLS between sidecars: certificates from files that Envoy watches, names checked as SPIFFE ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CURRENT = "current"
"""The link in a watched directory. What it points to is replaced as one, never file by file."""
IDENTITY_FILE = "default.json"
TRUST_FILE = "ROOTCA.pem"

Json = dict[str, Any]

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> str:
    """Return a workload's name (SPIFFE ID 1.0, in Istio's form)."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def watched(directory: Path, file: str) -> Json:
    """Return the source of a resource in `directory`/current/`file`, read again whenever something is moved into the directory."""
    return {
        "path_config_source": {"path": str(directory / CURRENT / file), "watched_directory": {"path": str(directory)}},
        "resource_api_version": "V3",
    }


def identity(certificates: Path) -> Json:
    """Return the reference to the own certificate, which is replaced while Envoy runs."""
    return {"name": "default", "sds_config": watched(certificates, IDENTITY_FILE)}


def downstream(mesh: Mapping[str, Any], certificates: Path) -> Json:
    """Return the transport socket of an inbound port: every client shows a certificate of the trust domain."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": _version(mesh.get("meshMTLS", {}).get("minProtocolVersion", "TLSV1_2")),
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [identity(certificates)],
                "validation_context": _trust(certificates, [{"prefix": f"spiffe://{mesh['trustDomain']}/"}]),
            },
            "require_client_certificate": True,
        },
    }


def upstream(*, sni: str, spiffe_ids: Sequence[str], certificates: Path, http2: bool) -> Json:
    """Return the transport socket of calls to workloads of these names."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}.UpstreamTlsContext",
            "sni": sni,
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["istio", "h2" if http2 else "http/1.1"],
                "tls_certificate_sds_secret_configs": [identity(certificates)],
                "validation_context": _trust(certificates, [{"exact": name} for name in spiffe_ids]),
            },
        },
    }


def _trust(certificates: Path, matchers: Sequence[Json]) -> Json:
    """Whom to believe: the root, and these names under it.

    Istio sends the root like a certificate (`ROOTCA`). Here Envoy reads it once: every watched source costs one of the 128 inotify
    instances that Linux gives a user, and a root lives for years.
    """
    return {
        "trusted_ca": {"filename": str(certificates / CURRENT / TRUST_FILE)},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": matcher} for matcher in matchers],
    }


def _version(name: str) -> str:
    return name.replace("TLSV", "TLSv")
