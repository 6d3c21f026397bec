"""What clients read: orders and executions of an account, page by page, no older than they ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from kernel.errors import Reason, UnavailableError
from kernel.ports import LogPosition
from kernel.postgres import Database
from svc_oms.store.kill_switches import Scope, Switch

OPEN_ORDERS_MAX = 10_000
"""Orders that one CancelAllOrders or kill switch takes at a time."""

POSITION_WAIT_SECONDS = 1.0
_POSITION_PAUSE_SECONDS = 0.01

_ORDER = "SELECT account_id, tenant, version, snapshot FROM orders WHERE order_id = $1"
_EXISTING = "SELECT order_id FROM orders WHERE order_id = ANY ($1::text[])"
# Each half walks the index backwards and stops at the limit.
_LIST = """
SELECT sequence, snapshot FROM (
    (SELECT sequence, snapshot FROM orders
     WHERE account_id = $1 AND open AND sequence < $2 AND ($3 = '' OR instrument_id = $3)
         AND (cardinality($4::smallint[]) = 0 OR state = ANY ($4::smallint[]))
     ORDER BY sequence DESC LIMIT $5)
    UNION ALL
    (SELECT sequence, snapshot FROM orders
     WHERE account_id = $1 AND NOT open AND sequence < $2 AND ($3 = '' OR instrument_id = $3)
         AND CASE WHEN cardinality($4::smallint[]) = 0 THEN state <> 12 ELSE state = ANY ($4::smallint[]) END
     ORDER BY sequence DESC LIMIT $5)
) halves
ORDER BY sequence DESC LIMIT $5
"""
_LIST_OPEN = """
SELECT sequence, snapshot FROM orders
WHERE account_id = $1 AND open AND sequence < $2 AND ($3 = '' OR instrument_id = $3)
    AND (cardinality($4::smallint[]) = 0 OR state = ANY ($4::smallint[]))
ORDER BY sequence DESC LIMIT $5
"""
_OPEN_FROM = """
SELECT sequence, snapshot FROM orders
WHERE account_id = $1 AND open AND sequence > $2 AND ($3 = '' OR instrument_id = $3)
ORDER BY sequence LIMIT $4
"""
_OPEN_OF_ACCOUNT = """
SELECT order_id FROM orders
WHERE account_id = $1 AND tenant = $2 AND open AND ($3 = '' OR instrument_id = $3) AND ($4 = 0 OR side = $4)
ORDER BY sequence LIMIT $5
"""
_OPEN_COVERED = """
SELECT order_id FROM orders
WHERE open AND CASE $1::smallint WHEN 1 THEN true WHEN 2 THEN account_id = $2 WHEN 3 THEN principal = $2
    WHEN 4 THEN instrument_id = $2 WHEN 5 THEN tenant = $2 ELSE false END
ORDER BY order_id LIMIT $3
"""
_EXECUTIONS = """
SELECT sequence, payload FROM execution
WHERE account_id = $1 AND sequence < $2 AND ($3 = '' OR instrument_id = $3)
ORDER BY sequence DESC LIMIT $4
"""
_EXECUTIONS_OF_ORDER = """
SELECT sequence, payload FROM execution
WHERE order_id = $5 AND account_id = $1 AND sequence < $2 AND ($3 = '' OR instrument_id = $3)
ORDER BY sequence DESC LIMIT $4
"""
_TENANT = "SELECT tenant FROM orders WHERE account_id = $1 AND tenant <> '' LIMIT 1"
# Settled, or visible though an older transaction still runs: both mean that this snapshot shows it.
_REACHED = """
SELECT $1::text::xid8 < pg_snapshot_xmin(pg_current_snapshot())
    OR EXISTS (SELECT 1 FROM event WHERE tx = $1::text::xid8 AND position >= $2)
"""


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as the read model keeps it; `tenant` is empty on one that was abandoned."""

    account_id: str
    tenant: str
    version: int
    snapshot: bytes


@dataclass(frozen=True, slots=True)
class PageRow:
    """A row of a page: where it stands, and the serialized message."""

    sequence: int
    message: bytes


class OrderReads:
    """Queries of one replica. Every answer is what the database shows now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def order(self, order_id: str) -> OrderRow | None:
        """Return an order."""
        row = await self._database.fetchrow(_ORDER, order_id)
        return None if row is None else OrderRow(row["account_id"], row["tenant"], row["version"], row["snapshot"])

    async def existing(self, order_ids: Sequence[str]) -> frozenset[str]:
        """Return those of the orders that exist."""
        return frozenset(row["order_id"] for row in await self._database.fetch(_EXISTING, list(order_ids)))

    async def tenant_of(self, account_id: str) -> str | None:
        """Return the tenant that the account's orders carry; None while it has none."""
        tenant: str | None = await self._database.fetchval(_TENANT, account_id)
        return tenant

    async def page(
        self, account_id: str, *, before: int, instrument_id: str, states: Sequence[int], open_only: bool, limit: int
    ) -> list[PageRow]:
        """Return at most `limit` orders of an account below a sequence, newest first; empty filters mean all."""
        sql = _LIST_OPEN if open_only else _LIST
        rows = await self._database.fetch(sql, account_id, before, instrument_id, list(states), limit)
        return [PageRow(row["sequence"], row["snapshot"]) for row in rows]

    async def open_page(self, account_id: str, *, after: int, instrument_id: str, limit: int) -> list[PageRow]:
        """Return at most `limit` open orders of an account above a sequence, oldest first."""
        rows = await self._database.fetch(_OPEN_FROM, account_id, after, instrument_id, limit)
        return [PageRow(row["sequence"], row["snapshot"]) for row in rows]

    async def executions(self, account_id: str, *, before: int, instrument_id: str, order_id: str, limit: int) -> list[PageRow]:
        """Return at most `limit` executions of an account below a sequence, newest first; empty filters mean all."""
        if order_id:
            rows = await self._database.fetch(_EXECUTIONS_OF_ORDER, account_id, before, instrument_id, limit, order_id)
        else:
            rows = await self._database.fetch(_EXECUTIONS, account_id, before, instrument_id, limit)
        return [PageRow(row["sequence"], row["payload"]) for row in rows]

    async def open_of_account(self, account_id: str, tenant: str, *, instrument_id: str, side: int) -> list[str]:
        """Return the open orders of an account, oldest first, at most 10,000; empty filters mean all."""
        rows = await self._database.fetch(_OPEN_OF_ACCOUNT, account_id, tenant, instrument_id, side, OPEN_ORDERS_MAX)
        return [row["order_id"] for row in rows]

    async def open_covered(self, switch: Switch) -> list[str]:
        """Return open orders that a kill switch covers, at most 10,000."""
        assert switch.scope in Scope
        rows = await self._database.fetch(_OPEN_COVERED, switch.scope.value, switch.scope_id, OPEN_ORDERS_MAX)
        return [row["order_id"] for row in rows]

    async def wait_for(self, position: LogPosition, *, wait_seconds: float = POSITION_WAIT_SECONDS) -> None:
        """Return once a read shows the position.

        Raises:
            UnavailableError: DEPENDENCY_UNAVAILABLE, it was not reached in time; a lagging read replica, or a position of another log.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while not await self._database.fetchval(_REACHED, str(position.tx), position.position):
            if loop.time() >= deadline:
                raise UnavailableError(
                    Reason.DEPENDENCY_UNAVAILABLE,
                    f"the log has not reached position {position}",
                    retry_after_seconds=wait_seconds,
                )
            await asyncio.sleep(_POSITION_PAUSE_SECONDS)
