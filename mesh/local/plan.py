"""The processes of a local mesh: which there are, and who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mesh.local.layout import DIRECTORY_KEY, Layout
from mesh.local.options import Options, Surroundings
from mesh.local.parts import (
    CONTROL_SOCKET,
    DATABASES,
    EXCHANGE,
    HOST,
    REDIS,
    Doors,
    bus_units,
    database_units,
    exchange_unit,
    python_unit,
)
from mesh.local.services import SERVICES, instances, service_units
from mesh.local.unit import Unit

SEED, LINKS = "seed", "links"


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
    infrastructure = [*database_units(layout, SERVICES, environment), *bus_units(layout, environment)]
    needed = tuple(unit.name for unit in infrastructure if unit.name in (DATABASES, REDIS))
    units = [*infrastructure, exchange_unit(layout, options, doors), *service_units(layout, options, doors, needed)]
    control = [str(layout.private(EXCHANGE) / CONTROL_SOCKET), *(["--venue"] if options.venue_link else [])]
    everybody = tuple(name for service in SERVICES for name in instances(service, options.replicas))
    units.append(replace(python_unit(layout, LINKS, LINKS, "mesh.local.links", *control, environment={}), after=everybody))
    if options.seed:
        state = {DIRECTORY_KEY: str(layout.root)}
        after = tuple(instances("svc_risk", options.replicas)[:1])
        units.append(replace(python_unit(layout, SEED, SEED, "mesh.local.seed", environment=state), after=after))
    return Plan(tuple(units), {"exchange_fix": f"{HOST}:{doors.fix_port}", "exchange_feed": f"{HOST}:{doors.feed_port}"})
