"""The units of our own services, of their sidecars and of the edge: two replicas of each service, told how they reach the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mesh.local.addresses import edge_address
from mesh.local.compiler import Proxy
from mesh.local.edge import edge_site, edge_unit
from mesh.local.embedded import ADDRESS_FILE, write_private
from mesh.local.layout import Layout
from mesh.local.operator import SECRET_FILE
from mesh.local.options import SERVICES, Options
from mesh.local.parts import DATABASES, EXCHANGE_COMP_ID, HOST, MEMBER, REDIS, Doors, FeedLines, member_password, python_unit
from mesh.local.probes import GrpcHealth
from mesh.local.seed_data import TENANT, VENUE
from mesh.local.sidecar import control_unit, egress_target, envoy_unit, own_manifests, proxies, write_secrets
from mesh.local.state import own_directory, secret_file
from mesh.local.topology import EdgeSite, Topology
from mesh.local.unit import Unit

SCHEMAS = tuple(service for service in SERVICES if service != "svc_gateway")
"""Services with a schema in the database."""
BUS_USERS = tuple(service for service in SERVICES if service != "svc_marketdata")
CALLEES = {
    "svc_custody": ("svc_oms", "svc_risk"),
    "svc_gateway": ("svc_custody", "svc_marketdata", "svc_oms", "svc_portfolio", "svc_reporting", "svc_risk"),
    "svc_marketdata": (),
    "svc_oms": ("svc_risk",),
    "svc_portfolio": ("svc_marketdata", "svc_oms", "svc_risk"),
    "svc_reporting": ("svc_custody", "svc_oms", "svc_risk"),
    "svc_risk": ("svc_marketdata", "svc_oms"),
}
"""Whom each service calls; its Sidecar in `mesh/istio` allows no others."""
HTTP_SOCKET = "http.sock"
FURTHER_PORTS = {"svc_gateway": {8_080: HTTP_SOCKET}}
"""Inbound ports beside gRPC's, and the names of their sockets."""
VENUES_FILE = "venues.json"
DRAIN_SECONDS = 20.0
AFFIRM_SECONDS = "1"


def instances(service: str, replicas: int) -> list[str]:
    """Return the names of a service's replicas."""
    return [f"{service}-{number}" for number in range(replicas)]


@dataclass(frozen=True)
class Surrounding:
    """What a plan of services needs to know of the rest: the ports, whose tokens are good, and the origins of browsers' pages."""

    doors: Doors
    issuer: str
    jwks_uri: str
    origins: tuple[str, ...]


def service_proxies(layout: Layout, options: Options) -> tuple[Proxy, ...]:
    """Write every instance's secret and return the sidecars of all instances.

    Raises:
        LocalMeshError: no block of addresses is free.
    """
    names = {service: instances(service, options.replicas) for service in options.services}
    write_secrets(layout, [name for replicas in names.values() for name in replicas])
    return proxies(layout, names, FURTHER_PORTS)


def service_units(
    layout: Layout, options: Options, around: Surrounding, found: Sequence[Proxy], after: tuple[str, ...]
) -> tuple[list[Unit], EdgeSite]:
    """Return the units of the services, their sidecars, the control process and the edge, and where the edge is."""
    site = edge_site(layout, around.doors.edge_port, around.origins, edge_address(found[0].address))
    settings = {"ISSUER": around.issuer, "JWKS_URI": around.jwks_uri, **_control(layout, options)}
    control = control_unit(layout, Topology(tuple(found), edge=site), settings)
    units = [control, edge_unit(layout, site), *(envoy_unit(layout, proxy) for proxy in found)]
    for proxy in found:
        service = proxy.instance.rpartition("-")[0]
        settings = _shared(layout, proxy.instance, service) | _own(layout, options, around, proxy)
        if options.bus and service in BUS_USERS:
            settings["REDIS_URL_FILE"] = str(layout.private(REDIS) / ADDRESS_FILE)
        settings |= _targets(layout, options, proxy.instance, service)
        units.append(_unit(layout, proxy.instance, service, settings, after))
    return units, site


