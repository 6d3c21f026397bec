"""A small pool of PostgreSQL connections, transactions with a known end, and one place where driver errors become domain errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from kernel.breaker import Breaker
from kernel.config import Dsn
from kernel.errors import InternalError, OutcomeUnknownError, Reason, ResourceExhaustedError, TrademeshError, UnavailableError
from kernel.postgres.driver_errors import RETRY_SECONDS, domain_error, is_connection_loss, mapped_errors

POOL_SIZE_MAX = 4
"""Connections per replica: throughput comes from batching, and every connection costs the server memory."""

# asyncpg knows arrays of text by heart and asks the server for any other type, once per connection.
_ARRAYS = "SELECT " + ", ".join(
    f"NULL::{name}[]" for name in ("boolean", "bytea", "date", "smallint", "integer", "bigint", "numeric", "timestamptz", "uuid")
)

# asyncpg's classes are generic for type checkers only, hence the quotes.
Record = asyncpg.Record
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Bounds of a pool; all durations in seconds."""

    size_max: int = POOL_SIZE_MAX
    statement_timeout_seconds: float = 5.0
    acquire_timeout_seconds: float = 2.0
    connect_timeout_seconds: float = 5.0
    settle_timeout_seconds: float = 2.0
    application_name: str = "trademesh"

    def __post_init__(self) -> None:
        if not 1 <= self.size_max <= POOL_SIZE_MAX:
            raise ValueError(f"size_max must be 1 to {POOL_SIZE_MAX}: {self.size_max}")


