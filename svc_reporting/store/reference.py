"""Accounts, instruments and settlements as they are copied: every version, at its place in its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernel.ports import RecordedEvent
from kernel.postgres import Record, Transaction
from svc_reporting.codec.reference import SettlementFact, read_account, read_instrument, read_settlement

_ACCOUNTS = (
    "INSERT INTO account_version (tx, position, account_id, tenant)"
    " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])"
)
_INSTRUMENTS = (
    "INSERT INTO instrument_version (tx, position, instrument_id, currency)"
    " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])"
)
_KNOWN = """
SELECT DISTINCT ON (settlement_id) settlement_id, venue, trade_date, exec_id, settlement_date FROM settlement_event
WHERE settlement_id = ANY ($1::text[]) ORDER BY settlement_id, tx, position
"""
_SETTLEMENTS = """
INSERT INTO settlement_event (tx, position, settlement_id, venue, trade_date, exec_id, settlement_date, state)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::date[], $6::text[], $7::date[], $8::text[])
"""


async def copy_reference_data(transaction: Any, events: Sequence[RecordedEvent]) -> None:
    """Copy accounts and instruments of svc_risk's events; a `Handler`."""
    await _insert(transaction, _ACCOUNTS, _found(events, read_account))
    await _insert(transaction, _INSTRUMENTS, _found(events, read_instrument))


async def copy_settlements(transaction: Any, events: Sequence[RecordedEvent]) -> None:
    """Copy what svc_custody's events say of instructions; a `Handler`.

    Raises:
        ValueError: an event names an instruction that was never made; nothing may be skipped.
    """
    told = [(event, fact) for event in events if (fact := read_settlement(event)) is not None]
    made = await _made(transaction, [fact for _, fact in told])
    rows = []
    for event, fact in told:
        if fact.trade is not None:
            made[fact.settlement_id] = (*fact.trade, fact.settlement_date)
        if fact.settlement_id not in made:
            raise ValueError(f"{event.event_id} names the unknown instruction {fact.settlement_id[:64]}")
        rows.append((event.position.tx, event.position.position, fact.settlement_id, *made[fact.settlement_id], fact.state))
    await _insert(transaction, _SETTLEMENTS, rows)


async def _made(transaction: Transaction, facts: Sequence[SettlementFact]) -> dict[str, tuple[object, ...]]:
    asked = list({fact.settlement_id for fact in facts if fact.trade is None})
    rows: Sequence[Record] = await transaction.fetch(_KNOWN, asked) if asked else []
    return {row["settlement_id"]: tuple(row)[1:] for row in rows}


def _found(events: Sequence[RecordedEvent], read: Callable[[RecordedEvent], tuple[str, ...] | None]) -> list[tuple[object, ...]]:
    return [(event.position.tx, event.position.position, *fact) for event in events if (fact := read(event)) is not None]


async def _insert(transaction: Transaction, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        await transaction.execute(sql, *(list(column) for column in zip(*rows, strict=True)))


HANDLERS: Mapping[str, Callable[[Any, Sequence[RecordedEvent]], Any]] = {"risk": copy_reference_data, "custody": copy_settlements}
"""What copies the events of a source, by its name; orders have a read model of their own."""
