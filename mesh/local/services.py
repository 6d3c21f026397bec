"""The units of our own services and of their sidecars: two replicas of each, told by which authority they reach the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mesh.local.embedded import ADDRESS_FILE, write_private
from mesh.local.layout import Layout
from mesh.local.operator import SECRET_FILE
from mesh.local.options import Options
from mesh.local.parts import DATABASES, EXCHANGE_COMP_ID, HOST, MEMBER, REDIS, Doors, member_password, python_unit
from mesh.local.probes import GrpcHealth
from mesh.local.seed_data import TENANT, VENUE
from mesh.local.sidecar import certificates, control_unit, egress_target, envoy_unit, proxies, write_secrets
from mesh.local.state import own_directory, secret_file
from mesh.local.topology import Topology
from mesh.local.unit import Unit

SERVICES = ("svc_oms", "svc_risk")
CALLEES = {
    "svc_custody": ("svc_oms", "svc_risk"),
    "svc_gateway": ("svc_custody", "svc_marketdata", "svc_oms", "svc_portfolio", "svc_reporting", "svc_risk"),
    "svc_marketdata": (),
    "svc_oms": ("svc_risk",),
    "svc_portfolio": ("svc_marketdata", "svc_oms", "svc_risk"),
    "svc_reporting": ("svc_custody", "svc_oms", "svc_risk"),
    "svc_risk": ("svc_oms",),
}
"""Whom each service calls; its Sidecar in `mesh/istio` allows no others."""
FURTHER_PORTS = {"svc_gateway": {8_080: "http.sock"}}
"""Inbound ports beside gRPC's, and the names of their sockets."""
EDGE = "edge"
"""The gateway's directory, in which it finds a certificate of its own."""
VENUES_FILE = "venues.json"
DRAIN_SECONDS = 20.0


def instances(service: str, replicas: int) -> list[str]:
    """Return the names of a service's replicas."""
    return [f"{service}-{number}" for number in range(replicas)]


def service_units(layout: Layout, options: Options, doors: Doors, after: tuple[str, ...]) -> list[Unit]:
    """Write every instance's secret, and return the units of the services, their sidecars and the control process.

    Raises:
        LocalMeshError: no block of addresses is free.
    """
    names = {service: instances(service, options.replicas) for service in SERVICES}
    write_secrets(layout, [name for replicas in names.values() for name in replicas])
    layout.create_private(EDGE)
    topology = Topology(proxies(layout, names, FURTHER_PORTS), {EDGE: certificates(layout, EDGE)})
    units = [control_unit(layout, topology, {}), *(envoy_unit(layout, proxy) for proxy in topology.proxies)]
    for service, replicas in names.items():
        for name in replicas:
            settings = _shared(layout, options, name, service)
            own = _oms(layout, options, doors, name) if service == "svc_oms" else _risk(doors)
            units.append(_unit(layout, name, service, {**settings, **_targets(layout, name, service), **own}, after))
    return units


def _unit(layout: Layout, name: str, service: str, settings: dict[str, str], after: tuple[str, ...]) -> Unit:
    return replace(
        python_unit(layout, name, service, service, environment={f"TRADEMESH_{key}": value for key, value in settings.items()}),
        after=after,
        ready=GrpcHealth(layout.socket(name)),
        stop_seconds=DRAIN_SECONDS,
        address=str(layout.socket(name)),
    )


def _shared(layout: Layout, options: Options, name: str, service: str) -> dict[str, str]:
    """What every service is told."""
    private = layout.private(name)
    token_key = own_directory(layout.data("secrets")) / f"{service}.token-key"
    secret_file(token_key)
    settings = {
        "INSTANCE": name,
        "SOCKET_PATH": str(layout.socket(name)),
        "SIDECAR_SECRET_FILE": str(private / SECRET_FILE),
        "DATABASE_DSN_FILE": str(layout.private(DATABASES) / f"{service}.dsn"),
        "TOKEN_KEY_FILE": str(token_key),
        "TELEMETRY_FOLDER": str(_telemetry(layout, name)),
    }
    if options.bus:
        settings["REDIS_URL_FILE"] = str(layout.private(REDIS) / ADDRESS_FILE)
    return settings


def _telemetry(layout: Layout, name: str) -> Path:
    return own_directory(own_directory(layout.data("telemetry")) / name)


def _oms(layout: Layout, options: Options, doors: Doors, name: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    if options.venue_link:
        session = {"venue": VENUE, "host": HOST, "port": doors.fix_port, "sender": MEMBER, "target": EXCHANGE_COMP_ID}
        login = {"username": MEMBER.lower(), "password": member_password(layout)}
        path = layout.private(name) / VENUES_FILE
        write_private(path, json.dumps({"venues": [{**session, **login}]}))
        settings["VENUES_FILE"] = str(path)
    return settings


def _risk(doors: Doors) -> dict[str, str]:
    feed = {"PRICE_FEED_HOST": HOST, "PRICE_FEED_PORT": str(doors.feed_port), "PRICE_FEED_VENUE": VENUE}
    return {"FIRM_TENANT": TENANT, **feed}


def _targets(layout: Layout, name: str, service: str) -> dict[str, str]:
    """Where an instance calls others: always its own sidecar's egress socket."""
    return {f"{callee.removeprefix('svc_').upper()}_TARGETS": egress_target(layout, name, callee) for callee in CALLEES[service]}
