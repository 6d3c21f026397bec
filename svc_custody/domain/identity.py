"""Ids that derive from what they name, so that a repeated decision makes the same one."""

from __future__ import annotations

import uuid

from svc_custody.domain.book import ExecutionKey

_SETTLEMENTS = uuid.UUID("7d1f6f0e-6d2b-5c58-9a5c-3c0f4f0b8a57")


def settlement_id_of(account_id: str, key: ExecutionKey, generation: int) -> str:
    """Return the id of the instruction number `generation` of an account's trade: a UUIDv5 (RFC 9562 §5.5)."""
    name = "\0".join((account_id, key.venue, key.trade_date.isoformat(), key.exec_id, str(generation)))
    return str(uuid.uuid5(_SETTLEMENTS, name))