class Transaction:
    """An open transaction. Statements raise domain errors; after one failed, only the end of the block remains."""

    __slots__ = ("_after_commit", "connection", "own_tx")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.own_tx: int | None = None
        self._after_commit: list[Callable[[], None]] = []

    async def execute(self, sql: str, *arguments: object) -> str:
        """Run a statement and return its command tag."""
        with mapped_errors():
            return await self.connection.execute(sql, *arguments)

    async def fetch(self, sql: str, *arguments: object) -> list[Record]:
        """Run a query and return all rows; bound them with LIMIT."""
        with mapped_errors():
            return await self.connection.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> Record | None:
        """Run a query and return its first row."""
        with mapped_errors():
            return await self.connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: object) -> Any:
        """Run a query and return the first column of its first row."""
        with mapped_errors():
            return await self.connection.fetchval(sql, *arguments)

    async def pin(self) -> None:
        """Fetch this transaction's id, so that its fate can be read back if the answer to COMMIT is lost. Costs a round trip;
        appending events does it on the way.
        """
        self.own_tx = await self.fetchval("SELECT pg_current_xact_id()")

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run a quick callback once the commit is certain; never after a rollback."""
        self._after_commit.append(callback)

    def committed(self) -> None:
        """Run the callbacks; called by `Database`."""
        for callback in self._after_commit:
            callback()


class Database:
    """A pool of at most four connections to one service's schema, behind a circuit breaker. Made by `open`."""

    def __init__(self, pool: _Pool, dsn: Dsn, settings: PoolSettings, breaker: Breaker) -> None:
        self._pool = pool
        self._dsn = dsn
        self._settings = settings
        self.breaker = breaker

    @classmethod
    async def open(cls, dsn: Dsn, settings: PoolSettings | None = None, *, breaker: Breaker | None = None) -> Database:
        """Connect once, to fail early, and return the pool.

        Raises:
            UnavailableError: the server does not answer or does not let us in.
        """
        settings = settings or PoolSettings()
        with mapped_errors():
            pool: _Pool = await asyncpg.create_pool(
                dsn.reveal(),
                min_size=1,
                max_size=settings.size_max,
                reset=_keep_session,
                max_inactive_connection_lifetime=0,
                max_cached_statement_lifetime=0,
                timeout=settings.connect_timeout_seconds,
                command_timeout=settings.statement_timeout_seconds + 1,
                server_settings=_session_settings(settings),
            )
        return cls(pool, dsn, settings, breaker or Breaker("postgres", reason=Reason.DATABASE_UNAVAILABLE))

    async def warm(self, *probes: str) -> None:
        """Open all connections of the pool, and let the driver ask for the array types that bulk statements use, once on each.

        Else the first calls after a start pay for that, some 10 to 30 ms each on a busy machine.

        Args:
            probes: queries without effect whose columns have the service's own composite types.

        Raises:
            UnavailableError, ResourceExhaustedError: the server does not answer, or connections are in use.
        """
        async with contextlib.AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(self.connection()) for _ in range(self._settings.size_max)]
            for connection in connections:
                for probe in (_ARRAYS, *probes):
                    await connection.fetch(probe)

    async def close(self) -> None:
        """Wait briefly for borrowed connections, then close all."""
        try:
            await asyncio.wait_for(self._pool.close(), self._settings.statement_timeout_seconds)
        except TimeoutError:
            self._pool.terminate()

    async def dedicated(self) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection outside the pool, e.g. to LISTEN; the caller closes it.

        Raises:
            UnavailableError: the server does not answer.
        """
        with mapped_errors():
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                self._dsn.reveal(),
                timeout=self._settings.connect_timeout_seconds,
                command_timeout=self._settings.statement_timeout_seconds + 1,
                server_settings=_session_settings(self._settings),
            )
            return connection

    async def fetch(self, sql: str, *arguments: object) -> list[Record]:
        """Run one query outside a transaction and return all rows; bound them with LIMIT.

        Raises:
            UnavailableError, ResourceExhaustedError: no answer, or no connection free in time.
        """
        async with self.connection() as connection:
            return await connection.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> Record | None:
        """Like `fetch`; the first row."""
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: object) -> Any:
        """Like `fetch`; the first column of the first row."""
        async with self.connection() as connection:
            return await connection.fetchval(sql, *arguments)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection for statements that each commit themselves; for reads, since a lost answer is reported as unavailable.

        Raises:
            UnavailableError: the server does not answer, or the breaker is open.
            ResourceExhaustedError: no connection became free in time.
        """
        with self.breaker.guard(), mapped_errors():
            async with self._borrowed() as connection:
                yield connection

    @asynccontextmanager
    async def write_connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection for a single statement that writes and commits by itself.

        Raises:
            OutcomeUnknownError: the connection was lost before the answer came; the statement may have taken effect.
            UnavailableError, ResourceExhaustedError: nothing was persisted.
        """
        with self.breaker.guard(), mapped_errors():
            async with self._borrowed() as connection:
                try:
                    yield connection
                except Exception as error:
                    if is_connection_loss(error):
                        raise _outcome_unknown() from error
                    raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Run the block in one READ COMMITTED transaction: committed at its end, rolled back if it raises.

        If the answer to COMMIT is lost and the transaction's id is known (`Transaction.pin`, or an append of events), its fate is read
        back from the server, and the block ends as the transaction did.

        Raises:
            UnavailableError: nothing was persisted.
            ResourceExhaustedError: no connection became free in time.
            AbortedError, AlreadyExistsError: a conflict; nothing was persisted.
            OutcomeUnknownError: COMMIT was sent, its answer was lost, and the fate could not be read back.
        """
        with self.breaker.guard():
            async with self._borrowed() as connection:
                transaction = Transaction(connection)
                with mapped_errors():
                    await connection.execute("BEGIN")
                try:
                    with mapped_errors():
                        yield transaction
                except BaseException:
                    await _roll_back(connection)
                    raise
                await self._commit(transaction)
        transaction.committed()

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Connection]:
        try:
            connection = await self._pool.acquire(timeout=self._settings.acquire_timeout_seconds)
        except TimeoutError as error:
            raise ResourceExhaustedError(
                Reason.OVERLOADED, "no database connection became free in time", retry_after_seconds=RETRY_SECONDS
            ) from error
        except Exception as error:
            raise domain_error(error) from error
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    async def _commit(self, transaction: Transaction) -> None:
        try:
            tag = await transaction.connection.execute("COMMIT")
        except Exception as error:
            if not is_connection_loss(error):
                raise domain_error(error) from error
            await self._settle(transaction.own_tx, error)
            return
        if tag != "COMMIT":
            # A statement failed and the block went on as if it had not: the server rolled back.
            raise InternalError(Reason.INTERNAL, "a transaction with a failed statement was committed")

    async def _settle(self, own_tx: int | None, cause: Exception) -> None:
        """Find out on another connection whether a transaction committed; return if it did."""
        if own_tx is None:
            raise _outcome_unknown() from cause
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.settle_timeout_seconds
        pause_seconds = 0.005
        while loop.time() < deadline:
            status = await self._status_of(own_tx)
            if status == "committed":
                return
            if status == "aborted":
                raise UnavailableError(
                    Reason.DATABASE_UNAVAILABLE, "the connection was lost before the commit", retry_after_seconds=RETRY_SECONDS
                ) from cause
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, 0.2)
        raise _outcome_unknown() from cause

    async def _status_of(self, own_tx: int) -> str | None:
        try:
            connection = await self.dedicated()
        except TrademeshError:
            return None
        try:
            status: str | None = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", str(own_tx))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            return None
        else:
            return status
        finally:
            connection.terminate()


def _session_settings(settings: PoolSettings) -> dict[str, str]:
    return {
        "application_name": settings.application_name,
        "jit": "off",
        "statement_timeout": str(int(settings.statement_timeout_seconds * 1000)),
        "timezone": "UTC",
    }


async def _keep_session(connection: Connection) -> None:
    """Replace asyncpg's reset, a round trip at each release: pooled sessions here hold no listeners, settings or session locks."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


async def _roll_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        # The session cannot be trusted; without it the server rolls back by itself. A lost one has left the pool already.
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.terminate()


def _outcome_unknown() -> OutcomeUnknownError:
    return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "the answer to the commit was lost; look the key up")
