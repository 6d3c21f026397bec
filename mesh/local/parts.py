"""The units that are not our own services: PostgreSQL, Redis, the schemas, the exchange."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mesh.local.embedded import ADDRESS_FILE, READY_FILE, write_private
from mesh.local.layout import Layout, LocalMeshError
from mesh.local.options import Options, Surroundings
from mesh.local.probes import ReadyFile
from mesh.local.seed_data import INSTRUMENTS_FILE, VENUE
from mesh.local.state import own_directory, secret_file
from mesh.local.unit import CONFIGURATION_EXIT_CODE, Unit

POSTGRES, REDIS, DATABASES, EXCHANGE = "postgres", "redis", "databases", "exchange"
EXCHANGE_COMP_ID = VENUE
HOST = "127.0.0.1"
MEMBER = "TRADEMESH"
"""Our CompID and user name at the exchange."""
CONTROL_SOCKET = "control.sock"

_EXCHANGE_CONFIGURATION_EXIT_CODE = 2


@dataclass(frozen=True)
class Doors:
    """The exchange's TCP ports on 127.0.0.1."""

    fix_port: int
    feed_port: int

    @classmethod
    def choose(cls, options: Options, environment: Surroundings) -> Doors:
        """Take the configured ports, and free ones for 0. Chosen once, so that they survive the exchange's restarts.

        Raises:
            LocalMeshError: a configured port is in use.
        """
        wanted = (0, 0) if options.ephemeral_ports else (environment.exchange_fix_port, environment.exchange_feed_port)
        with socket.socket() as fix, socket.socket() as feed:
            # Both are held until both are known, so that two zeros never become one port.
            for held, port, key in ((fix, wanted[0], "FIX"), (feed, wanted[1], "FEED")):
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    held.bind((HOST, port))
                    held.listen(1)
                except OSError as error:
                    why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
                    raise LocalMeshError(
                        f"Port {port} on {HOST}, for the sandbox exchange, {why}.\n"
                        f"Stop what has it (`ss -ltnp 'sport = :{port}'` shows it), or set TRADEMESH_EXCHANGE_{key}_PORT; 0 takes any."
                    ) from error
            return cls(fix.getsockname()[1], feed.getsockname()[1])


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


def member_password(layout: Layout) -> str:
    """Return our password at the exchange, made at the first call and kept."""
    return secret_file(own_directory(layout.data("secrets")) / "exchange-member.password")


def exchange_unit(layout: Layout, options: Options, doors: Doors) -> Unit:
    """Return the sandbox exchange, with us as its member."""
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
        "FEED_PORT": str(doors.feed_port),
        "CONTROL_SOCKET": str(private / CONTROL_SOCKET),
        "READY_FILE": str(private / READY_FILE),
        "FLOW_AMPLE_DEPTH": "true",
    }
    if not options.exchange_flow:
        settings |= {"FLOW_RATE": "0", "FLOW_AMPLE_DEPTH": "false"}
    whole = {f"TRADEMESH_EXCHANGE_{key}": value for key, value in settings.items()}
    return replace(
        python_unit(layout, EXCHANGE, EXCHANGE, "sandbox.exchange", environment=whole),
        ready=ReadyFile(private / READY_FILE),
        address=f"{HOST}:{doors.fix_port}",
        final_exit_codes=frozenset({CONFIGURATION_EXIT_CODE, _EXCHANGE_CONFIGURATION_EXIT_CODE}),
    )
