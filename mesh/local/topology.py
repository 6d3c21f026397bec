"""Which sidecars a mesh on one machine has and where they are: written by the supervisor's plan, read by the control process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mesh.local.compiler import Proxy
from mesh.local.embedded import write_private

ENVOY = "envoy"
"""What sidecars are replicas of, among the supervisor's units."""


def sidecar_name(instance: str) -> str:
    """Return the name of the unit that is an instance's sidecar."""
    return f"{ENVOY}-{instance}"


@dataclass(frozen=True)
class EdgeSite:
    """Where the edge is.

    Attributes:
        address: to listen on.
        port: of TCP.
        names: DNS names and IP addresses of its server certificate.
        identity: directory of its certificate as a workload, `edge`.
        certificates: directory of its server certificate.
        configuration: directory of its documents.
        admin_socket: Envoy's administration.
        authority_file: gets the PEM of the authority that signs the server certificate, for clients.
        access_log: a file for one JSON line a request.
        origins: of browsers' pages that may call.
        source_address: from which it calls services; None leaves it to the system.
    """

    address: str
    port: int
    names: tuple[str, ...]
    identity: Path
    certificates: Path
    configuration: Path
    admin_socket: Path
    authority_file: Path
    access_log: Path
    origins: tuple[str, ...] = ()
    source_address: str | None = None


@dataclass(frozen=True)
class Topology:
    """The workloads of a mesh.

    Attributes:
        proxies: the sidecars.
        edge: the gateway; None for a mesh without one.
    """

    proxies: tuple[Proxy, ...]
    edge: EdgeSite | None = None

    def write(self, path: Path) -> None:
        """Write it, mode 0600: it holds the sidecars' secrets."""
        document = {
            "proxies": [_document(proxy) for proxy in self.proxies],
            "edge": None if self.edge is None else _edge_document(self.edge),
        }
        write_private(path, json.dumps(document, indent=1))

    @classmethod
    def read(cls, path: Path) -> Topology:
        """Read what `write` wrote.

        Raises:
            OSError, ValueError, KeyError: it is not there, or not of that form.
        """
        document = json.loads(path.read_text())
        edge = None if document["edge"] is None else _edge(document["edge"])
        return cls(tuple(_proxy(entry) for entry in document["proxies"]), edge)


def _edge_document(site: EdgeSite) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(site).items()}


def _edge(entry: Mapping[str, Any]) -> EdgeSite:
    paths = {name: Path(entry[name]) for name in _EDGE_PATHS}
    names, origins = tuple(entry["names"]), tuple(entry["origins"])
    source = entry["source_address"]
    return EdgeSite(address=entry["address"], port=entry["port"], names=names, origins=origins, source_address=source, **paths)


_EDGE_PATHS = ("identity", "certificates", "configuration", "admin_socket", "authority_file", "access_log")


def _document(proxy: Proxy) -> dict[str, Any]:
    return {
        "instance": proxy.instance,
        "service_account": proxy.service_account,
        "address": proxy.address,
        "applications": {str(port): str(socket) for port, socket in proxy.applications.items()},
        "egress_socket": str(proxy.egress_socket),
        "admin_socket": str(proxy.admin_socket),
        "configuration": str(proxy.configuration),
        "certificates": str(proxy.certificates),
        "secret": proxy.secret,
    }


def _proxy(entry: Mapping[str, Any]) -> Proxy:
    return Proxy(
        instance=entry["instance"],
        service_account=entry["service_account"],
        address=entry["address"],
        applications={int(port): Path(socket) for port, socket in entry["applications"].items()},
        egress_socket=Path(entry["egress_socket"]),
        admin_socket=Path(entry["admin_socket"]),
        configuration=Path(entry["configuration"]),
        certificates=Path(entry["certificates"]),
        secret=entry["secret"],
    )
