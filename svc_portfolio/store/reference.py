"""Accounts and instruments as svc_risk's log tells of them; the latest version of each counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from kernel.postgres import Database, Transaction
from svc_portfolio.store.rows import columns

_PUT_ACCOUNTS = """
INSERT INTO account (account_id, tenant, version) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
ON CONFLICT (account_id) DO UPDATE SET tenant = excluded.tenant, version = excluded.version WHERE account.version < excluded.version
"""
_PUT_INSTRUMENTS = """
INSERT INTO instrument (instrument_id, currency, venue, version) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (instrument_id) DO UPDATE SET currency = excluded.currency, venue = excluded.venue, version = excluded.version
WHERE instrument.version < excluded.version
"""


class AccountRow(NamedTuple):
    """An account at a version."""

    account_id: str
    tenant: str
    version: int


class InstrumentRow(NamedTuple):
    """An instrument at a version: the currency of its prices and the venue that tells them."""

    instrument_id: str
    currency: str
    venue: str
    version: int


class ReferenceStore:
    """Reference data of others."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, transaction: Transaction, accounts: Iterable[AccountRow], instruments: Iterable[InstrumentRow]) -> None:
        """Write the latest version of each, in the caller's transaction; each may be named several times, the last one counts."""
        latest_accounts = {account.account_id: account for account in accounts}
        if latest_accounts:
            await transaction.execute(_PUT_ACCOUNTS, *columns(latest_accounts.values()))
        latest_instruments = {instrument.instrument_id: instrument for instrument in instruments}
        if latest_instruments:
            await transaction.execute(_PUT_INSTRUMENTS, *columns(latest_instruments.values()))

    async def tenant(self, account_id: str) -> str | None:
        """Return the tenant of an account; None where the account is unknown."""
        tenant: str | None = await self._database.fetchval("SELECT tenant FROM account WHERE account_id = $1", account_id)
        return tenant

    async def instruments(self, instrument_ids: Collection[str]) -> dict[str, InstrumentRow]:
        """Return what is known of instruments; unknown ones are absent."""
        rows = await self._database.fetch(
            "SELECT instrument_id, currency, venue, version FROM instrument WHERE instrument_id = ANY ($1::text[])", list(instrument_ids)
        )
        return {row["instrument_id"]: InstrumentRow(*row) for row in rows}