def _control(layout: Layout, options: Options) -> dict[str, str]:
    """What the control process is told where it is not to be as by default."""
    settings = {}
    if options.own_manifests:
        settings["MANIFESTS_DIRECTORY"] = str(own_manifests(layout))
    if options.certificate_seconds is not None:
        settings["CERTIFICATE_SECONDS"] = str(options.certificate_seconds)
    return settings


def _unit(layout: Layout, name: str, service: str, settings: dict[str, str], after: tuple[str, ...]) -> Unit:
    return replace(
        python_unit(layout, name, service, service, environment={f"TRADEMESH_{key}": value for key, value in settings.items()}),
        after=after,
        ready=GrpcHealth(layout.socket(name)),
        stop_seconds=DRAIN_SECONDS,
        address=str(layout.socket(name)),
    )


def _shared(layout: Layout, name: str, service: str) -> dict[str, str]:
    """What every service is told."""
    private = layout.private(name)
    token_key = own_directory(layout.data("secrets")) / f"{service}.token-key"
    secret_file(token_key)
    settings = {
        "INSTANCE": name,
        "SOCKET_PATH": str(layout.socket(name)),
        "SIDECAR_SECRET_FILE": str(private / SECRET_FILE),
        "TOKEN_KEY_FILE": str(token_key),
        "TELEMETRY_FOLDER": str(_telemetry(layout, name)),
    }
    if service in SCHEMAS:
        settings["DATABASE_DSN_FILE"] = str(layout.private(DATABASES) / f"{service}.dsn")
    return settings


def _telemetry(layout: Layout, name: str) -> Path:
    return own_directory(own_directory(layout.data("telemetry")) / name)


def _own(layout: Layout, options: Options, around: Surrounding, proxy: Proxy) -> dict[str, str]:
    """What an instance is told beside that."""
    doors = around.doors
    match proxy.service_account:
        case "svc-oms":
            return _venue(layout, doors, proxy.instance) if options.venue_link else {}
        case "svc-risk":
            return {"FIRM_TENANT": TENANT, "PRICE_VENUE": VENUE}
        case "svc-marketdata":
            lines = FeedLines.of(proxy.address)
            feed = {"ITCH_A": lines.a, "ITCH_B": lines.b, "ITCH_SOURCES": HOST, "VENUE": VENUE}
            return feed | {"ITCH_REREQUEST": f"{HOST}:{doors.itch_request_port}", "ITCH_SNAPSHOT": f"{HOST}:{doors.itch_snapshot_port}"}
        case "svc-custody":
            return {"FIRM_TENANT": TENANT, "SANDBOX_CLOCK": "true", "AFFIRM_SECONDS": AFFIRM_SECONDS}
        case "svc-portfolio":
            return {"PRICE_VENUES": VENUE}
        case "svc-gateway":
            origins = {"ALLOWED_ORIGINS": ",".join(around.origins)} if around.origins else {}
            pages = {"HTTP_SOCKET_PATH": str(layout.private(proxy.instance) / HTTP_SOCKET), "TOKEN_URL": f"{around.issuer}/token"}
            return pages | origins
        case _:
            return {}


def _venue(layout: Layout, doors: Doors, name: str) -> dict[str, str]:
    session = {"venue": VENUE, "host": HOST, "port": doors.fix_port, "sender": MEMBER, "target": EXCHANGE_COMP_ID}
    login = {"username": MEMBER.lower(), "password": member_password(layout)}
    path = layout.private(name) / VENUES_FILE
    write_private(path, json.dumps({"venues": [{**session, **login}]}))
    return {"VENUES_FILE": str(path)}


def _targets(layout: Layout, options: Options, name: str, service: str) -> dict[str, str]:
    """Where an instance calls others: always its own sidecar's egress socket."""
    callees = [callee for callee in CALLEES[service] if callee in options.services]
    return {f"{callee.removeprefix('svc_').upper()}_TARGETS": egress_target(layout, name, callee) for callee in callees}
