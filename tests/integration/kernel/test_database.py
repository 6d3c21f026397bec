"""Transactions and their ends, also when the line is cut at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from kernel.breaker import Breaker
from kernel.config import Dsn
from kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    InternalError,
    OutcomeUnknownError,
    Reason,
    ResourceExhaustedError,
    UnavailableError,
)
from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, LogPosition, NewEvent
from kernel.postgres import KERNEL_MIGRATIONS, Database, PoolSettings, migrate
from mesh.local.provision import ServiceDatabase
from tests.integration.kernel.fault_proxy import FaultProxy

LEASE = "INSERT INTO lease (name, owner, epoch, expires_at) VALUES ($1, 'me', 1, now())"
EVENT = NewEvent("test.v1.Happened", b"x")


@pytest.fixture
async def proxy(migrated: ServiceDatabase) -> AsyncIterator[FaultProxy]:
    with tempfile.TemporaryDirectory(prefix="tmp-") as directory:
        async with FaultProxy(migrated.dsn, Path(directory)) as proxy:
            yield proxy


@pytest.fixture
async def cut_database(proxy: FaultProxy) -> AsyncIterator[Database]:
    """Return a pool whose line the test can cut."""
    database = await Database.open(proxy.dsn, PoolSettings(size_max=2, settle_timeout_seconds=5.0))
    yield database
    await database.close()


async def leases(database: Database) -> list[str]:
    return [row["name"] for row in await database.fetch("SELECT name FROM lease ORDER BY name")]


async def test_the_session_is_as_configured(database: Database) -> None:
    settings = {name: await database.fetchval("SELECT current_setting($1)", name) for name in ("jit", "statement_timeout", "TimeZone")}
    assert settings == {"jit": "off", "statement_timeout": "5s", "TimeZone": "UTC"}
    assert await database.fetchval("SELECT current_setting('transaction_timeout')") == "10s"


async def test_the_pool_is_small() -> None:
    with pytest.raises(ValueError, match="size_max"):
        PoolSettings(size_max=5)


async def test_a_block_commits_or_leaves_nothing(database: Database) -> None:
    called: list[str] = []
    async with database.transaction() as transaction:
        await transaction.execute(LEASE, "kept")
        transaction.after_commit(lambda: called.append("kept"))
        assert called == []
    with pytest.raises(KeyError):
        async with database.transaction() as transaction:
            await transaction.execute(LEASE, "lost")
            transaction.after_commit(lambda: called.append("lost"))
            raise KeyError
    assert await leases(database) == called == ["kept"]


async def test_driver_errors_become_domain_errors(database: Database) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(LEASE, "x")
    with pytest.raises(AlreadyExistsError) as exists:
        async with database.transaction() as transaction:
            await transaction.execute(LEASE, "x")
    assert exists.value.metadata == {"constraint": "lease_key", "table": "lease"}
    with pytest.raises(InternalError) as syntax:
        await database.fetch("SELEC 1")
    assert syntax.value.metadata == {"sqlstate": "42601"}
    with pytest.raises(UnavailableError) as timeout:
        async with database.transaction() as transaction:
            await transaction.execute("SET LOCAL statement_timeout = '20ms'")
            await transaction.execute("SELECT pg_sleep(10)")
    assert timeout.value.reason is Reason.DATABASE_UNAVAILABLE
    assert timeout.value.metadata == {"sqlstate": "57014"}


async def test_a_failed_statement_cannot_be_committed_over(database: Database) -> None:
    with pytest.raises(InternalError, match="failed statement"):
        async with database.transaction() as transaction:
            await transaction.execute(LEASE, "lost")
            with pytest.raises(InternalError):
                await transaction.execute("SELECT 1 / 0")
    assert await leases(database) == []


async def test_a_deadlock_is_an_abort(database: Database) -> None:
    for name in ("a", "b"):
        async with database.transaction() as transaction:
            await transaction.execute(LEASE, name)
    ready = asyncio.Barrier(2)

    async def cross(first: str, second: str) -> None:
        async with database.transaction() as transaction:
            await transaction.fetchval("SELECT 1 FROM lease WHERE name = $1 FOR UPDATE", first)
            await ready.wait()
            await transaction.fetchval("SELECT 1 FROM lease WHERE name = $1 FOR UPDATE", second)

    results = await asyncio.gather(cross("a", "b"), cross("b", "a"), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [AbortedError]


async def test_an_exhausted_pool_sheds(migrated: ServiceDatabase) -> None:
    database = await Database.open(migrated.dsn, PoolSettings(size_max=1, acquire_timeout_seconds=0.02))
    async with database.connection():
        with pytest.raises(ResourceExhaustedError) as caught:
            await database.fetchval("SELECT 1")
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_seconds
    await database.close()


async def test_a_commit_that_arrived_holds_although_its_answer_was_lost(proxy: FaultProxy, cut_database: Database) -> None:
    async with cut_database.transaction() as transaction:
        await transaction.execute(LEASE, "kept")
        await transaction.pin()
        proxy.cut_after = b"COMMIT"
    assert proxy.cuts == 1
    assert await leases(cut_database) == ["kept"]


async def test_a_commit_that_never_arrived_is_reported_as_not_persisted(proxy: FaultProxy, cut_database: Database) -> None:
    with pytest.raises(UnavailableError):
        async with cut_database.transaction() as transaction:
            await transaction.execute(LEASE, "lost")
            await transaction.pin()
            proxy.cut_before = b"COMMIT"
    assert proxy.cuts == 1
    assert await leases(cut_database) == []


async def test_without_an_id_to_read_back_the_outcome_is_unknown(proxy: FaultProxy, cut_database: Database) -> None:
    called: list[str] = []
    with pytest.raises(OutcomeUnknownError):
        async with cut_database.transaction() as transaction:
            await transaction.execute(LEASE, "kept")
            transaction.after_commit(lambda: called.append("kept"))
            proxy.cut_after = b"COMMIT"
    assert await leases(cut_database) == ["kept"]
    assert called == []


async def test_a_line_cut_before_the_commit_means_nothing_was_persisted(proxy: FaultProxy, cut_database: Database) -> None:
    with pytest.raises(UnavailableError):
        async with cut_database.transaction() as transaction:
            await transaction.execute(LEASE, "lost")
            proxy.cut_after = b"SELECT 17"
            await transaction.fetchval("SELECT 17")
    assert await leases(cut_database) == []


async def test_appended_events_make_the_fate_readable(proxy: FaultProxy, cut_database: Database) -> None:
    store = PostgresEventStore(cut_database)
    async with cut_database.transaction() as transaction:
        (position,) = await store.append(transaction, [Commit.single("order-1", 0, EVENT)])
        await transaction.execute(LEASE, "kept")
        proxy.cut_after = b"COMMIT"
    assert [event.position for event in await store.read_stream("order-1")] == [position]
    assert await leases(cut_database) == ["kept"]
    await store.close()


async def test_a_batch_whose_answer_was_lost_is_unknown_and_readable_by_key(proxy: FaultProxy, cut_database: Database) -> None:
    store = PostgresEventStore(cut_database)
    await store.commit([Commit.single("order-0", 0, EVENT)])
    proxy.cut_after = b"order-1"
    with pytest.raises(OutcomeUnknownError):
        await store.commit([Commit.single("order-1", 0, EVENT)])
    assert await store.heads(["order-1"]) == {"order-1": 1}
    proxy.cut_before = b"order-2"
    with pytest.raises(OutcomeUnknownError):
        await store.commit([Commit.single("order-2", 0, EVENT)])
    assert await store.heads(["order-2"]) == {"order-2": 0}
    (outcome,) = await store.commit([Commit.single("order-2", 0, EVENT)])
    assert isinstance(outcome, LogPosition)
    await store.close()


async def test_the_breaker_opens_on_a_dead_server_and_closes_after_it(proxy: FaultProxy) -> None:
    breaker = Breaker("postgres", failures_max=3, reset_seconds=0.05, reason=Reason.DATABASE_UNAVAILABLE)
    database = await Database.open(proxy.dsn, breaker=breaker)
    proxy.silence()
    for _ in range(5):
        with pytest.raises(UnavailableError):
            await database.fetchval("SELECT 1")
    assert breaker.state == "open"
    proxy.speak()

    async with asyncio.timeout(10):
        while breaker.state != "closed":
            with contextlib.suppress(UnavailableError):
                await database.fetchval("SELECT 1")
            await asyncio.sleep(0)
    assert breaker.state == "closed"
    await database.close()


async def test_nothing_listens(tmp_path: Path, service_database: ServiceDatabase) -> None:
    dsn = Dsn(f"postgresql://nobody:x@/trademesh?host={tmp_path}")
    with pytest.raises(UnavailableError):
        await Database.open(dsn)
    with pytest.raises(UnavailableError):
        await migrate(dsn, service_database.role, [KERNEL_MIGRATIONS])
    wrong = Dsn(service_database.dsn.reveal().replace(":", ":wrong", 2).replace("postgresql:wrong", "postgresql:"))
    with pytest.raises(UnavailableError):
        await Database.open(wrong)


async def test_a_warm_pool_has_all_its_connections_and_knows_its_types(migrated: ServiceDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first calls after a start, often many at once, then pay for neither."""
    settings = PoolSettings(application_name="warm")
    database = await Database.open(migrated.dsn, settings)
    try:
        connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'warm'"
        assert await database.fetchval(connections) == 1
        await database.warm("SELECT NULL::lease[]")
        assert await database.fetchval(connections) == settings.size_max
        asked: list[object] = []

        async def introspected(self: object, types: object, timeout: object) -> None:
            asked.append(types)

        monkeypatch.setattr(asyncpg.Connection, "_introspect_types", introspected)

        async def use() -> None:
            await database.fetch("SELECT $1::int[], $2::bytea[], $3::numeric[], $4::bigint[], NULL::lease[]", [1], [b"x"], [], [])

        await asyncio.gather(*(use() for _ in range(settings.size_max)))
        assert asked == []
    finally:
        await database.close()
