"""Which sidecars a mesh on one machine has and where they are: written by the supervisor's plan, read by the control process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.local.compiler import Proxy
from mesh.local.embedded import write_private


@dataclass(frozen=True)
class Topology:
    """The workloads of a mesh.

    Attributes:
        proxies: the sidecars.
        identities: certificate directories of workloads without a sidecar of ours, such as the edge, by service account.
    """

    proxies: tuple[Proxy, ...]
    identities: Mapping[str, Path] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it, mode 0600: it holds the sidecars' secrets."""
        document = {
            "proxies": [_document(proxy) for proxy in self.proxies],
            "identities": {account: str(directory) for account, directory in self.identities.items()},
        }
        write_private(path, json.dumps(document, indent=1))

    @classmethod
    def read(cls, path: Path) -> Topology:
        """Read what `write` wrote.

        Raises:
            OSError, ValueError, KeyError: it is not there, or not of that form.
        """
        document = json.loads(path.read_text())
        identities = {account: Path(directory) for account, directory in document["identities"].items()}
        return cls(tuple(_proxy(entry) for entry in document["proxies"]), identities)


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
