"""What clients see. Outside transactions: each answer is one statement's snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from kernel.postgres import Database, Record
from svc_custody.domain.book import Hold, Settlement
from svc_custody.domain.vocabulary import Asset, AssetType, LedgerAccount
from svc_custody.store import rows

_BALANCES = """
SELECT asset_type, asset_id, ledger_account, sum(balance) AS balance FROM ledger_balance
WHERE account_id = $1 AND ($2 = 0 OR asset_type = $2) AND ledger_account <= 4
GROUP BY asset_type, asset_id, ledger_account ORDER BY asset_type, asset_id, ledger_account
"""
_ENTRIES = """
SELECT * FROM ledger_entry
WHERE account_id = $1 AND ($2 = 0 OR asset_type = $2) AND ($3 = '' OR asset_id = $3) AND (version, line) < ($4, $5)
ORDER BY version DESC, line DESC LIMIT $6
"""
_SETTLEMENTS = """
SELECT * FROM settlement
WHERE account_id = $1 AND ($2 = 0 OR state = $2) AND ($3::date IS NULL OR settlement_date = $3) AND ($4 = '' OR order_id = $4)
    AND sequence < $5
ORDER BY sequence DESC LIMIT $6
"""
_HOLDS = "SELECT * FROM hold WHERE account_id = $1 AND ($2 = 0 OR state = $2) AND sequence < $3 ORDER BY sequence DESC LIMIT $4"
# Every ledger balances by itself, so those of one tenant do.
_TOTALS = """
SELECT b.asset_type, b.asset_id, b.ledger_account, sum(b.balance) AS balance FROM ledger_balance b
LEFT JOIN account a USING (account_id)
WHERE $1::text IS NULL OR a.tenant = $1
GROUP BY b.asset_type, b.asset_id, b.ledger_account ORDER BY b.asset_type, b.asset_id, b.ledger_account
"""
_ACCOUNTS = """
SELECT count(DISTINCT b.account_id) FROM ledger_balance b LEFT JOIN account a USING (account_id) WHERE $1::text IS NULL OR a.tenant = $1
"""
_MISMATCHES = """
WITH entered AS (
    SELECT account_id, asset_type, asset_id, ledger_account, venue, sum(amount) AS amount FROM ledger_entry
    GROUP BY account_id, asset_type, asset_id, ledger_account, venue
)
SELECT count(*) FROM entered e FULL JOIN ledger_balance b USING (account_id, asset_type, asset_id, ledger_account, venue)
LEFT JOIN account a USING (account_id)
WHERE coalesce(e.amount, 0) <> coalesce(b.balance, 0) AND ($1::text IS NULL OR a.tenant = $1)
"""
_PARKED = """
SELECT count(*) FROM parked_execution p LEFT JOIN account a USING (account_id)
WHERE ($1::text IS NULL OR p.account_id = $1) AND ($2::text IS NULL OR a.tenant = $2)
"""


class Total(NamedTuple):
    """The sum of one ledger account over the ledgers in view."""

    asset: Asset
    ledger_account: LedgerAccount
    balance: Decimal


class Listed(NamedTuple):
    """An instruction with its place in the list."""

    settlement: Settlement
    sequence: int


class ListedHold(NamedTuple):
    """A hold with its place in the list."""

    hold: Hold
    sequence: int


class ReadStore:
    """Reads balances, entries, instructions and holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def balances(self, account_id: str, asset_type: int) -> list[Total]:
        """Return an account's client balances by asset; `asset_type` 0 for all."""
        return [_total(row) for row in await self._database.fetch(_BALANCES, account_id, asset_type)]

    async def entries(self, account_id: str, asset_type: int, asset_id: str, before: tuple[int, int], limit: int) -> Sequence[Record]:
        """Return an account's entries before a (version, line), newest first."""
        return await self._database.fetch(_ENTRIES, account_id, asset_type, asset_id, *before, limit)

    async def settlement(self, account_id: str, settlement_id: str) -> Settlement | None:
        """Return an account's instruction, None where it has no such."""
        sql = "SELECT * FROM settlement WHERE settlement_id = $1::text::uuid AND account_id = $2"
        row = await self._database.fetchrow(sql, settlement_id, account_id)
        return None if row is None else rows.read_settlement(row)

    async def settlements(
        self, account_id: str, *, state: int, settlement_date: date | None, order_id: str, before: int, limit: int
    ) -> list[Listed]:
        """Return an account's instructions below a sequence, newest first; state 0, no date and an empty order are no filters."""
        found = await self._database.fetch(_SETTLEMENTS, account_id, state, settlement_date, order_id, before, limit)
        return [Listed(rows.read_settlement(row), row["sequence"]) for row in found]

    async def holds(self, account_id: str, *, state: int, before: int, limit: int) -> list[ListedHold]:
        """Return an account's holds below a sequence, newest first; state 0 is no filter."""
        found = await self._database.fetch(_HOLDS, account_id, state, before, limit)
        return [ListedHold(rows.read_hold(row), row["sequence"]) for row in found]

    async def totals(self, tenant: str | None) -> list[Total]:
        """Return the sums over the ledgers of a tenant, over all of them for None."""
        return [_total(row) for row in await self._database.fetch(_TOTALS, tenant)]

    async def account_count(self, tenant: str | None) -> int:
        """Return how many accounts have a ledger."""
        return int(await self._database.fetchval(_ACCOUNTS, tenant))

    async def mismatches(self, tenant: str | None) -> int:
        """Return how many balances are not the sum of their entries; reads the whole ledger."""
        return int(await self._database.fetchval(_MISMATCHES, tenant))

    async def parked_count(self, *, account_id: str | None = None, tenant: str | None = None) -> int:
        """Return how many executions wait for their instrument."""
        return int(await self._database.fetchval(_PARKED, account_id, tenant))


def _total(row: Record) -> Total:
    return Total(Asset(AssetType(row["asset_type"]), row["asset_id"]), LedgerAccount(row["ledger_account"]), row["balance"])
