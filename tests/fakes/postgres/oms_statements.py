"""The order service's statements. `svc_oms/migrations` says what the functions among them do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from svc_oms.store import fix_sessions, keys, kill_switches, orders, reads, venue_requests
from tests.fakes.postgres import kernel_statements
from tests.fakes.postgres.kernel_statements import append, one, stream_events
from tests.fakes.postgres.oms_projection import change, forget, insert_order, queue, record, write_key
from tests.fakes.postgres.rows import Row, columns, integers, rows, texts
from tests.fakes.postgres.server import Handler, MemoryPostgres, Tx

TABLES = (*kernel_statements.TABLES, "orders", "execution", "venue_request", "request_key", "kill_switch", "fix_session", "fix_message")

_SWITCH = columns("scope", "scope_id", "active", "version", "cancel_open_orders")
_SESSION = columns("session", "next_in", "next_out")
_MESSAGE = columns("session", "sequence", "msg_type", "order_id", "body", "sent_time")

_ABANDONED = 12


def oms_server(clock: Callable[[], datetime], moment: Callable[[], float]) -> MemoryPostgres:
    """Return a server with the order service's schema, as its migrations leave it."""
    server = MemoryPostgres(TABLES, STATEMENTS, clock, moment)
    server.tables["kill_switch"][1, "*"] = Row(_SWITCH, (1, "*", False, 0, False))
    return server


# Orders and their read models.


async def _first_events(tx: Tx, streams: Sequence[str]) -> list[Row]:
    first = [found[0] for stream_id in dict.fromkeys(streams) if (found := stream_events(tx, stream_id))]
    return rows(
        ("stream_id", "type", "payload", "tx", "position"),
        [(event.stream_id, event.type, event.payload, event.position.tx, event.position.position) for event in first],
    )


async def _events_after(tx: Tx, streams: Sequence[str], versions: Sequence[int]) -> list[Row]:
    found = [event for stream_id, version in zip(streams, versions, strict=True) for event in stream_events(tx, stream_id)[version:]]
    return rows(("stream_id", "type", "payload"), [(event.stream_id, event.type, event.payload) for event in found])


async def _look(tx: Tx, streams: Sequence[str], versions: Sequence[int], accounts: Sequence[str], requests: Sequence[str]) -> list[Row]:
    names = ("account_id", "request_id", "command_hash", "answer", "tx", "position")
    events = [(*event, *(None,) * len(names)) for event in await _events_after(tx, streams, versions)]
    keys = [(None, None, None, *(key[name] for name in names)) for key in await _read_keys(tx, accounts, requests)]
    return rows(("stream_id", "type", "payload", *names), [*events, *keys])


async def _create(
    tx: Tx,
    order_literal: str,
    account_literal: str,
    tenant_literal: str,
    principal_literal: str,
    instrument_literal: str,
    venue_literal: str,
    side_literal: str,
    state_literal: str,
    type_literal: str,
    payloads: Sequence[bytes],
    snapshots: Sequence[bytes],
    arrival_literal: str,
) -> list[Row]:
    order_ids, accounts, tenants = texts(order_literal), texts(account_literal), texts(tenant_literal)
    principals, instruments, venues = texts(principal_literal), texts(instrument_literal), texts(venue_literal)
    sides, states, arrivals, types = integers(side_literal), integers(state_literal), integers(arrival_literal), texts(type_literal)
    assert list(order_ids) == sorted(set(order_ids)), "orders are given in ascending id"
    begun = {order_id for order_id in order_ids if (head := tx.get("event_stream", f"order-{order_id}")) is not None and head["version"]}
    places = [place for place, order_id in enumerate(order_ids) if order_id not in begun]
    positions: list[int | None] = [None] * len(order_ids)
    if not places:
        return rows(("tx", "positions"), [(None, positions)])
    count, streams = len(places), [f"order-{order_ids[place]}" for place in places]
    numbers, ones = list(range(1, count + 1)), [1] * count
    kinds, contents = [types[place] for place in places], [payloads[place] for place in places]
    (appended,) = await append(
        tx, streams, count, ones, numbers, numbers, [0] * count, ones, numbers, streams, ones, kinds, contents, [b""] * count
    )
    recorded = iter(appended["positions"])
    for place, met in zip(places, appended["met"], strict=True):
        positions[place] = None if met is not None else next(recorded)
    for index in sorted(range(len(order_ids)), key=lambda place: arrivals[place]):
        if positions[index] is None:
            continue
        order_id, state, venue = order_ids[index], int(states[index]), venues[index]
        described = (accounts[index], tenants[index], principals[index], instruments[index], venue, int(sides[index]))
        await insert_order(tx, order_id, described, state, is_open=state == 1, version=1, snapshot=snapshots[index])
        if state == 1:
            await queue(tx, order_id, venue, order_id, 0)
    return rows(("tx", "positions"), [(appended["tx"], positions)])


