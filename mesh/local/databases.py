"""Gives every service its roles, its schema and its tables: `python -m mesh.local.databases`, idempotent, run before the services.

Services verify their schema and never change it; only this holds the addresses of the superuser and of the schemas' owners.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kernel.config import ConfigError, Dsn, load
from kernel.errors import TrademeshError
from kernel.postgres import KERNEL_MIGRATIONS, MigrationError, MigrationSource, migrate
from mesh.local.embedded import write_private
from mesh.local.layout import DIRECTORY_KEY
from mesh.local.postgres import DATABASE, installed_programs
from mesh.local.provision import Provisioner, ProvisionError
from mesh.local.unit import CONFIGURATION_EXIT_CODE


@dataclass(frozen=True)
class DatabasesConfig:
    """What to make.

    Attributes:
        superuser_dsn: address of the cluster, as a role that may create roles and databases.
        services: whose schemas to make, by package name.
        secrets_directory: where the passwords of the roles are kept, 0700.
        address_directory: where `<service>.dsn` is written for each service, 0700.
    """

    superuser_dsn: Dsn
    services: tuple[str, ...]
    secrets_directory: Path
    address_directory: Path


def migration_sources(service: str) -> list[MigrationSource]:
    """Return the kernel's and the service's own migrations. The service's package is found, not imported."""
    spec = find_spec(service)
    if spec is None or spec.origin is None:
        raise MigrationError(f"the package {service} is not installed")
    return [KERNEL_MIGRATIONS, MigrationSource(service, Path(spec.origin).parent / "migrations")]


async def prepare(config: DatabasesConfig) -> None:
    """Provision and migrate every service.

    Raises:
        ProvisionError, MigrationError, TrademeshError: a database, role or schema could not be made; running again continues.
    """
    provisioner = Provisioner(config.superuser_dsn, psql=installed_programs() / "psql", secrets=config.secrets_directory)
    provisioner.create_database(DATABASE)
    for service in config.services:
        database = provisioner.provision(service, DATABASE)
        applied = await migrate(database.owner_dsn, database.role, migration_sources(service))
        write_private(config.address_directory / f"{service}.dsn", database.dsn.reveal())
        print(f"{service}: {len(applied)} migrations applied", flush=True)


def main() -> int:
    """Prepare the databases that the environment describes; return the exit code."""
    try:
        asyncio.run(prepare(load(DatabasesConfig)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIGURATION_EXIT_CODE
    except (ProvisionError, MigrationError, TrademeshError) as error:
        # The driver's own words name the statement; only a developer of a migration sees them.
        because = f" ({error.__cause__})" if error.__cause__ is not None else ""
        print(f"databases: {error}{because}", file=sys.stderr)
        if isinstance(error, MigrationError):
            print(f"databases: a new {DIRECTORY_KEY} gives the embedded one a new state; the old one stays where it is", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
