"""The double's connections, shaped like asyncpg's, so that `kernel.postgres.Database` and all above it run unchanged.

A wire stands between client and server. It decides how long messages travel and which are lost; the one here loses none and takes no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum
from typing import Any, Protocol, cast

import asyncpg

from kernel.breaker import Breaker
from kernel.config import Dsn
from kernel.errors import Reason
from kernel.postgres import Database, PoolSettings
from kernel.postgres.driver_errors import mapped_errors
from tests.fakes.postgres.rows import Row
from tests.fakes.postgres.server import Listener, MemoryPostgres, Session

COMMAND_SECONDS_MAX = 6.0


class Loss(Enum):
    """What becomes of a statement on its way."""

    NONE = "none"
    REQUEST = "request"
    """The connection breaks before the server reads it."""
    ANSWER = "answer"
    """The server runs it, and the connection breaks before the answer is read."""


class Wire(Protocol):
    """The way between one client and the server."""

    def fate(self, sql: str) -> Loss:
        """Decide what becomes of a statement."""
        ...

    def delay(self) -> float:
        """Return how long the next message travels, in seconds."""
        ...

    def hang_up(self) -> float:
        """Return how long the server takes to notice that the client is gone, in seconds."""
        ...

    def connects(self) -> bool:
        """Say whether a connection can be made now."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work on the server's side."""
        ...


class DirectWire:
    """A wire without length."""

    def fate(self, sql: str) -> Loss:
        """See `Wire.fate`."""
        return Loss.NONE

    def delay(self) -> float:
        """See `Wire.delay`."""
        return 0.0

    def hang_up(self) -> float:
        """See `Wire.hang_up`."""
        return 0.0

    def connects(self) -> bool:
        """See `Wire.connects`."""
        return True

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """See `Wire.spawn`."""
        return asyncio.get_running_loop().create_task(work)


class MemoryConnection:
    """The client's side of a connection."""

    def __init__(self, server: MemoryPostgres, wire: Wire) -> None:
        self._session = Session(server)
        self._wire = wire
        self._broken = False
        self._in_transaction = False
        self._ended: list[Callable[[Any], object]] = []

    async def execute(self, sql: str, *arguments: object) -> str:
        """See `asyncpg.Connection.execute`."""
        return (await self._run(sql, arguments))[0]

    async def fetch(self, sql: str, *arguments: object) -> list[Row]:
        """See `asyncpg.Connection.fetch`."""
        return (await self._run(sql, arguments))[1]

    async def fetchrow(self, sql: str, *arguments: object) -> Row | None:
        """See `asyncpg.Connection.fetchrow`."""
        found = await self.fetch(sql, *arguments)
        return found[0] if found else None

    async def fetchval(self, sql: str, *arguments: object) -> Any:
        """See `asyncpg.Connection.fetchval`."""
        row = await self.fetchrow(sql, *arguments)
        return None if row is None else row[0]

    async def _run(self, sql: str, arguments: Sequence[object]) -> tuple[str, list[Row]]:
        self._check()
        fate = self._wire.fate(sql)
        if fate is Loss.REQUEST:
            self.sever()
            raise _lost()
        task = self._session.start(self._serve(sql, arguments, self._session.running), self._wire.spawn)
        try:
            await asyncio.wait({task}, timeout=COMMAND_SECONDS_MAX)
        except asyncio.CancelledError:
            # asyncpg asks the server to cancel, and knows afterwards how the transaction stands. What ends one arrives all the same.
            if sql not in ("COMMIT", "ROLLBACK"):
                task.cancel()
            self._note(sql)
            raise
        if not task.done():
            self.sever()
            raise TimeoutError
        if task.cancelled():
            self._break()
            raise _lost()
        tag, found = task.result()
        # At once: whoever is canceled while the answer travels leaves the connection as the server has it.
        self._note(sql)
        if fate is Loss.ANSWER:
            self.sever()
        else:
            await asyncio.sleep(self._wire.delay())
        self._check()
        return tag, found

    async def _serve(self, sql: str, arguments: Sequence[object], earlier: asyncio.Task[Any] | None) -> tuple[str, list[Row]]:
        await asyncio.sleep(self._wire.delay())
        if earlier is not None and not earlier.done():
            await asyncio.wait({earlier})
        return await self._session.run(sql, arguments)

    def _note(self, sql: str) -> None:
        if sql == "BEGIN":
            self._in_transaction = True
        elif sql in ("COMMIT", "ROLLBACK"):
            self._in_transaction = False

    def _check(self) -> None:
        if not self._broken and self._session.closed:
            self._break()
        if self._broken:
            raise _lost()

    def sever(self) -> None:
        """Break the connection; the server finds out a little later."""
        if not self._broken:
            self._break()
            asyncio.get_running_loop().call_later(self._wire.hang_up(), self._session.close)

    def _break(self) -> None:
        self._broken = True
        for callback in self._ended:
            asyncio.get_running_loop().call_soon(callback, self)

    def is_in_transaction(self) -> bool:
        """See `asyncpg.Connection.is_in_transaction`."""
        return self._in_transaction and not self._broken

    def is_closed(self) -> bool:
        """See `asyncpg.Connection.is_closed`."""
        return self._broken or self._session.closed

    def terminate(self) -> None:
        """See `asyncpg.Connection.terminate`."""
        self.sever()

    def add_termination_listener(self, callback: Callable[[Any], object]) -> None:
        """See `asyncpg.Connection.add_termination_listener`."""
        self._ended.append(callback)

    async def add_listener(self, channel: str, callback: Listener) -> None:
        """See `asyncpg.Connection.add_listener`."""
        self._check()
        self._session.listen(channel, callback)