# The router's queue.


def _requests(tx: Tx, limit: int, chosen: Callable[[Row], bool]) -> list[Row]:
    found = sorted((row for row in tx.rows("venue_request") if chosen(row)), key=lambda row: row["number"])[:limit]
    names = ("venue_client_order_id", "order_id", "action", "requested_at", "now")
    return rows(names, [(row["venue_client_order_id"], row["order_id"], row["action"], row["requested_at"], tx.now()) for row in found])


async def _unsent(tx: Tx, venue: str, limit: int) -> list[Row]:
    return _requests(tx, limit, lambda row: row["venue"] == venue and row["sent_at"] is None)


async def _late(tx: Tx, seconds: float, limit: int) -> list[Row]:
    since = tx.now() - timedelta(seconds=seconds)
    return _requests(tx, limit, lambda row: row["sent_at"] is None and row["action"] != 1 and row["requested_at"] < since)


async def _unanswered(tx: Tx, seconds: float, limit: int) -> list[Row]:
    since = tx.now() - timedelta(seconds=seconds)
    return _requests(tx, limit, lambda row: not row["overdue"] and row["sent_at"] is not None and row["sent_at"] < since)


async def _doubtful(tx: Tx, venue: str, logged_on_at: datetime, limit: int) -> list[Row]:
    found = {
        row["order_id"]
        for row in tx.rows("venue_request")
        if row["venue"] == venue and (row["overdue"] or (row["sent_at"] is not None and row["sent_at"] < logged_on_at))
    }
    return rows(("order_id",), [(order_id,) for order_id in sorted(found)[:limit]])


async def _counted(tx: Tx, venues: Sequence[str], dates: Sequence[str], exec_ids: Sequence[str]) -> list[Row]:
    found = (tx.get("execution", key) for key in zip(venues, dates, exec_ids, strict=True))
    return [row for row in found if row is not None]


# Keys, kill switches, sessions.


async def _read_keys(tx: Tx, accounts: Sequence[str], requests: Sequence[str]) -> list[Row]:
    found = (tx.get("request_key", key) for key in zip(accounts, requests, strict=True))
    return [row for row in found if row is not None]


async def _write_keys(
    tx: Tx, accounts: Sequence[str], requests: Sequence[str], hashes: Sequence[bytes], answers: Sequence[bytes], *places: str
) -> list[Row]:
    columns_written = (accounts, requests, hashes, answers, *(integers(place) for place in places))
    return rows(("request_id",), [(key[1],) for key in zip(*columns_written, strict=True) if await write_key(tx, *key)])


async def _purge_keys(tx: Tx, days: int, limit: int) -> list[Row]:
    since = tx.now() - timedelta(days=days)
    old = sorted((row for row in tx.rows("request_key") if row["created_at"] < since), key=lambda row: row["created_at"])[:limit]
    for row in old:
        await tx.lock("request_key", (row["account_id"], row["request_id"]))
        tx.delete("request_key", (row["account_id"], row["request_id"]))
    return rows(("one",), [(1,)] * len(old))


