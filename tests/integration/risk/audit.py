"""An auditor that knows the tables and shares no code with the service: it adds up reservations and events, and compares."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from kernel.postgres import Connection, Record
from trademesh.risk.v1 import events_pb2

_HELD = """
SELECT account_id, instrument_id, side, sum(greatest(q, 0)) AS quantity, sum(greatest(n, 0)) AS notional, count(*) AS held FROM (
    SELECT account_id, instrument_id, side,
        greatest(quantity - filled, (SELECT max(p.quantity - filled) FROM unnest(pending) p)) AS q,
        greatest((quantity - filled) * price, (SELECT max((p.quantity - filled) * p.price) FROM unnest(pending) p)) AS n
    FROM reservation WHERE status IN (1, 2)
) r GROUP BY account_id, instrument_id, side
"""
_FILLED = """
SELECT account_id, instrument_id, sum(CASE side WHEN 1 THEN filled ELSE -filled END) AS position
FROM reservation GROUP BY account_id, instrument_id
"""


async def audit(sql: Connection) -> dict[str, tuple[Any, Any]]:
    """Check that positions, sums, counts and events agree; return open and gross exposure by account."""
    held = {(row["account_id"], row["instrument_id"], row["side"]): row for row in await sql.fetch(_HELD)}
    filled = {(row["account_id"], row["instrument_id"]): row["position"] for row in await sql.fetch(_FILLED)}
    open_sums: dict[str, Decimal] = {}
    gross_sums: dict[str, Decimal] = {}
    for row in await sql.fetch("SELECT * FROM position_exposure"):
        key = row["account_id"], row["instrument_id"]
        assert row["position"] == filled.get(key, 0), key
        for side, name in ((1, "buy"), (2, "sell")):
            own = held.pop((*key, side), None)
            assert row[f"{name}_quantity"] == (own["quantity"] if own else 0), (key, name)
            assert row[f"{name}_notional"] == (own["notional"] if own else 0), (key, name)
            open_sums[key[0]] = open_sums.get(key[0], Decimal(0)) + row[f"{name}_notional"]
        value = row["position"] * row["mark"]
        worst = max(abs(value + row["buy_notional"]), abs(value - row["sell_notional"]))
        gross_sums[key[0]] = gross_sums.get(key[0], Decimal(0)) + worst
    assert not held, "reservations without a position"
    found = {}
    for row in await sql.fetch("SELECT * FROM account_exposure"):
        account_id = row["account_id"]
        assert row["buy_notional"] + row["sell_notional"] == open_sums.get(account_id, 0), account_id
        assert row["gross"] == gross_sums.get(account_id, 0), account_id
        count = await sql.fetchval("SELECT count(*) FROM reservation WHERE account_id = $1 AND status IN (1, 2)", account_id)
        assert row["reservation_count"] == count, account_id
        await _audit_events(sql, account_id, row)
        found[account_id] = row["buy_notional"] + row["sell_notional"], row["gross"]
    return found


async def _audit_events(sql: Connection, account_id: str, exposure: Record) -> None:
    rows = await sql.fetch("SELECT version, type, payload FROM event WHERE stream_id = $1 ORDER BY version", f"exposure-{account_id}")
    assert [row["version"] for row in rows] == list(range(1, exposure["version"] + 1)), account_id
    total = Decimal(0)
    for row in rows:
        name = row["type"].removeprefix("risk.v1.")
        if name == "LimitUpdated":
            continue
        delta = getattr(events_pb2, name).FromString(row["payload"]).delta
        total += Decimal(delta.delta_notional)
        assert Decimal(delta.open_notional) == total, (account_id, row["version"])
        if name == "ExposureReserved" and Decimal(delta.delta_notional) > 0:
            assert total <= Decimal(delta.open_limit), (account_id, row["version"])
    assert total == exposure["buy_notional"] + exposure["sell_notional"], account_id
