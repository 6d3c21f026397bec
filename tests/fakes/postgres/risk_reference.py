"""Risk's statements about what binds orders: accounts, instruments, limits, kill switches, prices, and what clients read of them.

Every change of what binds orders raises `policy.version` under the policy's lock, as triggers do in the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from svc_risk.store import administration, policy, prices, reads
from tests.fakes.postgres.kernel_statements import event_rows, one, stream_events
from tests.fakes.postgres.rows import Row, amount, columns, rows
from tests.fakes.postgres.server import Handler, Tx

TABLES = ("account", "instrument", "risk_limit", "kill_switch", "policy", "reference_price", "price_feed", "request")

_ACCOUNT = columns("account_id", "tenant", "display_name", "currency", "status", "version", "create_time", "update_time")
_INSTRUMENT = columns(
    "instrument_id", "display_name", "asset_class", "currency", "tick_size", "lot_size", "venue", "time_zone", "open_time", "close_time",
    "holidays", "status", "version", "update_time",
)  # fmt: skip
_LIMIT = columns("scope", "scope_id", "type", "value", "version", "principal", "update_time")
_SWITCH = columns("scope", "scope_id", "status", "version", "principal", "comment", "cancel_open_orders", "update_time")
_PRICE = columns("instrument_id", "bid", "ask", "last_trade", "prior_close", "prior_close_date", "stale", "feed", "update_time")
_FEED = columns("feed", "heartbeat_at")
_REQUEST = columns("request_id", "command_hash", "answer", "create_time")
_EXPOSURE = columns(
    "account_id", "version", "buy_notional", "sell_notional", "gross", "reservation_count", "rate_tick", "rate_counts", "marked_at"
)
_POLICY_LOCK = ("advisory", "policy")
_FIRM_WIDE = (1, 4)


async def share_policy(tx: Tx) -> None:
    """Hold the policy's lock with other decisions."""
    await tx.lock(*_POLICY_LOCK, exclusive=False)


async def _take_policy(tx: Tx) -> list[Row]:
    await tx.lock(*_POLICY_LOCK)
    return []


async def _policy_changed(tx: Tx) -> None:
    await tx.lock(*_POLICY_LOCK)
    await tx.lock("policy", True)
    row = tx.get("policy", True)
    assert row is not None
    tx.put("policy", True, row.replace(version=row["version"] + 1))


def _put(table: str, names: Any, keys: int, *, numbers: Sequence[int] = ()) -> Handler:
    """Insert or replace a row of what binds orders."""

    async def write(tx: Tx, *given: Any) -> list[Row]:
        values = tuple(amount(value) if place in numbers else value for place, value in enumerate(given))
        key = values[0] if keys == 1 else values[:keys]
        await tx.lock(table, key)
        tx.put(table, key, Row(names, values))
        await _policy_changed(tx)
        return []

    return write


def _get(table: str, keys: int = 1) -> Handler:
    async def read(tx: Tx, *key: Any) -> list[Row]:
        row = tx.get(table, key[0] if keys == 1 else key)
        return [] if row is None else [row]

    return read


def _get_any(table: str) -> Handler:
    async def read(tx: Tx, keys: Sequence[Any]) -> list[Row]:
        return [row for key in dict.fromkeys(keys) if (row := tx.get(table, key)) is not None]

    return read


async def _known_request(tx: Tx, request_id: str) -> list[Row]:
    row = tx.get("request", request_id)
    answer = (None, None) if row is None else (row["command_hash"], row["answer"])
    return rows(("command_hash", "answer", "moment"), [(*answer, tx.now())])


async def _remember_request(tx: Tx, *values: Any) -> list[Row]:
    await tx.insert("request", values[0], Row(_REQUEST, values))
    return []


async def _correct_request(tx: Tx, request_id: str, answer: bytes) -> list[Row]:
    await tx.lock("request", request_id)
    row = tx.get("request", request_id)
    if row is not None:
        tx.put("request", request_id, row.replace(answer=answer))
    return []


async def _open_exposure(tx: Tx, account_id: str, moment: datetime) -> list[Row]:
    zero = Decimal(0)
    await tx.insert("account_exposure", account_id, Row(_EXPOSURE, (account_id, 0, zero, zero, zero, 0, 0, b"", moment)))
    return []


