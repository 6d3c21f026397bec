"""The units that are not our own services: PostgreSQL, Redis, the schemas, the exchange."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace

from mesh.local.embedded import ADDRESS_FILE, READY_FILE, write_private
from mesh.local.layout import Layout, LocalMeshError
from mesh.local.options import Options, Surroundings
from mesh.local.outside import registration_token
from mesh.local.probes import ReadyFile
from mesh.local.seed_data import INSTRUMENTS_FILE, VENUE
from mesh.local.state import own_directory, secret_file
from mesh.local.unit import CONFIGURATION_EXIT_CODE, Unit

POSTGRES, REDIS, DATABASES, EXCHANGE, ISSUER = "postgres", "redis", "databases", "exchange", "issuer"
EXCHANGE_COMP_ID = VENUE
HOST = "127.0.0.1"
MEMBER = "TRADEMESH"
"""Our CompID and user name at the exchange."""
CONTROL_SOCKET = "control.sock"
KEY_LEAD_SECONDS_MIN = 20
"""Twice as long as the control process takes to fetch the issuer's keys."""

_SANDBOX_CONFIGURATION_EXIT_CODE = 2
_LINE_A_PORT, _LINE_B_PORT = 26_400, 26_401


@dataclass(frozen=True)
class Doors:
    """The ports on 127.0.0.1: the edge's, the issuer's, the exchange's; the request port is of UDP."""

    edge_port: int
    issuer_port: int
    fix_port: int
    itch_request_port: int
    itch_snapshot_port: int

    @classmethod
    def choose(cls, options: Options, environment: Surroundings) -> Doors:
        """Take the configured ports, and free ones for 0. Chosen once, so that they survive restarts of whoever has them.

        Raises:
            LocalMeshError: a configured port is in use.
        """
        wanted = {field.name: getattr(environment, _PORT_KEYS.get(field.name, f"exchange_{field.name}")) for field in fields(cls)}
        with ExitStack() as held:
            # All are held until all are known, so that two zeros never become one port.
            return cls(**{name: _take(held, name, 0 if options.ephemeral_ports else port) for name, port in wanted.items()})


_PORT_KEYS = {"edge_port": "edge_port", "issuer_port": "issuer_port"}


def _take(held: ExitStack, name: str, port: int) -> int:
    datagrams = name == "itch_request_port"
    door = held.enter_context(socket.socket(type=socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM))
    if not datagrams:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((HOST, port))
        if not datagrams:
            door.listen(1)
    except OSError as error:
        key = f"TRADEMESH_{_PORT_KEYS.get(name, f'exchange_{name}').upper()}"
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise LocalMeshError(
            f"Port {port} on {HOST} {why}.\n"
            f"Stop what has it (`ss -{'u' if datagrams else 't'}lnp 'sport = :{port}'` shows it), or set {key}; 0 takes any."
        ) from error
    taken: int = door.getsockname()[1]
    return taken


def python_unit(layout: Layout, name: str, service: str, module: str, *arguments: str, environment: Mapping[str, str]) -> Unit:
    """Return a one-shot unit that runs one of our modules, with little of this process's environment and nothing of its configuration."""
    inherited = {key: os.environ[key] for key in ("HOME", "PATH", "VIRTUAL_ENV") if key in os.environ}
    whole = {**inherited, "LANG": "C.UTF-8", "TZ": "UTC", **environment}
    return Unit(name, service, (sys.executable, "-m", module, *arguments), layout.root, environment=whole)


def database_units(layout: Layout, services: Sequence[str], environment: Surroundings) -> list[Unit]:
    """Return PostgreSQL, unless there is a real one, and the one-shot that makes roles, schemas and tables in it."""
    private = layout.create_private(DATABASES)
    address, after, units = private / "superuser.dsn", [], []
    if environment.postgres_dsn is not None:
        write_private(address, environment.postgres_dsn.reveal())
    else:
        units.append(_embedded(layout, POSTGRES, stop_seconds=40.0))
        address, after = layout.private(POSTGRES) / ADDRESS_FILE, [POSTGRES]
    settings = {
        "TRADEMESH_SUPERUSER_DSN_FILE": str(address),
        "TRADEMESH_SERVICES": ",".join(services),
        "TRADEMESH_SECRETS_DIRECTORY": str(own_directory(layout.data("secrets"))),
        "TRADEMESH_ADDRESS_DIRECTORY": str(private),
    }
    return [*units, replace(python_unit(layout, DATABASES, DATABASES, "mesh.local.databases", environment=settings), after=tuple(after))]


def bus_units(layout: Layout, environment: Surroundings) -> list[Unit]:
    """Return Redis, unless there is a real one."""
    if environment.redis_url is not None:
        write_private(layout.create_private(REDIS) / ADDRESS_FILE, environment.redis_url.reveal())
        return []
    return [_embedded(layout, REDIS, stop_seconds=10.0)]


