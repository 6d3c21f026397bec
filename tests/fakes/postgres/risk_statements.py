"""Risk's statements about decisions: `risk_open`, what a book writes back, orphans. `svc_risk/migrations` says what the function does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from svc_risk.store import closing, facts, ledger
from tests.fakes.postgres import kernel_statements, risk_reference
from tests.fakes.postgres.rows import Row, amount, blobs, columns, decimals, integers, rows, texts
from tests.fakes.postgres.server import Handler, MemoryPostgres, Tx

TABLES = (
    *kernel_statements.TABLES,
    *risk_reference.TABLES,
    "account_exposure",
    "position_exposure",
    "trader_rate",
    "reservation",
    "replace_check",
    "orphan_sweep",
)

_EXPOSURE = columns(
    "account_id", "version", "buy_notional", "sell_notional", "gross", "reservation_count", "rate_tick", "rate_counts", "marked_at"
)
_POSITION = columns("account_id", "instrument_id", "position", "mark", "buy_quantity", "buy_notional", "sell_quantity", "sell_notional")
_TRADER = columns("principal", "rate_tick", "rate_counts")
_RESERVATION = columns(
    "order_id", "account_id", "instrument_id", "side", "status", "quantity", "price", "filled", "pending", "order_version",
    "reserved_at", "duplicate_key", "payload_hash", "answer",
)  # fmt: skip
_REPLACE = columns("request_id", "order_id", "account_id", "payload_hash", "answer", "approved", "checked_at")
_SWEEP = columns("single", "settled_until")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_UNCONFIRMED_STATUS, _CONFIRMED_STATUS = 1, 2
_TRADER_SCOPE, _MESSAGE_RATE = 2, 7


def risk_server(clock: Callable[[], datetime], moment: Callable[[], float]) -> MemoryPostgres:
    """Return a server with risk's schema, as its migrations leave it."""
    server = MemoryPostgres(TABLES, STATEMENTS, clock, moment)
    server.tables["policy"][True] = Row(columns("single", "version"), (True, 1))
    server.tables["orphan_sweep"][True] = Row(_SWEEP, (True, datetime.min.replace(tzinfo=UTC)))
    return server


# Opening a book.


async def _open(
    tx: Tx,
    accounts: str,
    traders: Sequence[str],
    pair_accounts: str,
    pair_instruments: str,
    instruments: str,
    order_ids: str,
    replaces: str,
    duplicates: str,
    mark_age: timedelta | None,
) -> list[Row]:
    await risk_reference.share_policy(tx)
    policy = tx.get("policy", True)
    assert policy is not None
    names = texts(accounts)
    locked = await _lock_existing(tx, "account_exposure", names)
    locked_traders = await _lock_traders(tx, traders)
    moment = tx.now()
    stale = [row["account_id"] for row in locked if mark_age is not None and row["marked_at"] < moment - mark_age]
    pairs = dict.fromkeys(zip(texts(pair_accounts), texts(pair_instruments), strict=True))
    pairs |= {
        (row["account_id"], row["instrument_id"]): None
        for row in tx.rows("position_exposure")
        if row["account_id"] in stale and row["position"] != 0
    }
    positions = [row for key in pairs if (row := tx.get("position_exposure", key)) is not None]
    wanted = dict.fromkeys([*texts(instruments), *(row["instrument_id"] for row in positions)])
    approved = _last_approvals(tx, integers(duplicates))
    found = {
        "moment": moment,
        "policy_version": policy["version"],
        "accounts": "\n".join(map(_account_line, locked)) or None,
        "traders": locked_traders,
        "revalued": stale,
        "positions": "\n".join(map(_position_line, positions)) or None,
        "prices": _present(tx, "reference_price", list(wanted)) or None,
        "feeds": list(tx.rows("price_feed")) or None,
        "reservations": _present(tx, "reservation", texts(order_ids)) or None,
        "replaces": _present(tx, "replace_check", texts(replaces)) or None,
        "duplicate_keys": list(approved) or None,
        "duplicate_times": list(approved.values()) or None,
    }
    return rows(tuple(found), [tuple(found.values())])


