"""The risk service's record: reservations, exposures, and the log of how they came about."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg

from trademesh.risk.v1 import events_pb2

REFUSED, UNCONFIRMED, CONFIRMED, CLOSED = range(4)

LIMIT_UPDATED = "risk.v1.LimitUpdated"

_RESERVATIONS = """
SELECT order_id::text, account_id, instrument_id, side, status, quantity, price, filled, pending::text, reserved_at
FROM svc_risk.reservation
"""
_EXPOSURES = """
SELECT stream_id, version, type, payload, recorded_at FROM svc_risk.event WHERE stream_id LIKE 'exposure-%' ORDER BY stream_id, version
"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A row of the reservation table."""

    order_id: str
    account_id: str
    instrument_id: str
    is_buy: bool
    status: int
    quantity: Decimal
    price: Decimal
    filled: Decimal
    pending: str | None
    reserved_at: datetime


@dataclass(frozen=True, slots=True)
class ExposureEvent:
    """One entry of an account's exposure log."""

    version: int
    type: str
    delta: events_pb2.ExposureDelta | None
    message: Any
    recorded_at: datetime


@dataclass(slots=True)
class RiskRecord:
    """Everything that svc_risk has on disk about orders."""

    reservations: dict[str, Reservation]
    accounts: dict[str, dict[str, Any]]
    positions: dict[tuple[str, str], dict[str, Any]]
    log: dict[str, list[ExposureEvent]]
    approved_replaces: set[str]


async def read_risk_record(connection: asyncpg.Connection) -> RiskRecord:
    """Read all of it at one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        reservations = await connection.fetch(_RESERVATIONS)
        accounts = await connection.fetch(
            "SELECT account_id, buy_notional, sell_notional, reservation_count FROM svc_risk.account_exposure"
        )
        positions = await connection.fetch("SELECT * FROM svc_risk.position_exposure")
        log: dict[str, list[ExposureEvent]] = defaultdict(list)
        for row in await connection.fetch(_EXPOSURES):
            message: Any = getattr(events_pb2, row["type"].removeprefix("risk.v1.")).FromString(row["payload"])
            account_id = row["stream_id"].removeprefix("exposure-")
            # A changed limit stands in the log too; it moves nothing.
            delta = None if row["type"] == LIMIT_UPDATED else message.delta
            log[account_id].append(ExposureEvent(row["version"], row["type"], delta, message, row["recorded_at"]))
        replaces = await connection.fetch("SELECT request_id::text FROM svc_risk.replace_check WHERE approved")
    return RiskRecord(
        {row["order_id"]: _reservation(row) for row in reservations},
        {row["account_id"]: dict(row) for row in accounts},
        {(row["account_id"], row["instrument_id"]): dict(row) for row in positions},
        dict(log),
        {row["request_id"] for row in replaces},
    )


def _reservation(row: asyncpg.Record) -> Reservation:
    return Reservation(
        row["order_id"],
        row["account_id"],
        row["instrument_id"],
        row["side"] == 1,
        row["status"],
        row["quantity"],
        row["price"],
        row["filled"],
        row["pending"],
        row["reserved_at"],
    )