def _gate(*, exclusive: bool) -> Handler:
    async def lock(tx: Tx) -> list[Row]:
        await tx.lock("kill_switch", (1, "*"), exclusive=exclusive)
        return one(1)

    return lock


async def _active(tx: Tx) -> list[Row]:
    return [row for row in tx.rows("kill_switch") if row["active"]]


async def _read_switches(tx: Tx, scopes: Sequence[int], ids: Sequence[str]) -> list[Row]:
    found = (tx.get("kill_switch", key) for key in zip(scopes, ids, strict=True))
    return [row for row in found if row is not None]


async def _write_switches(tx: Tx, *arguments: Sequence[Any]) -> list[Row]:
    for scope, scope_id, *rest in zip(*arguments, strict=True):
        await tx.lock("kill_switch", (scope, scope_id))
        tx.put("kill_switch", (scope, scope_id), Row(_SWITCH, (scope, scope_id, *rest)))
    return []


async def _load_session(tx: Tx, session: str) -> list[Row]:
    row = tx.get("fix_session", session)
    return [] if row is None else [row]


async def _save_session(tx: Tx, session: str, next_in: int, next_out: int) -> list[Row]:
    await tx.lock("fix_session", session)
    held = tx.get("fix_session", session)
    if held is not None and (held["next_in"] > next_in or held["next_out"] > next_out):
        return []
    tx.put("fix_session", session, Row(_SESSION, (session, next_in, next_out)))
    return one(next_in, "next_in")


async def _store_messages(tx: Tx, session: str, *arguments: Sequence[Any]) -> list[Row]:
    for message in zip(*arguments, strict=True):
        await tx.insert("fix_message", (session, message[0]), Row(_MESSAGE, (session, *message)))
    return []


async def _messages(tx: Tx, session: str, begin: int, end: int) -> list[Row]:
    found = [row for row in tx.rows("fix_message") if row["session"] == session and begin <= row["sequence"] <= end]
    return sorted(found, key=lambda row: row["sequence"])


async def _purge_messages(tx: Tx, session: str, kept: int) -> list[Row]:
    known = tx.get("fix_session", session)
    oldest = 0 if known is None else known["next_out"] - kept
    for row in list(tx.rows("fix_message")):
        if row["session"] == session and row["sequence"] < oldest:
            await tx.lock("fix_message", (session, row["sequence"]))
            tx.delete("fix_message", (session, row["sequence"]))
    return []


# Reads.


def _orders(tx: Tx, chosen: Callable[[Row], bool], *, by: str = "sequence", newest: bool = False, limit: int) -> list[Row]:
    return sorted((row for row in tx.rows("orders") if chosen(row)), key=lambda row: row[by], reverse=newest)[:limit]


async def _order(tx: Tx, order_id: str) -> list[Row]:
    row = tx.get("orders", order_id)
    names = ("account_id", "tenant", "version", "snapshot")
    return [] if row is None else rows(names, [tuple(row[name] for name in names)])


async def _existing(tx: Tx, order_ids: Sequence[str]) -> list[Row]:
    return rows(("order_id",), [(order_id,) for order_id in set(order_ids) if tx.get("orders", order_id) is not None])


def _list(*, open_only: bool) -> Handler:
    async def read(tx: Tx, account_id: str, before: int, instrument_id: str, states: Sequence[int], limit: int) -> list[Row]:
        def chosen(row: Row) -> bool:
            shown = row["state"] in states if states else open_only or row["state"] != _ABANDONED
            mine = row["account_id"] == account_id and row["sequence"] < before and instrument_id in ("", row["instrument_id"])
            return bool(mine and shown and (row["open"] or not open_only))

        return _orders(tx, chosen, newest=True, limit=limit)

    return read