def _account_line(row: Row) -> str:
    account_id, version, buy, sell, gross, reservations, tick, counts, marked_at = row
    amounts = (_trimmed(amount) for amount in (buy, sell, gross))
    return " ".join(map(str, (account_id, version, *amounts, reservations, tick, (marked_at - _EPOCH) // _MICROSECOND, counts.hex())))


def _position_line(row: Row) -> str:
    return " ".join((*row[:2], *map(_trimmed, row[2:])))


def _trimmed(amount: Decimal) -> str:
    written = f"{amount:f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


async def _lock_existing(tx: Tx, table: str, keys: Sequence[str]) -> list[Row]:
    for key in sorted(keys):
        if tx.get(table, key) is not None:
            await tx.lock(table, key)
    return _present(tx, table, sorted(keys))


def _present(tx: Tx, table: str, keys: Sequence[Any]) -> list[Row]:
    return [row for key in dict.fromkeys(keys) if (row := tx.get(table, key)) is not None]


async def _lock_traders(tx: Tx, traders: Sequence[str]) -> list[Row] | None:
    bounded = any((row["scope"], row["type"]) == (_TRADER_SCOPE, _MESSAGE_RATE) for row in tx.rows("risk_limit"))
    if not traders or not bounded:
        return None
    for principal in traders:
        if await tx.claim("trader_rate", principal):
            tx.put("trader_rate", principal, Row(_TRADER, (principal, 0, b"")))
    return await _lock_existing(tx, "trader_rate", list(traders)) or None


def _last_approvals(tx: Tx, keys: Sequence[int]) -> dict[int, datetime]:
    wanted = set(keys)
    found: dict[int, datetime] = {}
    for row in tx.rows("reservation") if wanted else ():
        key = row["duplicate_key"]
        if key in wanted:
            found[key] = max(found.get(key, row["reserved_at"]), row["reserved_at"])
    return found


# Closing it.


async def _write(tx: Tx, moment: datetime, *arguments: Any) -> list[Row]:
    *accounts, windows, revalued = arguments[9:18]
    for place, (account_id, *exposure, changed) in enumerate(
        _zipped((texts, integers, decimals, decimals, decimals, integers, integers, texts), [*accounts, revalued])
    ):
        assert min(exposure[1:5]) >= 0, f"exposure below zero: {exposure}"
        await tx.lock("account_exposure", account_id)
        known = tx.get("account_exposure", account_id)
        assert known is not None, "an account without exposure"
        marked_at = moment if changed == "t" else known["marked_at"]
        tx.put("account_exposure", account_id, Row(_EXPOSURE, (account_id, *exposure, _cut(windows, place, 44), marked_at)))
    for position in _zipped((texts, texts, *(decimals,) * 6), arguments[18:26]):
        assert min(position[4:]) >= 0, f"exposure below zero: {position}"
        await tx.lock("position_exposure", position[:2])
        tx.put("position_exposure", position[:2], Row(_POSITION, position))
    for place, (principal, tick) in enumerate(_zipped((list, integers), arguments[26:28])):
        await tx.lock("trader_rate", principal)
        tx.put("trader_rate", principal, Row(_TRADER, (principal, tick, _cut(arguments[28], place, 44))))
    await _insert_reservations(tx, moment, *arguments[29:41])
    written = await kernel_statements.extend(tx, *_heads(*arguments[:9])) if texts(arguments[0]) else (None, tx.own_xid(), None)
    return rows(("tx", "own_tx", "last_position"), [written])


async def _insert_reservations(tx: Tx, moment: datetime, *arguments: Any) -> None:
    *described, hashes, answers, starts, lengths = arguments
    readers = (texts, texts, texts, integers, integers, decimals, decimals, integers, integers, integers)
    for place, row in enumerate(_zipped(readers, [*described, starts, lengths])):
        *values, duplicate_key, start, length = row
        answer = answers[start - 1 : start - 1 + length]
        filled = Decimal(0)
        kept = (*values, filled, None, 0, moment, duplicate_key, _cut(hashes, place, 32), answer)
        await tx.insert("reservation", values[0], Row(_RESERVATION, kept))


def _cut(joined: bytes, place: int, size: int) -> bytes:
    assert len(joined) % size == 0
    return joined[place * size : (place + 1) * size]


def _heads(*arguments: Any) -> tuple[Any, ...]:
    streams, expected, count, event_stream, version, kind, payloads, start, length = arguments
    return (
        *(texts(streams), integers(expected), integers(count), texts(event_stream), integers(version), texts(kind)),
        *(payloads, integers(start), integers(length)),
    )


def _zipped(readers: Sequence[Callable[[Any], Any]], arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*(read(argument) for read, argument in zip(readers, arguments, strict=True)), strict=True))


async def _write_replaces(tx: Tx, *arguments: Any) -> list[Row]:
    for request_id, *described in _zipped((texts, texts, texts, blobs, blobs, list), arguments[:6]):
        await tx.insert("replace_check", request_id, Row(_REPLACE, (request_id, *described, arguments[6])))
    return []


async def _move(tx: Tx, *arguments: Any) -> list[Row]:
    readers = (texts, texts, texts, integers, integers, decimals, decimals, decimals, integers, list)
    for *described, version, literal in _zipped(readers, arguments[:10]):
        moved = *described, _pending(literal), version
        order_id = moved[0]
        await tx.lock("reservation", order_id)
        known = tx.get("reservation", order_id)
        if known is None:
            tx.put("reservation", order_id, Row(_RESERVATION, (*moved, arguments[10], None, b"", b"")))
        else:
            changed = dict(zip(list(_RESERVATION)[4:10], moved[4:], strict=True))
            if changed["status"] == _UNCONFIRMED_STATUS:
                changed["status"] = known["status"]
            changed["order_version"] = max(known["order_version"], changed["order_version"])
            tx.put("reservation", order_id, known.replace(**changed))
    return []


def _pending(literal: str | None) -> list[tuple[str, Decimal, Decimal, bool]] | None:
    """Read a literal of `pending_terms[]`, `{"(request id,quantity,price,confirmed)",…}`."""
    if literal is None:
        return None
    found = []
    for item in literal.removeprefix('{"(').removesuffix(')"}').split(')","('):
        request_id, quantity, price, confirmed = item.split(",")
        found.append((request_id, amount(quantity), amount(price), confirmed == "True"))
    return found


async def _asked_again(tx: Tx, request_ids: str, moment: datetime) -> list[Row]:
    for request_id in texts(request_ids):
        await tx.lock("replace_check", request_id)
        row = tx.get("replace_check", request_id)
        if row is not None:
            tx.put("replace_check", request_id, row.replace(checked_at=moment))
    return []


# Facts and orphans.


async def _known(tx: Tx, order_ids: Sequence[str]) -> list[Row]:
    found = _present(tx, "reservation", list(order_ids))
    names = ("order_id", "account_id", "instrument_id")
    return rows(names, [tuple(row[name] for name in names) for row in found])


async def _versions(tx: Tx, order_ids: str) -> list[Row]:
    found = [row for row in _present(tx, "reservation", texts(order_ids)) if row["order_version"] > 0]
    return rows(("order_id", "order_version"), [(row["order_id"], row["order_version"]) for row in found])


async def _advance(tx: Tx, order_ids: str, before: str, after: str, statuses: str) -> list[Row]:
    """`risk_advance`: only rows that seem to match are locked, and looked at again once the lock is there."""
    behind = []
    for order_id, *step in _zipped((texts, integers, integers, integers), (order_ids, before, after, statuses)):
        if _stands_before(tx.get("reservation", order_id), *step):
            await tx.lock("reservation", order_id)
        row = tx.get("reservation", order_id)
        if row is None or not _stands_before(row, *step):
            behind.append(order_id)
            continue
        status = _CONFIRMED_STATUS if step[2] == _UNCONFIRMED_STATUS else row["status"]
        tx.put("reservation", order_id, row.replace(order_version=step[1], status=status))
    return kernel_statements.one(behind or None, "behind")


def _stands_before(row: Row | None, before: int | None, after: int, status: int | None) -> bool:
    return row is not None and row["order_version"] < after and before in (None, row["order_version"]) and status in (None, row["status"])


async def _unconfirmed(tx: Tx, bound: timedelta, limit: int) -> list[Row]:
    sweep = tx.get("orphan_sweep", True)
    assert sweep is not None
    settled, until = sweep["settled_until"], tx.now() - bound
    found = [
        (row["order_id"], row["account_id"], row["instrument_id"], None, row["reserved_at"])
        for row in tx.rows("reservation")
        if settled <= row["reserved_at"] < until and row["status"] == _UNCONFIRMED_STATUS
    ]
    for check in tx.rows("replace_check"):
        row = tx.get("reservation", check["order_id"])
        waiting = row is not None and any(terms[0] == check["request_id"] and not terms[3] for terms in row["pending"] or ())
        if waiting and check["approved"] and settled <= check["checked_at"] < until:
            assert row is not None
            found.append((row["order_id"], row["account_id"], row["instrument_id"], check["request_id"], check["checked_at"]))
    found.sort(key=lambda row: row[4])
    return rows(("order_id", "account_id", "instrument_id", "request_id", "since"), found[:limit])


async def _settled(tx: Tx, bound: timedelta, since: datetime | None) -> list[Row]:
    await tx.lock("orphan_sweep", True)
    row = tx.get("orphan_sweep", True)
    assert row is not None
    until = tx.now() - bound if since is None else since
    tx.put("orphan_sweep", True, row.replace(settled_until=max(row["settled_until"], until)))
    return []


async def _forget(tx: Tx, request_ids: str, bound: timedelta) -> list[Row]:
    found = []
    for request_id in texts(request_ids):
        await tx.lock("replace_check", request_id)
        row = tx.get("replace_check", request_id)
        if row is not None and row["checked_at"] < tx.now() - bound:
            tx.delete("replace_check", request_id)
            found.append((request_id,))
    return rows(("request_id",), found)


STATEMENTS: dict[str, Handler] = {
    **kernel_statements.STATEMENTS,
    **risk_reference.STATEMENTS,
    ledger._OPEN: _open,
    closing.WRITE: _write,
    ledger._WRITE_REPLACES: _write_replaces,
    ledger._ASKED_AGAIN: _asked_again,
    ledger._MOVE: _move,
    facts._KNOWN: _known,
    facts._VERSIONS: _versions,
    facts._ADVANCE: _advance,
    facts._UNCONFIRMED: _unconfirmed,
    facts._FORGET: _forget,
    facts._SETTLED: _settled,
}
