"""What a local mesh is made of: chosen once, when it starts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

from kernel.config import PREFIX, ConfigError, Dsn, load, setting
from mesh.local.layout import LocalMeshError

REPLICAS_MAX = 8
TRADING = ("svc_oms", "svc_risk", "svc_marketdata")
SERVICES = (*TRADING, "svc_custody", "svc_portfolio", "svc_reporting", "svc_gateway")


@dataclass(frozen=True)
class Options:
    """The shape of a mesh.

    Attributes:
        replicas: of each service, 1 to 8.
        venue_link: the order service is connected to the exchange; without it orders stay where acceptance left them.
        bus: relays publish on the bus; without it consumers find events in the producers' logs, a little later.
        exchange_flow: synthetic participants trade; without them only what is sent from here stands in the books.
        seed: accounts, instruments and limits are created.
        ephemeral_ports: edge, issuer and exchange have any free ports, whatever the environment says; for tests beside a running mesh.
        services: which of our services run; svc_oms, svc_risk and svc_marketdata are the least that trades.
        own_manifests: the control process follows a copy of `mesh/istio` in the state directory, made at the first start, to be changed
            while the mesh runs.
        certificate_seconds: how long a workload's certificate is valid; an hour unless given.
        token_seconds: how long a token of the sandbox's issuer is valid, whose keys then follow each other as fast as they may; five
            minutes unless given.
    """

    replicas: int = 2
    venue_link: bool = True
    bus: bool = True
    exchange_flow: bool = True
    seed: bool = True
    ephemeral_ports: bool = False
    services: tuple[str, ...] = SERVICES
    own_manifests: bool = False
    certificate_seconds: int | None = None
    token_seconds: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= REPLICAS_MAX:
            raise LocalMeshError(f"--replicas must be 1 to {REPLICAS_MAX}, not {self.replicas}.")
        wrong = sorted(set(self.services) - set(SERVICES)) or sorted(set(TRADING) - set(self.services))
        if wrong:
            raise LocalMeshError(f"--services takes {', '.join(SERVICES)}, the first three always; look at {', '.join(wrong)}.")

    def arguments(self) -> list[str]:
        """Return the arguments of `python -m mesh.local up` that say the same."""
        flags = {
            "--no-venue-link": not self.venue_link,
            "--no-bus": not self.bus,
            "--no-exchange-flow": not self.exchange_flow,
            "--no-seed": not self.seed,
            "--ephemeral-ports": self.ephemeral_ports,
            "--own-manifests": self.own_manifests,
        }
        chosen = ["--services", ",".join(self.services)] if self.services != SERVICES else []
        values = {
            "--certificate-seconds": self.certificate_seconds,
            "--token-seconds": self.token_seconds,
        }
        chosen += [text for flag, value in values.items() if value is not None for text in (flag, str(value))]
        return ["--replicas", str(self.replicas), *chosen, *(flag for flag, given in flags.items() if given)]


@dataclass(frozen=True)
class Surroundings:
    """What the environment says: real deployments that replace embedded parts, and where to be.

    Attributes:
        postgres_dsn: `TRADEMESH_POSTGRES_DSN`, a role that may create roles and databases.
        redis_url: `TRADEMESH_REDIS_URL`.
        edge_port: `TRADEMESH_EDGE_PORT` on 127.0.0.1; 0 takes any free port.
        issuer_port: `TRADEMESH_ISSUER_PORT`, likewise.
        exchange_fix_port: `TRADEMESH_EXCHANGE_FIX_PORT`, likewise.
        exchange_itch_request_port: `TRADEMESH_EXCHANGE_ITCH_REQUEST_PORT`, likewise, of UDP.
        exchange_itch_snapshot_port: `TRADEMESH_EXCHANGE_ITCH_SNAPSHOT_PORT`, likewise.
        issuer: `TRADEMESH_ISSUER`, the `iss` of a real issuer's tokens, in place of the sandbox's.
        jwks_uri: `TRADEMESH_JWKS_URI`, where a real issuer's keys are; goes with the one above.
        origins: `TRADEMESH_ORIGINS`, of browsers' pages that may call, such as `https://desk.example.com`.
        state_dir: `TRADEMESH_STATE_DIR`; read elsewhere, known here.
    """

    postgres_dsn: Dsn | None = None
    redis_url: Dsn | None = None
    edge_port: int = setting(8443, minimum=0, maximum=65_535)
    issuer_port: int = setting(8480, minimum=0, maximum=65_535)
    exchange_fix_port: int = setting(9878, minimum=0, maximum=65_535)
    exchange_itch_request_port: int = setting(26402, minimum=0, maximum=65_535)
    exchange_itch_snapshot_port: int = setting(26403, minimum=0, maximum=65_535)
    issuer: str | None = setting(None, pattern=r"https?://[!-~]{1,255}")
    jwks_uri: str | None = setting(None, pattern=r"https?://[!-~]{1,255}")
    origins: tuple[str, ...] = setting((), pattern=r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
    state_dir: str | None = None


_CLIENT_KEYS = tuple(PREFIX + name for name in ("ENDPOINT", "CA_FILE", "TOKEN", "CLIENT_ID", "CLIENT_SECRET"))
"""The command line's own, which stand in the same environment."""


def surroundings(environment: Mapping[str, str] | None = None) -> Surroundings:
    """Read the environment.

    Raises:
        LocalMeshError: a `TRADEMESH_*` key is malformed or unknown; a misspelt one must not start an embedded part instead.
    """
    environment = os.environ if environment is None else environment
    try:
        # Keys of the tests' own fixtures stand in the same environment.
        found = load(Surroundings, environment, ignore=(f"{PREFIX}TEST_", *_CLIENT_KEYS))
        if (found.issuer is None) is not (found.jwks_uri is None):
            raise ConfigError([f"{PREFIX}ISSUER and {PREFIX}JWKS_URI: each needs the other"])
        return found
    except ConfigError as error:
        known = ", ".join(f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(Surroundings))
        raise LocalMeshError(f"{error}\nThe local mesh knows {known}; the first two also as _FILE.") from error