def _embedded(layout: Layout, part: str, *, stop_seconds: float) -> Unit:
    private = layout.create_private(part)
    return replace(
        python_unit(layout, part, part, "mesh.local.embedded", part, str(layout.data(part)), str(private), environment={}),
        ready=ReadyFile(private / READY_FILE),
        stop_seconds=stop_seconds,
        address=f"DSN in {private / ADDRESS_FILE}",
    )


@dataclass(frozen=True)
class FeedLines:
    """Where a receiver of the venue's feed listens for its two lines, `address:port` of UDP."""

    a: str
    b: str

    @classmethod
    def of(cls, address: str) -> FeedLines:
        """Return the lines of an instance with an address of its own."""
        return cls(f"{address}:{_LINE_A_PORT}", f"{address}:{_LINE_B_PORT}")


def issuer_unit(layout: Layout, doors: Doors, token_seconds: int | None) -> Unit:
    """Return the sandbox's identity provider; clients register with the token of `outside.registration_token`."""
    private, data = layout.create_private(ISSUER), own_directory(layout.data(ISSUER))
    token = private / "registration.token"
    write_private(token, registration_token(layout))
    settings = {
        "DATA_DIRECTORY": str(data),
        "ISSUER": issuer_url(doors),
        "REGISTRATION_TOKEN_FILE": str(token),
        "ADDRESS": HOST,
        "PORT": str(doors.issuer_port),
        "READY_FILE": str(private / READY_FILE),
    }
    if token_seconds is not None:
        # Published for as long as the control process may take to fetch it, and for a token's life.
        lead = max(token_seconds, KEY_LEAD_SECONDS_MIN)
        settings |= {"TOKEN_SECONDS": str(token_seconds), "KEY_LEAD_SECONDS": str(lead), "KEY_SECONDS": str(2 * lead)}
    whole = {f"TRADEMESH_IDP_{key}": value for key, value in settings.items()}
    return replace(
        python_unit(layout, ISSUER, ISSUER, "sandbox.idp", environment=whole),
        ready=ReadyFile(private / READY_FILE),
        address=issuer_url(doors),
        final_exit_codes=frozenset({CONFIGURATION_EXIT_CODE, _SANDBOX_CONFIGURATION_EXIT_CODE}),
    )


def issuer_url(doors: Doors) -> str:
    """Return the sandbox issuer's URL, which is its name too."""
    return f"http://{HOST}:{doors.issuer_port}"


def member_password(layout: Layout) -> str:
    """Return our password at the exchange, made at the first call and kept."""
    return secret_file(own_directory(layout.data("secrets")) / "exchange-member.password")


def exchange_unit(layout: Layout, options: Options, doors: Doors, lines: Sequence[FeedLines]) -> Unit:
    """Return the sandbox exchange, with us as its member, and its feed sent to these receivers."""
    private, journal = layout.create_private(EXCHANGE), own_directory(layout.data(EXCHANGE))
    member = {"comp_id": MEMBER, "username": MEMBER.lower(), "password": member_password(layout)}
    write_private(private / "members.json", json.dumps({"members": [member]}))
    settings = {
        "JOURNAL_DIRECTORY": str(journal / "journal"),
        "CREDENTIALS_FILE": str(private / "members.json"),
        "INSTRUMENTS_FILE": str(INSTRUMENTS_FILE),
        "COMP_ID": EXCHANGE_COMP_ID,
        "ADDRESS": HOST,
        "FIX_PORT": str(doors.fix_port),
        "CONTROL_SOCKET": str(private / CONTROL_SOCKET),
        "READY_FILE": str(private / READY_FILE),
        "FLOW_AMPLE_DEPTH": "true",
        "ITCH_A": ",".join(line.a for line in lines),
        "ITCH_B": ",".join(line.b for line in lines),
        "ITCH_REQUEST_PORT": str(doors.itch_request_port),
        "ITCH_SNAPSHOT_PORT": str(doors.itch_snapshot_port),
    }
    if not options.exchange_flow:
        settings |= {"FLOW_RATE": "0", "FLOW_AMPLE_DEPTH": "false"}
    whole = {f"TRADEMESH_EXCHANGE_{key}": value for key, value in settings.items()}
    return replace(
        python_unit(layout, EXCHANGE, EXCHANGE, "sandbox.exchange", environment=whole),
        ready=ReadyFile(private / READY_FILE),
        address=f"{HOST}:{doors.fix_port}",
        final_exit_codes=frozenset({CONFIGURATION_EXIT_CODE, _SANDBOX_CONFIGURATION_EXIT_CODE}),
    )
