"""Rows of the read models as values of the domain, and back. Rows to write travel as one JSON array per table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from kernel.postgres import Record
from svc_custody.codec.events import type_name
from svc_custody.domain import events as e
from svc_custody.domain.book import BalanceKey, ExecutionKey, Hold, Settlement, Trade
from svc_custody.domain.vocabulary import Asset, AssetType, FailureReason, HoldState, LedgerAccount, SettlementState, Side

Row = dict[str, Any]


def as_json(rows: Iterable[Row]) -> str:
    """Return rows as the server's `jsonb_populate_recordset` takes them: decimals and times as text, so nothing is rounded."""
    return json.dumps(list(rows), default=_text, separators=(",", ":"))


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    raise TypeError(f"no column takes a {type(value).__name__}")


def read_balance(row: Record) -> tuple[BalanceKey, Decimal]:
    """Return a balance with its key."""
    asset = Asset(AssetType(row["asset_type"]), row["asset_id"])
    return BalanceKey(asset, LedgerAccount(row["ledger_account"]), row["venue"]), row["balance"]


def read_trade(row: Record) -> Trade:
    """Return a trade."""
    return Trade(
        ExecutionKey(row["venue"], row["trade_date"], row["exec_id"]),
        row["order_id"],
        row["instrument_id"],
        Side(row["side"]),
        row["quantity"],
        row["price"],
        row["currency"],
        row["notional"],
        row["generation"],
        "" if row["settlement_id"] is None else str(row["settlement_id"]),
        row["busted"],
    )


def read_settlement(row: Record) -> Settlement:
    """Return an instruction."""
    return Settlement(
        settlement_id=str(row["settlement_id"]),
        trade_key=ExecutionKey(row["venue"], row["trade_date"], row["exec_id"]),
        order_id=row["order_id"],
        instrument_id=row["instrument_id"],
        securities_amount=row["securities_amount"],
        currency=row["currency"],
        cash_amount=row["cash_amount"],
        settlement_date=row["settlement_date"],
        cycle_days=row["cycle_days"],
        affirm_time=row["affirm_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        state=SettlementState(row["state"]),
        failure_reason=None if row["failure_reason"] is None else FailureReason(row["failure_reason"]),
        lacking_amount=row["lacking_amount"],
        attempt_date=row["attempt_date"],
        failed_days=row["failed_days"],
        settled_date=row["settled_date"],
        reverses_settlement_id="" if row["reverses_settlement_id"] is None else str(row["reverses_settlement_id"]),
    )


def read_hold(row: Record) -> Hold:
    """Return a hold."""
    return Hold(
        str(row["hold_id"]),
        Asset(AssetType(row["asset_type"]), row["asset_id"]),
        row["amount"],
        row["comment"],
        row["principal"],
        row["create_time"],
        row["update_time"],
        HoldState(row["state"]),
    )


def balance_row(account_id: str, key: BalanceKey, balance: Decimal) -> Row:
    """Return a balance as a row."""
    return {
        "account_id": account_id,
        "asset_type": key.asset.type,
        "asset_id": key.asset.asset_id,
        "ledger_account": key.ledger_account,
        "venue": key.venue,
        "balance": balance,
    }


def entry_rows(event: e.AnyEvent, version: int) -> list[Row]:
    """Return an event's entries as rows."""
    common = {
        "account_id": event.account_id,
        "version": version,
        "event_type": type_name(event),
        "reference_id": e.reference_of(event),
        "booking_date": event.moment.business_date,
        "event_time": event.moment.time,
    }
    return [
        {
            **common,
            "line": line,
            "ledger_account": entry.ledger_account,
            "asset_type": entry.asset.type,
            "asset_id": entry.asset.asset_id,
            "venue": entry.venue,
            "amount": entry.amount,
        }
        for line, entry in enumerate(event.entries, 1)
    ]


def execution_row(account_id: str, key: ExecutionKey, root: ExecutionKey) -> Row:
    """Return an execution that counted as a row."""
    return {**_key(account_id, key), "root_exec_id": root.exec_id, "root_trade_date": root.trade_date}


def trade_row(account_id: str, trade: Trade) -> Row:
    """Return a trade as a row."""
    fields = trade._asdict()
    del fields["key"]
    return {**_key(account_id, trade.key), **fields, "settlement_id": trade.settlement_id or None}


def settlement_row(account_id: str, settlement: Settlement, sequence: int) -> Row:
    """Return an instruction as a row; the sequence counts for a new one only."""
    names = [name for name in Settlement.__slots__ if name != "trade_key"]
    fields = {name: getattr(settlement, name) for name in names}
    reverses = settlement.reverses_settlement_id or None
    return {
        **_key(account_id, settlement.trade_key),
        **fields,
        "reverses_settlement_id": reverses,
        "sequence": sequence,
        "retry": False,
    }


def hold_row(account_id: str, hold: Hold, sequence: int) -> Row:
    """Return a hold as a row; the sequence counts for a new one only."""
    return {
        "hold_id": hold.hold_id,
        "account_id": account_id,
        "sequence": sequence,
        "asset_type": hold.asset.type,
        "asset_id": hold.asset.asset_id,
        "amount": hold.amount,
        "state": hold.state,
        "comment": hold.comment,
        "principal": hold.principal,
        "create_time": hold.create_time,
        "update_time": hold.update_time,
    }


def _key(account_id: str, key: ExecutionKey) -> Row:
    return {"account_id": account_id, "venue": key.venue, "exec_id": key.exec_id, "trade_date": key.trade_date}
