"""The edge of a mesh on one machine: its server certificate, and its documents from the same manifests as the sidecars'."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from mesh.edge import access
from mesh.edge.access import AccessError
from mesh.edge.contract import installed
from mesh.edge.documents import CERTIFICATE_FILE, documents, server_certificate
from mesh.edge.options import EdgeOptions
from mesh.edge.routes import RouteError, authority
from mesh.local.ca import Authority, Svid, flip
from mesh.local.compiler import Documents, ManifestError, Manifests, compile_outbound
from mesh.local.embedded import write_private
from mesh.local.topology import EdgeSite

SERVICE_ACCOUNT = "edge"
AUDIENCE = "trademesh"
TRUST_DOMAIN = "edge.trademesh.local"
AUTHORITY_FILE = "edge-authority.pem"
"""What clients outside trust the edge by: a root of its own, which signs no workload."""

_GRPC_PORT = 9_000


Configuration = tuple[EdgeOptions, Documents]


class EdgePlane:
    """Certifies and configures one edge.

    Args:
        site: where it is.
        directory: of its authority's root.
        issuer: the `iss` of tokens.
        certificate_seconds: how long its server certificate is valid; replaced at half of that.
        now: the wall clock, with its zone.
    """

    def __init__(
        self, site: EdgeSite, directory: Path, *, issuer: str, certificate_seconds: int, now: Callable[[], datetime.datetime]
    ) -> None:
        self._site = site
        self._issuer = issuer
        self._seconds = certificate_seconds
        self._now = now
        self._authority = Authority.open(directory, trust_domain=TRUST_DOMAIN, now=now)
        self._held: Svid | None = None
        write_private(site.authority_file, self._authority.root_pem)

    def configuration(self, manifests: Manifests, jwks: str) -> Configuration:
        """Return the edge's documents, which `publish` writes.

        Raises:
            ManifestError: manifests, table of access and contract do not fit each other.
        """
        site, contract = self._site, installed()
        outbound = compile_outbound(manifests, SERVICE_ACCOUNT, site.identity)
        options = EdgeOptions(
            address=site.address,
            port=site.port,
            certificates=site.certificates,
            configuration=site.configuration,
            admin_socket=site.admin_socket,
            issuer=self._issuer,
            audience=AUDIENCE,
            jwks=jwks,
            access_log=site.access_log,
            origins=site.origins,
            source_address=site.source_address,
        )
        try:
            # A mesh may run a part of the services; what is not there has no door.
            served = [grant for grant in access.load(contract) if authority(grant.workload, _GRPC_PORT) in outbound.routes]
            return options, documents(options, contract, outbound.clusters, outbound.routes, served)
        except (AccessError, RouteError) as error:
            raise ManifestError([f"the edge: {error}"]) from error

    def rotate(self) -> None:
        """Replace the server certificate when half of its life is over; open connections keep theirs."""
        if self._held is not None and self._now() < self._held.half_life():
            return
        held = self._held = self._authority.issue_server(self._site.names, seconds=self._seconds)
        flip(self._site.certificates, {CERTIFICATE_FILE: server_certificate(held.certificate, held.key)})