def _lost() -> asyncpg.ConnectionDoesNotExistError:
    return asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


class MemoryPool:
    """At most `size_max` connections, lent and taken back, as `asyncpg.Pool` does."""

    def __init__(self, server: MemoryPostgres, wire: Wire, size_max: int) -> None:
        self._server = server
        self._wire = wire
        self._free = asyncio.Semaphore(size_max)
        self._idle: list[MemoryConnection] = []
        self._all: list[MemoryConnection] = []
        self.closed = False

    async def acquire(self, *, timeout: float) -> MemoryConnection:
        """Lend a connection, made anew where the idle ones are broken."""
        async with asyncio.timeout(timeout):
            await self._free.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
            return self.connect()
        except BaseException:
            self._free.release()
            raise

    def connect(self) -> MemoryConnection:
        """Make a connection.

        Raises:
            OSError: the server does not answer.
        """
        if self.closed or not self._wire.connects():
            raise ConnectionRefusedError("the server does not answer")
        connection = MemoryConnection(self._server, self._wire)
        self._all = [known for known in self._all if not known.is_closed()]
        self._all.append(connection)
        return connection

    async def release(self, connection: MemoryConnection) -> None:
        """Take a connection back."""
        try:
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK")
        except BaseException as error:
            # Also where the borrower is canceled meanwhile: nobody may borrow a transaction.
            connection.sever()
            if not isinstance(error, asyncpg.PostgresError):
                raise
        finally:
            if not connection.is_closed():
                self._idle.append(connection)
            self._free.release()

    async def close(self) -> None:
        """Close every connection."""
        self.terminate()

    def terminate(self) -> None:
        """Break every connection, and make no more: what is left of a process that was killed."""
        self.closed = True
        for connection in self._all:
            connection.sever()


class MemoryDatabase(Database):
    """The kernel's `Database` over a pool of ours."""

    def __init__(self, server: MemoryPostgres, wire: Wire | None = None, settings: PoolSettings | None = None) -> None:
        settings = settings or PoolSettings()
        self.pool = MemoryPool(server, wire or DirectWire(), settings.size_max)
        breaker = Breaker("postgres", reason=Reason.DATABASE_UNAVAILABLE)
        super().__init__(cast("Any", self.pool), Dsn("memory"), settings, breaker)

    async def dedicated(self) -> Any:
        """See `Database.dedicated`."""
        with mapped_errors():
            return self.pool.connect()
