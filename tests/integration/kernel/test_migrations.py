"""Migrations, and what they withhold from the role that the service runs as."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from kernel.config import Dsn
from kernel.errors import InternalError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, NewEvent
from kernel.postgres import KERNEL_MIGRATIONS, Database, MigrationError, MigrationSource, migrate, verify
from mesh.local.postgres import DATABASE
from mesh.local.provision import Provisioner, ServiceDatabase


@asynccontextmanager
async def connected(dsn: Dsn) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn.reveal())
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def source(tmp_path: Path) -> MigrationSource:
    (tmp_path / "0001_first.sql").write_text('CREATE TABLE one (id int); REVOKE DELETE ON one FROM :"runtime_role";')
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE two (id int);")
    return MigrationSource("svc_test", tmp_path)


async def test_each_file_is_applied_once(service_database: ServiceDatabase, source: MigrationSource) -> None:
    sources = [KERNEL_MIGRATIONS, source]
    applied = await migrate(service_database.owner_dsn, service_database.role, sources)
    assert [(migration.component, migration.number) for migration in applied][-2:] == [("svc_test", 1), ("svc_test", 2)]
    assert await migrate(service_database.owner_dsn, service_database.role, sources) == []
    await verify(service_database.dsn, sources)
    (source.directory / "0003_third.sql").write_text("CREATE TABLE three (id int);")
    with pytest.raises(MigrationError, match="not applied: svc_test 0003_third"):
        await verify(service_database.dsn, sources)
    assert [migration.name for migration in await migrate(service_database.owner_dsn, service_database.role, sources)] == ["third"]


async def test_replicas_that_start_together_apply_once(service_database: ServiceDatabase, source: MigrationSource) -> None:
    sources = [KERNEL_MIGRATIONS, source]
    results = await asyncio.gather(*(migrate(service_database.owner_dsn, service_database.role, sources) for _ in range(4)))
    assert sorted(len(result) > 0 for result in results) == [False, False, False, True]


async def test_edited_and_missing_files_are_refused(service_database: ServiceDatabase, source: MigrationSource) -> None:
    await migrate(service_database.owner_dsn, service_database.role, [source])
    second = source.directory / "0002_second.sql"
    original = second.read_text()
    second.write_text(original + " ")
    with pytest.raises(MigrationError, match="edited since: svc_test 0002_second"):
        await migrate(service_database.owner_dsn, service_database.role, [source])
    second.unlink()
    with pytest.raises(MigrationError, match="files are missing: svc_test 0002_second"):
        await verify(service_database.dsn, [source])


async def test_a_failing_file_leaves_no_trace(service_database: ServiceDatabase, source: MigrationSource) -> None:
    (source.directory / "0003_third.sql").write_text("CREATE TABLE three (id int); SELECT 1 / 0;")
    with pytest.raises(InternalError):
        await migrate(service_database.owner_dsn, service_database.role, [source])
    (source.directory / "0003_third.sql").write_text("CREATE TABLE three (id int);")
    assert [migration.number for migration in await migrate(service_database.owner_dsn, service_database.role, [source])] == [3]


@pytest.mark.parametrize("name", ["0004_gap.sql", "1_short.sql", "0003-dash.sql", "0002_again.sql"])
async def test_misnamed_files_are_refused(service_database: ServiceDatabase, source: MigrationSource, name: str) -> None:
    (source.directory / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError):
        await migrate(service_database.owner_dsn, service_database.role, [source])


async def test_a_schema_that_was_never_migrated_is_refused(service_database: ServiceDatabase) -> None:
    with pytest.raises(MigrationError, match="never migrated"):
        await verify(service_database.dsn, [KERNEL_MIGRATIONS])
    with pytest.raises(MigrationError, match="role name"):
        await migrate(service_database.owner_dsn, 'x"; DROP', [KERNEL_MIGRATIONS])


CHANGES = ["UPDATE event SET payload = ''", "DELETE FROM event", "TRUNCATE event", "TRUNCATE event CASCADE"]


async def write_one(service: ServiceDatabase) -> None:
    database = await Database.open(service.dsn)
    await PostgresEventStore(database).commit([Commit.single("order-1", 0, NewEvent("x", b"x"))])
    await database.close()


@pytest.mark.parametrize("statement", [*CHANGES, "MERGE INTO event e USING event f ON true WHEN MATCHED THEN DELETE"])
async def test_the_service_cannot_change_events(migrated: ServiceDatabase, statement: str) -> None:
    await write_one(migrated)
    async with connected(migrated.dsn) as session:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await session.execute(statement)
        assert await session.fetchval("SELECT count(*) FROM event") == 1


@pytest.mark.parametrize("statement", CHANGES)
async def test_even_the_owner_trips_over_the_trigger(migrated: ServiceDatabase, statement: str) -> None:
    await write_one(migrated)
    async with connected(migrated.owner_dsn) as session:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed"):
            await session.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "DROP TRIGGER event_is_append_only ON event",
        "DROP TABLE event",
        "SET session_replication_role = replica",
        "CREATE TABLE mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE OR REPLACE FUNCTION event_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "DELETE FROM event_stream",
        "DELETE FROM lease",
        "UPDATE schema_migration SET checksum = ''",
        "INSERT INTO event VALUES (1, '1', 's', 1, 't', '', '', now())",
    ],
)
async def test_the_service_cannot_help_itself(migrated: ServiceDatabase, statement: str) -> None:
    async with connected(migrated.dsn) as session:
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.GeneratedAlwaysError)):
            await session.execute(statement)


async def test_the_service_cannot_grant_itself_anything(migrated: ServiceDatabase) -> None:
    async with connected(migrated.dsn) as session:
        await session.execute("GRANT UPDATE, DELETE, TRUNCATE ON event TO current_user")  # a warning, and nothing is granted
        held = await session.fetchval("SELECT has_table_privilege('event', 'UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')")
        assert held is False


async def test_the_service_is_nobody_special(migrated: ServiceDatabase) -> None:
    async with connected(migrated.dsn) as session:
        row = await session.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        assert row is not None
        assert not any(row)
        assert await session.fetchval("SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute(f"SET ROLE {migrated.role}_owner")


async def test_services_do_not_see_each_other(migrated: ServiceDatabase, postgres: Provisioner) -> None:
    other = postgres.provision(f"{migrated.schema}_x", DATABASE)
    async with connected(other.dsn) as session:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.fetch(f"SELECT * FROM {migrated.schema}.event")
    postgres.remove(other.schema, DATABASE)
