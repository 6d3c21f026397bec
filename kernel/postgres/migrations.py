"""Schema migrations: numbered SQL files, applied once, in order, by the schema's owner, and never edited afterwards.

Files are named `0001_events.sql`. In them `:"runtime_role"` (psql's notation) stands for the quoted name of the role that the service
runs as.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from kernel.config import Dsn, StartRefusedError
from kernel.postgres.driver_errors import mapped_errors

LOCK_TIMEOUT_SECONDS = 60.0

_FILE = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql", re.ASCII)
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_LOCK = "SELECT pg_advisory_lock(hashtextextended('trademesh.migrate.' || current_schema(), 0))"
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    component text NOT NULL,
    number integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (component, number)
);
REVOKE ALL ON schema_migration FROM :"runtime_role";
GRANT SELECT ON schema_migration TO :"runtime_role"
"""


class MigrationError(StartRefusedError):
    """The schema and the files do not fit together; a person has to look. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `checksum` is the SHA-256 of its bytes."""

    component: str
    number: int
    name: str
    sql: str
    checksum: str


@dataclass(frozen=True, slots=True)
class MigrationSource:
    """A directory of migrations; `component` keeps its numbers apart from those of other directories in the same schema."""

    component: str
    directory: Path


KERNEL_MIGRATIONS = MigrationSource("kernel", Path(__file__).resolve().parent.parent / "migrations")
"""Event log, leases and what else of the kernel needs tables; first in every service's list."""


def read_migrations(source: MigrationSource) -> list[Migration]:
    """Return the migrations of a directory, in order.

    Raises:
        MigrationError: a name is malformed, or the numbers are not 1, 2, 3 ….
    """
    migrations = []
    for path in sorted(source.directory.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"not a migration's name: {path}")
        content = path.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        migrations.append(Migration(source.component, int(match[1]), match[2], content.decode(), checksum))
    if [migration.number for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise MigrationError(f"numbers must be 0001, 0002, … without gap or repetition in {source.directory}")
    return migrations


async def migrate(owner_dsn: Dsn, runtime_role: str, sources: Sequence[MigrationSource]) -> list[Migration]:
    """Apply what is missing, each file in a transaction of its own, under a lock that serialises starting replicas.

    Args:
        owner_dsn: address as the schema's owner; its `search_path` names the schema.
        runtime_role: role that the service runs as, for GRANT and REVOKE.
        sources: directories, in the order in which they build on each other.

    Returns:
        the migrations that were applied now.

    Raises:
        MigrationError: an applied file was edited or is missing.
        UnavailableError: the server does not answer.
        InternalError: a file's SQL failed; that file left no trace, earlier ones stay.
    """
    if _ROLE.fullmatch(runtime_role) is None:
        raise MigrationError(f"not a role name: {runtime_role!r}")
    wanted = [migration for source in sources for migration in read_migrations(source)]
    with mapped_errors():
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(owner_dsn.reveal(), timeout=10)
        try:
            await connection.execute(_LOCK, timeout=LOCK_TIMEOUT_SECONDS)
            await connection.execute(_with_role(_TABLE, runtime_role))
            pending = await _pending(connection, wanted)
            for migration in pending:
                async with connection.transaction():
                    await connection.execute(_with_role(migration.sql, runtime_role))
                    await connection.execute(
                        "INSERT INTO schema_migration (component, number, name, checksum) VALUES ($1, $2, $3, $4)",
                        *(migration.component, migration.number, migration.name, migration.checksum),
                    )
        finally:
            await connection.close(timeout=5)
    return pending


async def verify(dsn: Dsn, sources: Sequence[MigrationSource]) -> None:
    """Check, as the runtime role, that the schema is exactly what these files make; a service does so at its start.

    Raises:
        MigrationError: something is missing, edited, unknown or not yet applied.
        UnavailableError: the server does not answer.
    """
    wanted = [migration for source in sources for migration in read_migrations(source)]
    with mapped_errors():
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn.reveal(), timeout=10)
        try:
            if await connection.fetchval("SELECT to_regclass('schema_migration')") is None:
                raise MigrationError("the schema was never migrated")
            pending = await _pending(connection, wanted)
        finally:
            await connection.close(timeout=5)
    if pending:
        raise MigrationError("not applied: " + ", ".join(_label(migration) for migration in pending))


_OTHER_VERSION = "another version made this database: run that one, or give this one a database of its own"


async def _pending(connection: asyncpg.Connection[asyncpg.Record], wanted: Sequence[Migration]) -> list[Migration]:
    rows = await connection.fetch("SELECT component, number, name, checksum FROM schema_migration ORDER BY component, number")
    applied = {(row["component"], row["number"]): row for row in rows}
    known = {(migration.component, migration.number): migration for migration in wanted}
    missing = [f"{component} {number:04}_{applied[component, number]['name']}" for component, number in applied.keys() - known.keys()]
    if missing:
        raise MigrationError(f"applied, but the files are missing: {', '.join(sorted(missing))}; {_OTHER_VERSION}")
    edited = [_label(known[key]) for key, row in applied.items() if known[key].checksum != row["checksum"]]
    if edited:
        raise MigrationError(f"applied, but edited since: {', '.join(sorted(edited))}; {_OTHER_VERSION}")
    return [migration for migration in wanted if (migration.component, migration.number) not in applied]


def _with_role(sql: str, runtime_role: str) -> str:
    return sql.replace(':"runtime_role"', f'"{runtime_role}"')


def _label(migration: Migration) -> str:
    return f"{migration.component} {migration.number:04}_{migration.name}"
