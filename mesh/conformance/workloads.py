"""The workloads that are compared: two replicas of every workload that the manifests have a Sidecar for, the edge's included."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

from mesh.local.compiler import Manifests, Proxy
from mesh.local.sidecar import MANIFESTS

LOCALITIES = (("local", "one"), ("local", "two"))
"""Region and zone of each replica: calls prefer their own zone and fall over to the other."""
RUNTIME = Path("/run/trademesh")
"""Where a pod has its sockets, and here every instance: paths are not what is compared."""
EGRESS_SOCKET = RUNTIME / "egress.sock"
KEYS = json.dumps(
    {
        "keys": [
            {
                "alg": "ES256",
                "crv": "P-256",
                "kid": "conformance",
                "kty": "EC",
                "use": "sig",
                "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
                "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
            }
        ]
    },
    sort_keys=True,
)
"""The issuer's keys, as JSON text: P-256's base point, whose private key everybody knows."""


def workloads(manifests: Manifests) -> tuple[Proxy, ...]:
    """Return the instances, in order of their names."""
    found: list[Proxy] = []
    for sidecar in manifests.of("Sidecar"):
        account = sidecar.spec["workloadSelector"]["labels"]["app"]
        sockets = {item["port"]["number"]: Path(urlsplit(item["defaultEndpoint"]).path) for item in sidecar.spec.get("ingress", [])}
        for replica in range(len(LOCALITIES)):
            instance = f"{account.replace('-', '_')}-{replica}"
            found.append(
                Proxy(
                    instance=instance,
                    service_account=account,
                    address=f"127.77.0.{len(found) + 1}",
                    applications=sockets,
                    egress_socket=EGRESS_SOCKET,
                    admin_socket=RUNTIME / "envoy.sock",
                    configuration=RUNTIME / "envoy",
                    certificates=RUNTIME / "certificates",
                    secret="secret",  # noqa: S106 (never leaves this process)
                    locality=LOCALITIES[replica],
                )
            )
    return tuple(found)


def issuers(manifests: Manifests) -> dict[str, str]:
    """Return the key sets by issuer, one for all."""
    return {rule["issuer"]: KEYS for policy in manifests.of("RequestAuthentication") for rule in policy.spec["jwtRules"]}


def shipped() -> Path:
    """Return the directory of the repository's own manifests."""
    return MANIFESTS
