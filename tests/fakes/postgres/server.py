"""A PostgreSQL of our own making, for simulations: it runs the statements that our services send, each written by hand in Python.

What it keeps of the real one is what the services lean on: READ COMMITTED transactions that are seen whole or not at all, row locks held
to the end, unique keys, transaction ids and the snapshot horizon behind which a log is settled, `clock_timestamp`, notifications, and a
commit whose fate can be asked for. A statement that it does not know is an error: whoever changes SQL changes its double as well, and the
contract suites hold both to the same behaviour.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg

from kernel.ports import RecordedEvent
from tests.fakes.postgres.eventlog import EventLog
from tests.fakes.postgres.locks import Locks
from tests.fakes.postgres.rows import Row

Handler = Callable[..., Awaitable[list[Row]]]
"""Runs one statement: `(transaction, *arguments)` to rows."""

Listener = Callable[..., object]
Result = TypeVar("Result")
Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One transaction that wrote events, as the write-ahead log would tell of it: in order of commits, at the simulation's time."""

    number: int
    tx: int
    moment: float
    events: tuple[RecordedEvent, ...]


@dataclass(slots=True, eq=False)
class Tx:
    """A transaction: what it has written and nobody else sees yet."""

    server: MemoryPostgres
    xid: int | None = None
    writes: dict[str, dict[Hashable, Row | None]] = field(default_factory=dict)
    events: list[RecordedEvent] = field(default_factory=list)
    notifications: list[str] = field(default_factory=list)
    snapshot: dict[str, dict[Hashable, Row]] | None = None
    failed: bool = False

    def own_xid(self) -> int:
        """Return the transaction's id, taken when it first writes or locks."""
        if self.xid is None:
            self.xid = self.server.begin_writing(self)
        return self.xid

    def now(self) -> datetime:
        """Return `clock_timestamp()`."""
        return self.server.now()

    async def lock(self, table: str, key: Hashable, *, exclusive: bool = True) -> None:
        """Lock a row, existing or not, until the end."""
        self.own_xid()
        await self.server.locks.acquire(self, (table, key), exclusive=exclusive)

    async def lock_all(self, table: str, keys: Sequence[Hashable], *, exclusive: bool = True) -> None:
        """Lock rows in the given order."""
        for key in keys:
            await self.lock(table, key, exclusive=exclusive)

    def get(self, table: str, key: Hashable) -> Row | None:
        """Return a row as this transaction sees it."""
        own = self.writes.get(table)
        if own is not None and key in own:
            return own[key]
        return (self.server.tables if self.snapshot is None else self.snapshot)[table].get(key)

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of a table as this transaction sees them."""
        own = self.writes.get(table, {})
        for key, row in (self.server.tables if self.snapshot is None else self.snapshot)[table].items():
            if key not in own:
                yield row
        yield from (row for row in own.values() if row is not None)

    def put(self, table: str, key: Hashable, row: Row) -> None:
        """Write a row; it must be locked."""
        self.own_xid()
        self.writes.setdefault(table, {})[key] = row

    def delete(self, table: str, key: Hashable) -> None:
        """Delete a row; it must be locked."""
        self.own_xid()
        self.writes.setdefault(table, {})[key] = None

    async def claim(self, table: str, key: Hashable) -> bool:
        """Take a key that nobody has, waiting for whoever is about to insert it; what exists already is neither locked nor waited for."""
        if self.get(table, key) is not None:
            return False
        await self.lock(table, key)
        if self.get(table, key) is None:
            return True
        self.server.locks.release_one(self, (table, key))
        return False

    async def insert(self, table: str, key: Hashable, row: Row) -> None:
        """Insert a row under a unique key.

        Raises:
            asyncpg.UniqueViolationError: the key is taken.
        """
        await self.lock(table, key)
        if self.get(table, key) is not None:
            raise asyncpg.UniqueViolationError(f"duplicate key in {table}")
        self.put(table, key, row)

    def next_number(self, sequence: str) -> int:
        """Return the next number of a sequence; like the real ones, it is used up whatever becomes of the transaction."""
        self.server.sequences[sequence] += 1
        return self.server.sequences[sequence]

    def freeze(self) -> None:
        """Go on with one snapshot: REPEATABLE READ."""
        self.snapshot = {name: dict(table) for name, table in self.server.tables.items()}


class MemoryPostgres:
    """The server.

    Args:
        tables: names of the schema's tables.
        statements: what it knows to run, by text.
        clock: its wall clock.
        moment: the simulation's time, for commit records.
    """

    def __init__(
        self, tables: Sequence[str], statements: Mapping[str, Handler], clock: Callable[[], datetime], moment: Callable[[], float]
    ) -> None:
        self.tables: dict[str, dict[Hashable, Row]] = {name: {} for name in tables}
        self.sequences: Counter[str] = Counter()
        self.statements = statements
        self.log = EventLog()
        self.locks = Locks()
        self.commits: list[CommitRecord] = []
        self.sessions: dict[Session, None] = {}
        self._clock = clock
        self._moment = moment
        self._last_now: datetime | None = None
        self._last_xid = 699
        self._running: dict[int, Tx] = {}
        self._status: dict[int, str] = {}

    def now(self) -> datetime:
        """Return the clock's time; two looks never see the same microsecond."""
        now = self._clock()
        if self._last_now is not None and now <= self._last_now < now + timedelta(milliseconds=50):
            now = self._last_now + _MICROSECOND
        self._last_now = now
        return now

    def begin_writing(self, transaction: Tx) -> int:
        """Give a transaction its id."""
        xid = self._last_xid = self._last_xid + 1
        self._running[xid] = transaction
        self._status[xid] = "in progress"
        return xid

    def xmin(self) -> int:
        """Return the oldest transaction that still runs, else the next one: below it everything is settled."""
        return min(self._running, default=self._last_xid + 1)

    def visible(self, xid: int) -> bool:
        """Say whether a snapshot taken now shows a transaction's writes; true for any id that is no longer running."""
        return xid <= self._last_xid and xid not in self._running

    def status_of(self, xid: int) -> str | None:
        """Return `pg_xact_status`."""
        return self._status.get(xid)

    def commit(self, transaction: Tx) -> None:
        """Make a transaction's writes everybody's."""
        for table, written in transaction.writes.items():
            for key, row in written.items():
                if row is None:
                    self.tables[table].pop(key, None)
                else:
                    self.tables[table][key] = row
        if transaction.events:
            assert transaction.xid is not None
            self.log.add(transaction.events)
            self.commits.append(CommitRecord(len(self.commits) + 1, transaction.xid, self._moment(), tuple(transaction.events)))
        self._end(transaction, "committed")
        for channel in transaction.notifications:
            for session in self.sessions:
                session.notify(channel)

    def roll_back(self, transaction: Tx) -> None:
        """Forget a transaction's writes."""
        self._end(transaction, "aborted")

    def _end(self, transaction: Tx, status: str) -> None:
        if transaction.xid is not None:
            del self._running[transaction.xid]
            self._status[transaction.xid] = status
        self.locks.release(transaction)


