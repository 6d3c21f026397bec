"""The router's queue: requests that wait to be sent, for an answer, or for evidence. Times are PostgreSQL's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kernel.postgres import Database, Record, Transaction
from svc_oms.domain import Action, ExecutionKey

REQUESTS_MAX = 500
"""Requests that one look returns."""

_UNSENT = """
SELECT venue_client_order_id, order_id, action, requested_at, clock_timestamp() AS now FROM venue_request
WHERE venue = $1 AND sent_at IS NULL ORDER BY number LIMIT $2
"""
_LATE = """
SELECT venue_client_order_id, order_id, action, requested_at, clock_timestamp() AS now FROM venue_request
WHERE sent_at IS NULL AND action <> 1 AND requested_at < clock_timestamp() - make_interval(secs => $1) ORDER BY number LIMIT $2
"""
_UNANSWERED = """
SELECT venue_client_order_id, order_id, action, requested_at, clock_timestamp() AS now FROM venue_request
WHERE NOT overdue AND sent_at < clock_timestamp() - make_interval(secs => $1) ORDER BY number LIMIT $2
"""
_DOUBTFUL = """
SELECT DISTINCT order_id FROM venue_request WHERE venue = $1 AND (overdue OR sent_at < $2) ORDER BY order_id LIMIT $3
"""
_OPEN_AT = "SELECT order_id FROM orders WHERE open AND venue = $1"
_FORGET = "DELETE FROM venue_request WHERE venue_client_order_id = ANY ($1::text[])"
_COUNTED = """
SELECT x.venue, x.trade_date, x.exec_id, x.order_id
FROM unnest($1::text[], $2::text[], $3::text[]) AS u (venue, trade_date, exec_id)
JOIN execution x ON x.venue = u.venue AND x.trade_date = u.trade_date AND x.exec_id = u.exec_id
"""


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request of the queue. `now` is the server's clock when it was read."""

    venue_client_order_id: str
    order_id: str
    action: Action
    requested_at: datetime
    now: datetime


async def unsent(transaction: Transaction, venue: str) -> list[QueuedRequest]:
    """Return requests that wait to be sent to a venue, oldest first."""
    return _queued(await transaction.fetch(_UNSENT, venue, REQUESTS_MAX))


async def any_unsent(database: Database, venue: str) -> bool:
    """Say whether something waits to be sent to a venue: the cheap look before a transaction."""
    return bool(await database.fetch(_UNSENT, venue, 1))


async def late(database: Database, unsent_seconds: float) -> list[QueuedRequest]:
    """Return new orders and replaces that have waited for too long, of any venue."""
    return _queued(await database.fetch(_LATE, unsent_seconds, REQUESTS_MAX))


async def unanswered(database: Database, unanswered_seconds: float) -> list[QueuedRequest]:
    """Return sent requests that nobody has answered for too long and that are not marked yet, of any venue."""
    return _queued(await database.fetch(_UNANSWERED, unanswered_seconds, REQUESTS_MAX))


async def doubtful(database: Database, venue: str, logged_on_at: datetime) -> list[str]:
    """Return orders that only the venue can speak of: unanswered for too long, or sent before the present logon."""
    rows = await database.fetch(_DOUBTFUL, venue, logged_on_at, REQUESTS_MAX)
    return [row["order_id"] for row in rows]


async def open_at(database: Database, venue: str) -> list[str]:
    """Return all orders that are open at a venue. Rare, hence without an index of its own."""
    return [row["order_id"] for row in await database.fetch(_OPEN_AT, venue)]


async def forget(transaction: Transaction, requests: Sequence[str]) -> None:
    """Take requests from the queue that need not be sent any more."""
    await transaction.execute(_FORGET, list(requests))


async def counted(transaction: Transaction, keys: Sequence[ExecutionKey]) -> dict[ExecutionKey, str]:
    """Return the order under which each of these executions is counted already."""
    rows = await transaction.fetch(_COUNTED, [key.venue for key in keys], [key.trade_date for key in keys], [key.exec_id for key in keys])
    return {ExecutionKey(row["venue"], row["trade_date"], row["exec_id"]): row["order_id"] for row in rows}


async def server_time(database: Database) -> datetime:
    """Return the server's clock."""
    now: datetime = await database.fetchval("SELECT clock_timestamp()")
    return now


def _queued(rows: Sequence[Record]) -> list[QueuedRequest]:
    return [
        QueuedRequest(row["venue_client_order_id"], row["order_id"], Action(row["action"]), row["requested_at"], row["now"]) for row in rows
    ]
