"""The edge as a unit: the Envoy through which clients outside come in."""

from __future__ import annotations

from mesh.edge.launch import command
from mesh.local.control.doors import AUTHORITY_FILE
from mesh.local.layout import Layout
from mesh.local.parts import HOST
from mesh.local.probes import EnvoyReady
from mesh.local.sidecar import CONTROL, certificates
from mesh.local.topology import EdgeSite
from mesh.local.unit import Unit

EDGE = "edge"
NAMES = ("localhost", HOST, "::1")
"""Of the server certificate."""


def edge_site(layout: Layout, port: int, origins: tuple[str, ...], source_address: str) -> EdgeSite:
    """Make the edge's private directory and return where everything of it is; it calls services from the address."""
    private = layout.create_private(EDGE)
    return EdgeSite(
        address=HOST,
        port=port,
        names=NAMES,
        identity=certificates(layout, EDGE),
        certificates=private / "server",
        configuration=private / "envoy",
        admin_socket=private / "envoy.sock",
        # Outside the runtime directory, so that programs which know it survive a restart of the mesh.
        authority_file=layout.data(AUTHORITY_FILE),
        access_log=private / "access.log",
        origins=origins,
        source_address=source_address,
    )


def edge_unit(layout: Layout, site: EdgeSite) -> Unit:
    """Return the edge's process. It starts once its configuration is there."""
    return Unit(
        EDGE,
        EDGE,
        command(site.configuration),
        layout.root,
        after=(CONTROL,),
        ready=EnvoyReady(site.admin_socket),
        environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        address=f"https://{site.address}:{site.port}",
        stop_seconds=10.0,
    )
