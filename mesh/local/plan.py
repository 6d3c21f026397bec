"""The processes of a local mesh: which there are, and who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mesh.local.layout import DIRECTORY_KEY, Layout
from mesh.local.options import Options, Surroundings
from mesh.local.outside import AUTHORITY_FACT, EDGE_FACT, ISSUER_FACT
from mesh.local.parts import (
    CONTROL_SOCKET,
    DATABASES,
    EXCHANGE,
    HOST,
    ISSUER,
    POSTGRES,
    REDIS,
    Doors,
    FeedLines,
    bus_units,
    database_units,
    exchange_unit,
    issuer_unit,
    issuer_url,
    python_unit,
)
from mesh.local.priority import SERVICE_NICENESS
from mesh.local.services import SCHEMAS, Surrounding, instances, service_proxies, service_units
from mesh.local.topology import ENVOY, EdgeSite, sidecar_name
from mesh.local.unit import Unit

SEED, LINKS = "seed", "links"


_NICENESS = {
    **dict.fromkeys((ENVOY, REDIS), 9),
    **dict.fromkeys((EXCHANGE, ISSUER), 12),
    **dict.fromkeys((sidecar_name("svc_oms"), POSTGRES), 3),
    **SERVICE_NICENESS,
}
"""Who yields where processors are short: the edge last, which has to come to refusing what is too much. By service, or by name without the
replica's number, which goes before."""


@dataclass(frozen=True)
class Plan:
    """What the supervisor runs, and short facts about it for the status document."""

    units: tuple[Unit, ...]
    facts: dict[str, str] = field(default_factory=dict)


def build_plan(layout: Layout, options: Options, environment: Surroundings) -> Plan:
    """Make private directories and secrets, and return the plan of a mesh.

    The services wait for their schemas and for the bus. The exchange they find by themselves, because a venue may be away at any time;
    the mesh is ready when they have.

    Raises:
        LocalMeshError: a port is taken.
    """
    doors = Doors.choose(options, environment)
    infrastructure = [*database_units(layout, [name for name in options.services if name in SCHEMAS], environment)]
    infrastructure += bus_units(layout, environment)
    needed = tuple(unit.name for unit in infrastructure if unit.name in (DATABASES, REDIS))
    sidecars = service_proxies(layout, options)
    lines = [FeedLines.of(proxy.address) for proxy in sidecars if proxy.service_account == "svc-marketdata"]
    units = [*infrastructure, exchange_unit(layout, options, doors, lines)]
    own_issuer = issuer_url(doors)
    if environment.issuer is None or environment.jwks_uri is None:
        units.append(issuer_unit(layout, doors, options.token_seconds))
        around = Surrounding(doors, own_issuer, f"{own_issuer}/jwks", environment.origins)
    else:
        around = Surrounding(doors, environment.issuer, environment.jwks_uri, environment.origins)
    own, site = service_units(layout, options, around, sidecars, needed)
    units += own
    everybody = tuple(proxy.instance for proxy in sidecars)
    state = {DIRECTORY_KEY: str(layout.root)}
    if options.seed:
        after = tuple(instances("svc_risk", options.replicas)[:1])
        units.append(replace(python_unit(layout, SEED, SEED, "mesh.local.seed", environment=state), after=after))
        everybody = (*everybody, SEED)
    # Instruments without a reference in risk have no price there.
    wanted = [*(["--venue"] if options.venue_link else []), *(["--prices"] if options.seed else [])]
    control = [str(layout.private(EXCHANGE) / CONTROL_SOCKET), *wanted]
    units.append(replace(python_unit(layout, LINKS, LINKS, "mesh.local.links", *control, environment=state), after=everybody))
    yielding = (replace(unit, niceness=_niceness(unit)) for unit in units)
    return Plan(tuple(yielding), _facts(doors, around, site))


def _niceness(unit: Unit) -> int:
    of_its_kind = _NICENESS.get(unit.service, 0)
    return _NICENESS.get(unit.name.rpartition("-")[0], of_its_kind)


def _facts(doors: Doors, around: Surrounding, site: EdgeSite) -> dict[str, str]:
    return {
        EDGE_FACT: f"{site.address}:{site.port}",
        AUTHORITY_FACT: str(site.authority_file),
        ISSUER_FACT: around.issuer,
        "exchange_fix": f"{HOST}:{doors.fix_port}",
    }
