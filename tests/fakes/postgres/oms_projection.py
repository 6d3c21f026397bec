"""What a batch of events changes in the order service's tables: `event_extend` and `orders_project` in one statement, with keys or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from tests.fakes.postgres.kernel_statements import extend, lock_heads
from tests.fakes.postgres.rows import Row, array, columns, integers, rows, texts
from tests.fakes.postgres.server import Tx

_ORDER = columns(
    "order_id", "sequence", "account_id", "tenant", "principal", "instrument_id", "venue", "side", "state", "open", "version", "snapshot"
)
_EXECUTION = columns("venue", "trade_date", "exec_id", "sequence", "order_id", "account_id", "instrument_id", "payload")
_KEY = columns("account_id", "request_id", "command_hash", "answer", "tx", "position", "created_at")
_REQUEST = columns("venue_client_order_id", "number", "venue", "order_id", "action", "requested_at", "sent_at", "overdue")


async def insert_order(
    tx: Tx, order_id: str, described: tuple[Any, ...], state: int, *, is_open: bool, version: int, snapshot: bytes
) -> None:
    """Insert a row of `orders`."""
    sequence = tx.next_number("orders")
    await tx.insert("orders", order_id, Row(_ORDER, (order_id, sequence, *described, state, is_open, version, snapshot)))


async def queue(tx: Tx, request: str, venue: str, order_id: str, action: int) -> None:
    """Insert a row of `venue_request`."""
    number = tx.next_number("venue_request")
    row = Row(_REQUEST, (request, number, venue, order_id, int(action), tx.now(), None, False))
    await tx.insert("venue_request", request, row)


async def record(tx: Tx, *arguments: Any) -> list[Row]:
    """`event_extend`, and `orders_project` after it."""
    return rows(("tx", "own_tx", "last_position"), [await _record(tx, *arguments)])


async def change(tx: Tx, *arguments: Any) -> list[Row]:
    """`orders_change`: heads, then `record` unless there is nothing to record, then keys."""
    recorded, (streams, versions, *answers) = arguments[:-6], arguments[-6:]
    (heads,) = await lock_heads(tx, texts(streams))
    if heads[0] != integers(versions):
        raise asyncpg.SerializationError("an order is not as it was looked at")
    log_tx, _, last = await _record(tx, *recorded) if texts(recorded[0]) else (0, 0, 0)
    for account_id, request_id, *answer in zip(*answers, strict=True):
        if not await write_key(tx, account_id, request_id, *answer, log_tx, last):
            raise asyncpg.SerializationError("a key was answered meanwhile")
    return rows(("tx", "last_position"), [(log_tx, last)])


async def write_key(tx: Tx, account_id: str, request_id: str, *answer: Any) -> bool:
    """Insert a row of `request_key`; say whether the key was free."""
    key = (account_id, request_id)
    if not await tx.claim("request_key", key):
        return False
    tx.put("request_key", key, Row(_KEY, (*key, *answer, tx.now())))
    return True


async def _record(tx: Tx, *arguments: Any) -> tuple[int, int, int]:
    streams, expected, count, event_stream, event_version, event_type, payloads, start, length = arguments[:9]
    extended = await extend(
        tx,
        texts(streams),
        integers(expected),
        integers(count),
        texts(event_stream),
        integers(event_version),
        texts(event_type),
        payloads,
        integers(start),
        integers(length),
    )
    await _project(tx, *[read(argument) for read, argument in zip(_PROJECTED, arguments[9:], strict=True)])
    return extended


async def _project(tx: Tx, *arguments: Sequence[Any]) -> None:
    new, changed, queued = (list(zip(*arguments[a:b], strict=True)) for a, b in ((0, 11), (11, 16), (16, 20)))
    sent, overdue, answered = arguments[20:23]
    executions = list(zip(*arguments[23:30], strict=True))
    for order_id, *described, state, is_open, version, snapshot in new:
        await insert_order(tx, order_id, tuple(described), int(state), is_open=is_open, version=version, snapshot=snapshot)
    for order_id, state, is_open, version, snapshot in changed:
        await tx.lock("orders", order_id)
        row = tx.get("orders", order_id)
        if row is not None:
            tx.put("orders", order_id, row.replace(state=int(state), open=is_open, version=version, snapshot=snapshot))
    for request, venue, order_id, action in queued:
        await queue(tx, request, venue, order_id, action)
    for request in sent:
        await _change_request(tx, request, sent_at=tx.now())
    for request in overdue:
        await _change_request(tx, request, overdue=True)
    await forget(tx, answered)
    for venue, trade_date, exec_id, *described in executions:
        row = Row(_EXECUTION, (venue, trade_date, exec_id, tx.next_number("execution"), *described))
        await tx.insert("execution", (venue, trade_date, exec_id), row)


def _flags(literal: str) -> list[bool]:
    return array(literal, lambda item: item == "True")


# How the arguments of `orders_project` are read, in its order.
_PROJECTED: tuple[Callable[[Any], Sequence[Any]], ...] = (
    *(texts,) * 6, integers, integers, _flags, integers, list,
    texts, integers, _flags, integers, list,
    *(texts,) * 3, integers,
    *(texts,) * 3,
    *(texts,) * 6, list,
)  # fmt: skip


async def _change_request(tx: Tx, request: str, **changes: Any) -> None:
    if tx.get("venue_request", request) is None:
        return
    await tx.lock("venue_request", request)
    row = tx.get("venue_request", request)
    if row is not None:
        tx.put("venue_request", request, row.replace(**changes))


async def forget(tx: Tx, requests: Sequence[str]) -> list[Row]:
    """Delete rows of `venue_request`."""
    for request in requests:
        if tx.get("venue_request", request) is not None:
            await tx.lock("venue_request", request)
            tx.delete("venue_request", request)
    return []