class Session:
    """The server's side of one connection: one statement at a time, in a transaction of its own unless one was begun."""

    def __init__(self, server: MemoryPostgres) -> None:
        self.server = server
        self.transaction: Tx | None = None
        self.closed = False
        self._listeners: dict[str, Listener] = {}
        self.running: asyncio.Task[Any] | None = None
        server.sessions[self] = None

    async def run(self, sql: str, arguments: Sequence[Any]) -> tuple[str, list[Row]]:
        """Run a statement and return its tag and rows.

        Raises:
            asyncpg.PostgresError: as the real server.
        """
        if self.closed:
            raise asyncpg.AdminShutdownError("terminating connection")
        if sql == "BEGIN":
            self.transaction = Tx(self.server)
            return "BEGIN", []
        if sql in ("COMMIT", "ROLLBACK"):
            return self._finish(commit=sql == "COMMIT"), []
        if self.transaction is not None:
            return "OK", await self._within(self.transaction, sql, arguments)
        alone = Tx(self.server)
        try:
            found = await self._execute(alone, sql, arguments)
        except BaseException:
            self.server.roll_back(alone)
            raise
        self.server.commit(alone)
        return "OK", found

    async def _within(self, transaction: Tx, sql: str, arguments: Sequence[Any]) -> list[Row]:
        if transaction.failed:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        try:
            return await self._execute(transaction, sql, arguments)
        except BaseException:
            transaction.failed = True
            raise

    async def _execute(self, transaction: Tx, sql: str, arguments: Sequence[Any]) -> list[Row]:
        handler = self.server.statements.get(sql)
        if handler is None:
            raise UnknownStatementError(sql)
        return await handler(transaction, *arguments)

    def _finish(self, *, commit: bool) -> str:
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            return "ROLLBACK"
        if commit and not transaction.failed:
            self.server.commit(transaction)
            return "COMMIT"
        self.server.roll_back(transaction)
        return "ROLLBACK"

    def start(
        self, work: Coroutine[Any, Any, Result], spawn: Callable[[Coroutine[Any, Any, Result]], asyncio.Task[Result]]
    ) -> asyncio.Task[Result]:
        """Start the work of a statement on the server, where it goes on whatever becomes of the client."""
        task = spawn(work)
        self.running = task
        return task

    def close(self) -> None:
        """End the session as a backend that finds its client gone: what it was doing is canceled and rolled back."""
        self.closed = True
        self.server.sessions.pop(self, None)
        if self.running is not None and not self.running.done():
            self.running.cancel()
        if self.transaction is not None:
            transaction, self.transaction = self.transaction, None
            self.server.roll_back(transaction)

    def listen(self, channel: str, listener: Listener) -> None:
        """Call a listener on each notification."""
        self._listeners[channel] = listener

    def notify(self, channel: str) -> None:
        """Deliver a notification."""
        listener = self._listeners.get(channel)
        if listener is not None:
            asyncio.get_running_loop().call_soon(listener, None, 0, channel, "")


class UnknownStatementError(AssertionError):
    """A service sent a statement that has no double here: write it, in `tests/fakes/postgres`."""
