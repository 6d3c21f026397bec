"""Roles and schemas of the services on a PostgreSQL cluster, embedded or not.

A service has two roles: `svc_oms_owner` owns the schema and runs migrations, `svc_oms` runs the service. The runtime role owns nothing,
so what a migration withholds from it (UPDATE, DELETE and TRUNCATE of events) it cannot give itself.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from kernel.config import Dsn
from mesh.local.state import own_directory, secret_file

SUPERUSER = "postgres"
PSQL_TIMEOUT_SECONDS = 30.0

_SERVICE = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


class ProvisionError(Exception):
    """The cluster refused to create a role, schema or database."""


@dataclass(frozen=True, slots=True)
class ServiceDatabase:
    """Where a service finds its schema: `dsn` for running, `owner_dsn` for migrations only, `role` and `schema` by name."""

    schema: str
    role: str
    dsn: Dsn
    owner_dsn: Dsn


class Provisioner:
    """Creates databases, roles and schemas through `psql`, as a superuser.

    Args:
        superuser_dsn: address of the cluster.
        psql: the program.
        secrets: directory (0700) that keeps the roles' passwords, one 0600 file each.
    """

    def __init__(self, superuser_dsn: Dsn, *, psql: Path, secrets: Path) -> None:
        self._superuser_dsn = superuser_dsn
        self._psql = psql
        self._secrets = own_directory(secrets)

    def create_database(self, database: str) -> None:
        """Create the database unless it exists; only provisioned roles may connect to it.

        Raises:
            ProvisionError: the cluster refused.
        """
        name = _checked(database)
        missing = f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')"
        self._run(f"SELECT 'CREATE DATABASE {name}' {missing} \\gexec\nREVOKE ALL ON DATABASE {name} FROM PUBLIC;\n", "postgres")  # noqa: S608 (a checked name)

    def provision(self, service: str, database: str) -> ServiceDatabase:
        """Create or refresh a service's two roles and its schema. Passwords are made once and kept.

        Raises:
            ProvisionError: the name is not `[a-z][a-z0-9_]{0,39}`, or the cluster refused.
        """
        role, owner = _checked(service), f"{_checked(service)}_owner"
        passwords = {name: secret_file(self._secrets / f"{name}.password") for name in (role, owner)}
        self._run(_provision_sql(role, owner, passwords, _checked(database)), database)
        return ServiceDatabase(
            schema=service,
            role=role,
            dsn=self._dsn(role, passwords[role], database),
            owner_dsn=self._dsn(owner, passwords[owner], database),
        )

    def remove(self, service: str, database: str) -> None:
        """Drop a service's schema with all its data, and its two roles.

        Raises:
            ProvisionError: the cluster refused.
        """
        role, owner = _checked(service), f"{_checked(service)}_owner"
        self._run(f"DROP SCHEMA IF EXISTS {role} CASCADE;\nDROP OWNED BY {role}, {owner};\nDROP ROLE {role}, {owner};\n", database)
        for name in (role, owner):
            (self._secrets / f"{name}.password").unlink(missing_ok=True)

    def _dsn(self, role: str, password: str, database: str) -> Dsn:
        parts = urlsplit(self._superuser_dsn.reveal())
        location = parts.netloc.rpartition("@")[2]
        query = f"?{parts.query}" if parts.query else ""
        return Dsn(f"postgresql://{role}:{quote(password, safe='')}@{location}/{database}{query}")

    def _run(self, sql: str, database: str) -> None:
        """Run a script with the passwords in its input and environment, never in the arguments, which every local user can read."""
        parts = urlsplit(self._superuser_dsn.reveal())
        query = parse_qs(parts.query)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LC_ALL": "C",
            "PGHOST": parts.hostname or query.get("host", [""])[0],
            "PGPORT": str(parts.port or query.get("port", ["5432"])[0]),
            "PGUSER": unquote(parts.username or SUPERUSER),
            "PGPASSWORD": unquote(parts.password or ""),
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": "10",
        }
        script = "SET log_min_error_statement = panic;\n" + sql
        command = [str(self._psql), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        result = subprocess.run(
            command, input=script.encode(), capture_output=True, env=environment, check=False, timeout=PSQL_TIMEOUT_SECONDS
        )
        if result.returncode != 0:
            raise ProvisionError(result.stderr.decode(errors="replace")[-2_000:])


def _checked(name: str) -> str:
    if _SERVICE.fullmatch(name) is None:
        raise ProvisionError(f"not a role name: {name!r}")
    return name


def _provision_sql(role: str, owner: str, passwords: dict[str, str], database: str) -> str:
    """Return the script. Names are checked identifiers and passwords URL-safe base64, so neither needs quoting rules."""
    create = "\n".join(
        f"SELECT 'CREATE ROLE {name}' WHERE to_regrole('{name}') IS NULL \\gexec\n"
        f"ALTER ROLE {name} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT LOGIN PASSWORD '{passwords[name]}';\n"
        f"ALTER ROLE {name} SET search_path = {role};\n"
        f"GRANT CONNECT ON DATABASE {database} TO {name};"
        for name in (role, owner)
    )
    # An idle writer anywhere in the cluster holds back every log reader's horizon, hence the bound on whole transactions. One whose process
    # stands still holds its rows besides: that is noticed as soon as a dead peer is, and before those who wait for them give up.
    timeouts = {"statement_timeout": "5s", "lock_timeout": "3s", "idle_in_transaction_session_timeout": "2s", "transaction_timeout": "10s"}
    bounds = "\n".join(f"ALTER ROLE {role} SET {name} = '{value}';" for name, value in timeouts.items())
    return f"""
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('trademesh.provision'));
{create}
{bounds}
CREATE SCHEMA IF NOT EXISTS {role} AUTHORIZATION {owner};
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA {role} TO {role};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {role} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {role} GRANT USAGE, SELECT ON SEQUENCES TO {role};
COMMIT;
"""  # noqa: S608 (checked names)
