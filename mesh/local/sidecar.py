"""Plays the sidecars of a mesh that has none: secrets of the instances, and the headers that each attaches to its outbound calls."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence

from kernel.identity import PEER_HEADER, SECRET_HEADER, xfcc
from mesh.local.embedded import write_private
from mesh.local.layout import Layout
from mesh.local.operator import NAMESPACE, SECRET_FILE, TRUST_DOMAIN

HEADERS_FILE = "headers.json"


def service_account(service: str) -> str:
    """Return the name that a service has in SPIFFE ids: `svc-oms` for `svc_oms`."""
    return service.replace("_", "-")


def write_secrets(layout: Layout, instances: Sequence[str]) -> None:
    """Give every instance its private directory and a fresh secret, mode 0600."""
    for instance in instances:
        write_private(layout.create_private(instance) / SECRET_FILE, secrets.token_urlsafe(32))


def write_headers(layout: Layout, instance: str, *, service: str, callees: Sequence[str]) -> None:
    """Write what an instance attaches to calls of each callee: the callee's secret and its own service account as the peer.

    The form is the one that `kernel.client_endpoints.read_headers` reads.
    """
    peer = xfcc(service_account(service), trust_domain=TRUST_DOMAIN, namespace=NAMESPACE)
    by_target = {
        f"unix:{layout.socket(callee)}": {SECRET_HEADER: (layout.private(callee) / SECRET_FILE).read_text(), PEER_HEADER: peer}
        for callee in callees
    }
    write_private(layout.private(instance) / HEADERS_FILE, json.dumps(by_target))
