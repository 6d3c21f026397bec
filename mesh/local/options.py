"""What a local mesh is made of: chosen once, when it starts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

from kernel.config import PREFIX, ConfigError, Dsn, load, setting
from mesh.local.layout import LocalMeshError

REPLICAS_MAX = 8


@dataclass(frozen=True)
class Options:
    """The shape of a mesh.

    Attributes:
        replicas: of each service, 1 to 8.
        venue_link: the order service is connected to the exchange; without it orders stay where acceptance left them.
        bus: relays publish on the bus; without it consumers find events in the producers' logs, a little later.
        exchange_flow: synthetic participants trade; without them only what is sent from here stands in the books.
        seed: accounts, instruments and limits are created.
        ephemeral_ports: the exchange's TCP ports are any free ones, whatever the environment says; for tests beside a running mesh.
    """

    replicas: int = 2
    venue_link: bool = True
    bus: bool = True
    exchange_flow: bool = True
    seed: bool = True
    ephemeral_ports: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= REPLICAS_MAX:
            raise LocalMeshError(f"--replicas must be 1 to {REPLICAS_MAX}, not {self.replicas}.")

    def arguments(self) -> list[str]:
        """Return the arguments of `python -m mesh.local up` that say the same."""
        flags = {
            "--no-venue-link": not self.venue_link,
            "--no-bus": not self.bus,
            "--no-exchange-flow": not self.exchange_flow,
            "--no-seed": not self.seed,
            "--ephemeral-ports": self.ephemeral_ports,
        }
        return ["--replicas", str(self.replicas), *(flag for flag, given in flags.items() if given)]


@dataclass(frozen=True)
class Surroundings:
    """What the environment says: real deployments that replace embedded parts, and where to be.

    Attributes:
        postgres_dsn: `TRADEMESH_POSTGRES_DSN`, a role that may create roles and databases.
        redis_url: `TRADEMESH_REDIS_URL`.
        exchange_fix_port: `TRADEMESH_EXCHANGE_FIX_PORT` on 127.0.0.1; 0 takes any free port.
        exchange_feed_port: `TRADEMESH_EXCHANGE_FEED_PORT`, likewise.
        state_dir: `TRADEMESH_STATE_DIR`; read elsewhere, known here.
    """

    postgres_dsn: Dsn | None = None
    redis_url: Dsn | None = None
    exchange_fix_port: int = setting(9878, minimum=0, maximum=65_535)
    exchange_feed_port: int = setting(9879, minimum=0, maximum=65_535)
    state_dir: str | None = None


def surroundings(environment: Mapping[str, str] | None = None) -> Surroundings:
    """Read the environment.

    Raises:
        LocalMeshError: a `TRADEMESH_*` key is malformed or unknown; a misspelt one must not start an embedded part instead.
    """
    environment = os.environ if environment is None else environment
    try:
        # Keys of the tests' own fixtures stand in the same environment.
        return load(Surroundings, environment, ignore=(f"{PREFIX}TEST_",))
    except ConfigError as error:
        known = ", ".join(f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(Surroundings))
        raise LocalMeshError(f"{error}\nThe local mesh knows {known}; the first two also as _FILE.") from error
