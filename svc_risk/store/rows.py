"""Rows and domain values. Numbers come from PostgreSQL with 18 places; they are stripped once, because short ones reckon faster."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from kernel.postgres import Record
from svc_risk.domain.administration import KillSwitch, Limit
from svc_risk.domain.calendar import parse_calendar
from svc_risk.domain.exposure import AccountExposure, InstrumentExposure, instrument_exposure
from svc_risk.domain.policy import Account, Instrument
from svc_risk.domain.rate import NO_MESSAGES, TENTHS, RateWindow
from svc_risk.domain.reference_price import Quote, ReferencePrice, reference_price
from svc_risk.domain.reservation import PendingTerms, Reservation, ReservationStatus
from svc_risk.domain.vocabulary import (
    AccountStatus,
    AssetClass,
    InstrumentStatus,
    KillSwitchScope,
    KillSwitchStatus,
    LimitScope,
    LimitType,
    Side,
)

Row = Record

_COUNTS = struct.Struct(f">{TENTHS}I")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIDES = {int(side): side for side in Side}
_STATUSES = {int(status): status for status in ReservationStatus}


def read_window(tick: int, counts: bytes) -> RateWindow:
    """Return the message counts of a row."""
    if not counts:
        return NO_MESSAGES
    latest, *earlier = _COUNTS.unpack(counts)
    return RateWindow(tick, latest, tuple(earlier))


def write_window(window: RateWindow) -> bytes:
    """Return the message counts for a row."""
    return _COUNTS.pack(window.latest, *window.earlier)


def read_accounts(rows: Iterable[Any] | None) -> dict[str, AccountExposure]:
    """Return exposures by account."""
    return {
        account_id: AccountExposure(
            version, buy.normalize(), sell.normalize(), gross.normalize(), reservations, read_window(tick, counts), marked_at
        )
        for account_id, version, buy, sell, gross, reservations, tick, counts, marked_at in rows or ()
    }


def read_positions(rows: Iterable[Any] | None) -> dict[tuple[str, str], InstrumentExposure]:
    """Return exposures by (account, instrument)."""
    return {
        (account_id, instrument_id): instrument_exposure(*(amount.normalize() for amount in amounts))
        for account_id, instrument_id, *amounts in rows or ()
    }


def parse_accounts(lines: str | None) -> dict[str, AccountExposure]:
    """Return exposures by account, from the lines of `risk_open`."""
    found = {}
    for line in lines.split("\n") if lines else ():
        account_id, version, buy, sell, gross, reservations, tick, marked_at, counts = line.split(" ")
        found[account_id] = AccountExposure(
            int(version),
            Decimal(buy),
            Decimal(sell),
            Decimal(gross),
            int(reservations),
            read_window(int(tick), bytes.fromhex(counts)),
            _EPOCH + timedelta(microseconds=int(marked_at)),
        )
    return found


def parse_positions(lines: str | None) -> dict[tuple[str, str], InstrumentExposure]:
    """Return exposures by (account, instrument), from the lines of `risk_open`, which may name one twice."""
    found = {}
    for line in lines.split("\n") if lines else ():
        account_id, instrument_id, *amounts = line.split(" ")
        found[account_id, instrument_id] = instrument_exposure(*map(Decimal, amounts))
    return found


def read_reservation(row: Row) -> Reservation:
    """Return the reservation in a row."""
    pending = row["pending"]
    return Reservation(
        str(row["order_id"]),
        row["account_id"],
        row["instrument_id"],
        _SIDES[row["side"]],
        _STATUSES[row["status"]],
        row["quantity"].normalize(),
        row["price"].normalize(),
        row["filled"].normalize(),
        tuple(PendingTerms(str(name), quantity.normalize(), price.normalize(), done) for name, quantity, price, done in pending)
        if pending
        else (),
        row["order_version"],
    )


def read_references(prices: Iterable[Row] | None, feeds: Iterable[Row] | None, now: datetime) -> dict[str, tuple[str, ReferencePrice]]:
    """Return the reference price of each instrument with the feed that named it."""
    heartbeats = {feed["feed"]: feed["heartbeat_at"] for feed in feeds or ()}
    found: dict[str, tuple[str, ReferencePrice]] = {}
    for row in prices or ():
        quote = Quote(
            _amount(row["bid"]),
            _amount(row["ask"]),
            _amount(row["last_trade"]),
            _amount(row["prior_close"]),
            row["prior_close_date"],
            row["stale"],
        )
        price = reference_price(quote, heartbeats.get(row["feed"]), now)
        if price is not None:
            found[row["instrument_id"]] = row["feed"], price
    return found


def _amount(value: Decimal | None) -> Decimal | None:
    return None if value is None else value.normalize()


def read_account(row: Row) -> Account:
    """Return the account in a row."""
    return Account(
        row["account_id"],
        row["tenant"],
        row["display_name"],
        row["currency"],
        AccountStatus(row["status"]),
        row["version"],
        row["create_time"],
        row["update_time"],
    )


def read_instrument(row: Row) -> Instrument:
    """Return the instrument in a row."""
    return Instrument(
        row["instrument_id"],
        row["display_name"],
        AssetClass(row["asset_class"]),
        row["currency"],
        row["tick_size"].normalize(),
        row["lot_size"].normalize(),
        row["venue"],
        parse_calendar(row["time_zone"], row["open_time"], row["close_time"], tuple(row["holidays"])),
        InstrumentStatus(row["status"]),
        row["version"],
        row["update_time"],
    )


def read_limit(row: Row) -> Limit:
    """Return the limit in a row."""
    return Limit(
        LimitScope(row["scope"]),
        row["scope_id"],
        LimitType(row["type"]),
        row["value"].normalize(),
        row["version"],
        row["principal"],
        row["update_time"],
    )


def read_kill_switch(row: Row) -> KillSwitch:
    """Return the kill switch in a row."""
    return KillSwitch(
        KillSwitchScope(row["scope"]),
        row["scope_id"],
        KillSwitchStatus(row["status"]),
        row["version"],
        row["principal"],
        row["comment"],
        row["cancel_open_orders"],
        row["update_time"],
    )