async def _open_from(tx: Tx, account_id: str, after: int, instrument_id: str, limit: int) -> list[Row]:
    return _orders(
        tx,
        lambda row: (
            row["account_id"] == account_id and row["open"] and row["sequence"] > after and instrument_id in ("", row["instrument_id"])
        ),
        limit=limit,
    )


async def _open_of_account(tx: Tx, account_id: str, tenant: str, instrument_id: str, side: int, limit: int) -> list[Row]:
    def chosen(row: Row) -> bool:
        mine = (row["account_id"], row["tenant"], row["open"]) == (account_id, tenant, True)
        return mine and instrument_id in ("", row["instrument_id"]) and side in (0, row["side"])

    return _orders(tx, chosen, limit=limit)


async def _open_covered(tx: Tx, scope: int, scope_id: str, limit: int) -> list[Row]:
    column = {2: "account_id", 3: "principal", 4: "instrument_id", 5: "tenant"}.get(scope)
    return _orders(
        tx, lambda row: bool(row["open"] and (scope == 1 or (column is not None and row[column] == scope_id))), by="order_id", limit=limit
    )


async def _executions(tx: Tx, account_id: str, before: int, instrument_id: str, limit: int, order_id: str = "") -> list[Row]:
    found = [
        row
        for row in tx.rows("execution")
        if row["account_id"] == account_id
        and row["sequence"] < before
        and instrument_id in ("", row["instrument_id"])
        and order_id in ("", row["order_id"])
    ]
    return sorted(found, key=lambda row: row["sequence"], reverse=True)[:limit]


async def _tenant(tx: Tx, account_id: str) -> list[Row]:
    found = _orders(tx, lambda row: row["account_id"] == account_id and row["tenant"] != "", limit=1)
    return one(found[0]["tenant"]) if found else []


async def _reached(tx: Tx, log_tx: str, position: int) -> list[Row]:
    settled = int(log_tx) < tx.server.xmin()
    return one(settled or any(e.position.tx == int(log_tx) and e.position.position >= position for e in tx.server.log.ordered))


STATEMENTS: dict[str, Handler] = {
    **kernel_statements.STATEMENTS,
    orders._FIRST_EVENTS: _first_events,
    orders._EVENTS_AFTER: _events_after,
    orders._LOOK: _look,
    orders._CREATE: _create,
    orders._RECORD: record,
    orders._CHANGE: change,
    venue_requests._UNSENT: _unsent,
    venue_requests._LATE: _late,
    venue_requests._UNANSWERED: _unanswered,
    venue_requests._DOUBTFUL: _doubtful,
    venue_requests._FORGET: forget,
    venue_requests._COUNTED: _counted,
    keys._READ: _read_keys,
    keys._WRITE: _write_keys,
    keys._PURGE: _purge_keys,
    kill_switches._ENTER_GATE: _gate(exclusive=False),
    kill_switches._CLOSE_GATE: _gate(exclusive=True),
    kill_switches._ACTIVE: _active,
    kill_switches._READ: _read_switches,
    kill_switches._WRITE: _write_switches,
    fix_sessions._LOAD: _load_session,
    fix_sessions._SAVE: _save_session,
    fix_sessions._STORE: _store_messages,
    fix_sessions._MESSAGES: _messages,
    fix_sessions._PURGE: _purge_messages,
    reads._ORDER: _order,
    reads._EXISTING: _existing,
    reads._LIST: _list(open_only=False),
    reads._LIST_OPEN: _list(open_only=True),
    reads._OPEN_FROM: _open_from,
    reads._OPEN_OF_ACCOUNT: _open_of_account,
    reads._OPEN_COVERED: _open_covered,
    reads._EXECUTIONS: _executions,
    reads._EXECUTIONS_OF_ORDER: _executions,
    reads._TENANT: _tenant,
    reads._REACHED: _reached,
}