async def _next_exposure(tx: Tx, account_id: str) -> list[Row]:
    await tx.lock("account_exposure", account_id)
    row = tx.get("account_exposure", account_id)
    if row is None:
        return []
    tx.put("account_exposure", account_id, row.replace(version=row["version"] + 1))
    return one(row["version"] + 1, "version")


async def _pending_switches(tx: Tx, statuses: Sequence[int], limit: int) -> list[Row]:
    found = [row for row in tx.rows("kill_switch") if row["status"] in statuses]
    return sorted(found, key=lambda row: row["update_time"])[:limit]


async def _limits_of(tx: Tx, scopes: Sequence[int], ids: Sequence[str]) -> list[Row]:
    wanted = set(zip(scopes, ids, strict=True))
    return [row for row in tx.rows("risk_limit") if (row["scope"], row["scope_id"]) in wanted]


async def _switches_of(tx: Tx, scopes: Sequence[int], ids: Sequence[str], released: int) -> list[Row]:
    wanted = set(zip(scopes, ids, strict=True))
    return [row for row in tx.rows("kill_switch") if (row["scope"], row["scope_id"]) in wanted and row["status"] != released]


# Prices.


async def _quotes(tx: Tx, names: Sequence[str], *arguments: Any) -> list[Row]:
    *quoted, feed = arguments
    for instrument_id, bid, ask, last, close, day, stale in zip(names, *quoted, strict=True):
        await tx.lock("reference_price", instrument_id)
        known = tx.get("reference_price", instrument_id)
        if known is not None and known["feed"] != feed and _speaks_for(tx, instrument_id, known["feed"]):
            continue
        numbers = tuple(None if value is None else amount(value) for value in (bid, ask, last, close))
        assert day is None or isinstance(day, date)
        tx.put("reference_price", instrument_id, Row(_PRICE, (instrument_id, *numbers, day, stale, feed, tx.now())))
    return []


def _speaks_for(tx: Tx, instrument_id: str, feed: str) -> bool:
    row = tx.get("instrument", instrument_id)
    return row is not None and bool(row["venue"] == feed)


async def _heartbeat(tx: Tx, feed: str, moment: datetime) -> list[Row]:
    await tx.lock("price_feed", feed)
    tx.put("price_feed", feed, Row(_FEED, (feed, moment)))
    return one(tx.now())


# What clients read.


def _filtered(table: str, chosen: Callable[[Row], bool], tx: Tx, *by: str, newest: bool = False) -> list[Row]:
    return sorted(filter(chosen, tx.rows(table)), key=lambda row: tuple(row[name] for name in by), reverse=newest)


async def _list_limits(
    tx: Tx,
    after_scope: int,
    after_id: str,
    after_type: int,
    scope: int,
    scope_id: str,
    tenant: str,
    whole: bool,
    accounts: Sequence[str],
    firm: bool,
    principal: str,
    limit: int,
) -> list[Row]:
    def chosen(row: Row) -> bool:
        place, owner = (row["scope"], row["scope_id"], row["type"]), row["scope_id"]
        if place <= (after_scope, after_id, after_type) or scope not in (0, row["scope"]) or scope_id not in ("", owner):
            return False
        if owner == "*" or row["scope"] == 3:
            return True
        return _mine(tx, row, 1, tenant, accounts, whole=whole) or (row["scope"] == 2 and (firm or owner == principal))

    return _filtered("risk_limit", chosen, tx, "scope", "scope_id", "type")[:limit]


def _mine(tx: Tx, row: Row, account_scope: int, tenant: str, accounts: Sequence[str], *, whole: bool) -> bool:
    account = tx.get("account", row["scope_id"]) if row["scope"] == account_scope else None
    return account is not None and bool(account["tenant"] == tenant) and (whole or row["scope_id"] in accounts)


async def _list_switches(
    tx: Tx,
    before_time: datetime | None,
    before_scope: int,
    before_id: str,
    active_only: bool,
    released: int,
    tenant: str,
    whole: bool,
    accounts: Sequence[str],
    firm: bool,
    principal: str,
    limit: int,
) -> list[Row]:
    def chosen(row: Row) -> bool:
        place = (row["update_time"], row["scope"], row["scope_id"])
        if before_time is not None and place >= (before_time, before_scope, before_id):
            return False
        if active_only and row["status"] == released:
            return False
        own = {3: principal, 5: tenant}.get(row["scope"])
        personal = own is not None and (firm or row["scope_id"] == own)
        return row["scope"] in _FIRM_WIDE or personal or _mine(tx, row, 2, tenant, accounts, whole=whole)

    return _filtered("kill_switch", chosen, tx, "update_time", "scope", "scope_id", newest=True)[:limit]


