"""The units of our own services: two replicas of each, told where the others are and what to attach to calls of them."""

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
from mesh.local.sidecar import HEADERS_FILE, write_headers, write_secrets
from mesh.local.state import own_directory, secret_file
from mesh.local.unit import Unit

SERVICES = ("svc_oms", "svc_risk")
VENUES_FILE = "venues.json"
DRAIN_SECONDS = 20.0


def instances(service: str, replicas: int) -> list[str]:
    """Return the names of a service's replicas."""
    return [f"{service}-{number}" for number in range(replicas)]


def service_units(layout: Layout, options: Options, doors: Doors, after: tuple[str, ...]) -> list[Unit]:
    """Write every instance's secret and headers, and return the services' units."""
    names = {service: instances(service, options.replicas) for service in SERVICES}
    write_secrets(layout, [name for replicas in names.values() for name in replicas])
    calls = {"svc_oms": "svc_risk", "svc_risk": "svc_oms"}
    units = []
    for service, callee in calls.items():
        for name in names[service]:
            write_headers(layout, name, service=service, callees=names[callee])
            settings = _shared(layout, options, name, service)
            targets = ",".join(f"unix:{layout.socket(other)}" for other in names[callee])
            own = _oms(layout, options, doors, name, targets) if service == "svc_oms" else _risk(doors, targets)
            units.append(_unit(layout, name, service, {**settings, **own}, after))
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
        "HEADERS_FILE": str(private / HEADERS_FILE),
        "TELEMETRY_FOLDER": str(_telemetry(layout, name)),
    }
    if options.bus:
        settings["REDIS_URL_FILE"] = str(layout.private(REDIS) / ADDRESS_FILE)
    return settings


def _telemetry(layout: Layout, name: str) -> Path:
    return own_directory(own_directory(layout.data("telemetry")) / name)


def _oms(layout: Layout, options: Options, doors: Doors, name: str, risk_targets: str) -> dict[str, str]:
    settings = {"RISK_TARGETS": risk_targets}
    if options.venue_link:
        session = {"venue": VENUE, "host": HOST, "port": doors.fix_port, "sender": MEMBER, "target": EXCHANGE_COMP_ID}
        login = {"username": MEMBER.lower(), "password": member_password(layout)}
        path = layout.private(name) / VENUES_FILE
        write_private(path, json.dumps({"venues": [{**session, **login}]}))
        settings["VENUES_FILE"] = str(path)
    return settings


def _risk(doors: Doors, oms_targets: str) -> dict[str, str]:
    feed = {"PRICE_FEED_HOST": HOST, "PRICE_FEED_PORT": str(doors.feed_port), "PRICE_FEED_VENUE": VENUE}
    return {"OMS_TARGETS": oms_targets, "FIRM_TENANT": TENANT, **feed}
