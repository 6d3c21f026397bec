"""What svc_risk says of accounts and instruments, and executions that wait for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kernel.postgres import Database, Record, Transaction
from svc_custody.codec.facts import AccountFact, InstrumentFact
from svc_custody.domain.vocabulary import AssetClass

PARKED_ACCOUNTS_MAX = 50
PARKED_EXECUTIONS_MAX = 500

# Events of one stream come in order; the version makes a repetition harmless all the same.
_PUT_ACCOUNT = """
INSERT INTO account VALUES ($1, $2, $3)
ON CONFLICT (account_id) DO UPDATE SET tenant = excluded.tenant, version = excluded.version WHERE account.version < excluded.version
"""
_PUT_INSTRUMENT = """
INSERT INTO instrument VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (instrument_id) DO UPDATE SET
    asset_class = excluded.asset_class, currency = excluded.currency, venue = excluded.venue, holidays = excluded.holidays,
    version = excluded.version
WHERE instrument.version < excluded.version
"""
_PARK = """
INSERT INTO parked_execution (account_id, instrument_id, execution, parked_at)
SELECT u.*, clock_timestamp() FROM unnest($1::text[], $2::text[], $3::bytea[]) AS u
"""
_PARKED = "SELECT DISTINCT account_id, instrument_id FROM parked_execution WHERE account_id = ANY ($1::text[])"
_RELEASABLE = """
SELECT DISTINCT p.account_id FROM parked_execution p JOIN instrument i USING (instrument_id) ORDER BY p.account_id LIMIT $1
"""
_TAKE = """
WITH ready AS (
    SELECT p.sequence FROM parked_execution p JOIN instrument i USING (instrument_id)
    WHERE p.account_id = ANY ($1::text[]) ORDER BY p.sequence LIMIT $2
)
DELETE FROM parked_execution p USING ready r WHERE p.sequence = r.sequence RETURNING p.sequence, p.execution
"""


class FactStore:
    """Accounts, instruments, and what waits for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_account(self, transaction: Transaction, fact: AccountFact) -> None:
        """Write an account at its version."""
        await transaction.execute(_PUT_ACCOUNT, *fact)

    async def put_instrument(self, transaction: Transaction, fact: InstrumentFact) -> None:
        """Write an instrument at its version."""
        await transaction.execute(
            _PUT_INSTRUMENT, fact.instrument_id, fact.asset_class, fact.currency, fact.venue, list(fact.holidays), fact.version
        )

    async def tenant_of(self, account_id: str) -> str | None:
        """Return whose an account is, None for one that svc_risk has not told."""
        tenant: str | None = await self._database.fetchval("SELECT tenant FROM account WHERE account_id = $1", account_id)
        return tenant

    async def instruments(self, transaction: Transaction, instrument_ids: Collection[str]) -> Mapping[str, InstrumentFact]:
        """Return those instruments that are known."""
        found = await transaction.fetch("SELECT * FROM instrument WHERE instrument_id = ANY ($1::text[])", sorted(instrument_ids))
        return {row["instrument_id"]: _instrument(row) for row in found}

    async def instrument_known(self, instrument_id: str) -> bool:
        """Say whether svc_risk has told an instrument."""
        return bool(await self._database.fetchval("SELECT true FROM instrument WHERE instrument_id = $1", instrument_id))

    async def park(self, transaction: Transaction, executions: Sequence[tuple[str, str, bytes]]) -> None:
        """Keep executions (account, instrument, message) in their order until their instrument is known; their ledgers are locked."""
        accounts, instruments, messages = zip(*executions, strict=True)
        await transaction.execute(_PARK, list(accounts), list(instruments), list(messages))

    async def parked(self, transaction: Transaction, account_ids: Collection[str]) -> set[tuple[str, str]]:
        """Return of which instruments the accounts have executions waiting: later ones wait behind them."""
        return {(row["account_id"], row["instrument_id"]) for row in await transaction.fetch(_PARKED, sorted(account_ids))}

    async def releasable(self) -> list[str]:
        """Return accounts with executions whose instrument is known by now."""
        return [row["account_id"] for row in await self._database.fetch(_RELEASABLE, PARKED_ACCOUNTS_MAX)]

    async def take_parked(self, transaction: Transaction, account_ids: Collection[str]) -> list[bytes]:
        """Take the oldest executions of locked ledgers whose instrument is known, in their order."""
        taken = await transaction.fetch(_TAKE, sorted(account_ids), PARKED_EXECUTIONS_MAX)
        return [row["execution"] for row in sorted(taken, key=lambda row: int(row["sequence"]))]

    async def count_parked(self) -> int:
        """Return how many executions wait."""
        return int(await self._database.fetchval("SELECT count(*) FROM parked_execution"))


def _instrument(row: Record) -> InstrumentFact:
    return InstrumentFact(
        row["instrument_id"], AssetClass(row["asset_class"]), row["currency"], row["venue"], tuple(row["holidays"]), row["version"]
    )