async def _list_accounts(tx: Tx, tenant: str, after: str, whole: bool, accounts: Sequence[str], limit: int) -> list[Row]:
    def chosen(row: Row) -> bool:
        return bool(row["tenant"] == tenant and row["account_id"] > after and (whole or row["account_id"] in accounts))

    return _filtered("account", chosen, tx, "account_id")[:limit]


async def _list_instruments(tx: Tx, after: str, limit: int) -> list[Row]:
    return _filtered("instrument", lambda row: bool(row["instrument_id"] > after), tx, "instrument_id")[:limit]


async def _binding_limits(tx: Tx, scope: int, ids: Sequence[str]) -> list[Row]:
    return _filtered("risk_limit", lambda row: row["scope"] == scope and row["scope_id"] in ids, tx, "type")


async def _history(tx: Tx, stream_id: str, before: int, limit: int) -> list[Row]:
    found = [event for event in stream_events(tx, stream_id) if event.version < before]
    return event_rows(reversed(found[-limit:]))


async def _shows(tx: Tx, log_tx: str) -> list[Row]:
    return one(tx.server.visible(int(log_tx)))


async def _prices_of_their_venue(tx: Tx, instruments: Sequence[str]) -> list[Row]:
    found = [row for key in dict.fromkeys(instruments) if (row := tx.get("reference_price", key)) is not None]
    return [row for row in found if _speaks_for(tx, row["instrument_id"], row["feed"])]


def _of_account(table: str) -> Handler:
    async def read(tx: Tx, account_id: str) -> list[Row]:
        return [row for row in tx.rows(table) if row["account_id"] == account_id]

    return read


STATEMENTS: dict[str, Handler] = {
    administration._LOCK: _take_policy,
    administration._KNOWN: _known_request,
    administration._REMEMBER: _remember_request,
    administration._CORRECT: _correct_request,
    administration._PUT_ACCOUNT: _put("account", _ACCOUNT, 1),
    administration._OPEN_EXPOSURE: _open_exposure,
    administration._NEXT_EXPOSURE: _next_exposure,
    administration._PUT_INSTRUMENT: _put("instrument", _INSTRUMENT, 1, numbers=(4, 5)),
    administration._PUT_LIMIT: _put("risk_limit", _LIMIT, 3, numbers=(3,)),
    administration._PUT_SWITCH: _put("kill_switch", _SWITCH, 2),
    "SELECT * FROM account WHERE account_id = $1": _get("account"),
    "SELECT * FROM instrument WHERE instrument_id = $1": _get("instrument"),
    "SELECT * FROM risk_limit WHERE scope = $1 AND scope_id = $2 AND type = $3": _get("risk_limit", 3),
    "SELECT * FROM kill_switch WHERE scope = $1 AND scope_id = $2": _get("kill_switch", 2),
    "SELECT * FROM kill_switch WHERE status = ANY ($1::smallint[]) ORDER BY update_time LIMIT $2": _pending_switches,
    policy._ACCOUNTS: _get_any("account"),
    policy._INSTRUMENTS: _get_any("instrument"),
    policy._LIMITS: _limits_of,
    policy._KILL_SWITCHES: _switches_of,
    prices._QUOTES: _quotes,
    prices._HEARTBEAT: _heartbeat,
    reads._LIMITS: _list_limits,
    reads._SWITCHES: _list_switches,
    reads._ACCOUNTS: _list_accounts,
    reads._INSTRUMENTS: _list_instruments,
    reads._BINDING_LIMITS: _binding_limits,
    reads._HISTORY: _history,
    reads._SHOWS: _shows,
    "SELECT * FROM account_exposure WHERE account_id = $1": _of_account("account_exposure"),
    "SELECT * FROM position_exposure WHERE account_id = $1": _of_account("position_exposure"),
    "SELECT r.* FROM reference_price r JOIN instrument i ON i.instrument_id = r.instrument_id AND i.venue = r.feed"
    " WHERE r.instrument_id = ANY ($1::text[])": _prices_of_their_venue,
}
