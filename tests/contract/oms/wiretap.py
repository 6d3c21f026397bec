"""Listens to the statements that a replica sends to its database, and disturbs some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from kernel.events import postgres as events
from kernel.postgres import Database


class Wiretap:
    """Put into a database's pool when it is made.

    Attributes:
        sent: the statements, in order; not the notifications of the log, which nobody waits for.
        before: by statement, what happens once before it is sent.
        lost: statements that run, and whose answers are lost; once each.
        cut: statements that are lost themselves; once each.
    """

    def __init__(self, database: Database) -> None:
        self.sent: list[str] = []
        self.before: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.lost: set[str] = set()
        self.cut: set[str] = set()
        self._borrow: Any = database._borrowed
        database._borrowed = self._borrowed  # type: ignore[method-assign]

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Any]:
        async with self._borrow() as connection:
            yield _Tapped(connection, self)

    async def pass_on(self, sql: str, send: Callable[..., Awaitable[Any]], arguments: tuple[object, ...]) -> Any:
        """Send a statement and return its answer.

        Raises:
            ConnectionResetError: it was to be lost.
        """
        if sql != events._NOTIFY:
            self.sent.append(sql)
        happen = self.before.pop(sql, None)
        if happen is not None:
            await happen()
        if sql in self.cut:
            self.cut.discard(sql)
            raise ConnectionResetError("the statement was lost")
        answer = await send(sql, *arguments)
        if sql in self.lost:
            self.lost.discard(sql)
            raise ConnectionResetError("the answer was lost")
        return answer


class _Tapped:
    """A connection whose statements pass through a wiretap."""

    def __init__(self, connection: Any, tap: Wiretap) -> None:
        self._connection = connection
        self._tap = tap

    async def execute(self, sql: str, *arguments: object) -> Any:
        return await self._tap.pass_on(sql, self._connection.execute, arguments)

    async def fetch(self, sql: str, *arguments: object) -> Any:
        return await self._tap.pass_on(sql, self._connection.fetch, arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> Any:
        return await self._tap.pass_on(sql, self._connection.fetchrow, arguments)

    async def fetchval(self, sql: str, *arguments: object) -> Any:
        return await self._tap.pass_on(sql, self._connection.fetchval, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
