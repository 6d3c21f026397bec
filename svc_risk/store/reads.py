"""What clients see: accounts, instruments, limits, kill switches, exposures and their history. Each list is a page after a key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kernel.errors import Reason, UnavailableError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import LogPosition, RecordedEvent
from kernel.postgres import Connection, Database
from svc_risk.codec.events import exposure_stream
from svc_risk.domain.administration import KillSwitch, Limit
from svc_risk.domain.exposure import InstrumentExposure, marked, summed
from svc_risk.domain.policy import Account, Instrument
from svc_risk.domain.reference_price import ReferencePrice
from svc_risk.domain.risk_state import RiskState
from svc_risk.domain.vocabulary import ANY, KillSwitchScope, KillSwitchStatus, LimitScope, LimitType
from svc_risk.store.rows import (
    Row,
    read_account,
    read_accounts,
    read_instrument,
    read_kill_switch,
    read_limit,
    read_positions,
    read_references,
)

RETRY_SECONDS = 0.1

_LIMITS = """
SELECT l.* FROM risk_limit l LEFT JOIN account a ON l.scope = 1 AND a.account_id = l.scope_id
WHERE (l.scope, l.scope_id, l.type) > ($1, $2, $3) AND ($4 = 0 OR l.scope = $4) AND ($5 = '' OR l.scope_id = $5)
    AND (
        l.scope_id = '*' OR l.scope = 3
        OR (l.scope = 1 AND a.tenant = $6 AND ($7 OR l.scope_id = ANY ($8::text[])))
        OR (l.scope = 2 AND ($9 OR l.scope_id = $10))
    )
ORDER BY l.scope, l.scope_id, l.type LIMIT $11
"""
_SWITCHES = """
SELECT k.* FROM kill_switch k LEFT JOIN account a ON k.scope = 2 AND a.account_id = k.scope_id
WHERE ($1::timestamptz IS NULL OR (k.update_time, k.scope, k.scope_id) < ($1, $2, $3)) AND (NOT $4 OR k.status <> $5)
    AND (
        k.scope IN (1, 4)
        OR (k.scope = 2 AND a.tenant = $6 AND ($7 OR k.scope_id = ANY ($8::text[])))
        OR (k.scope = 3 AND ($9 OR k.scope_id = $10))
        OR (k.scope = 5 AND ($9 OR k.scope_id = $6))
    )
ORDER BY k.update_time DESC, k.scope DESC, k.scope_id DESC LIMIT $11
"""
_ACCOUNTS = """
SELECT * FROM account WHERE tenant = $1 AND account_id > $2 AND ($3 OR account_id = ANY ($4::text[])) ORDER BY account_id LIMIT $5
"""
_INSTRUMENTS = "SELECT * FROM instrument WHERE instrument_id > $1 ORDER BY instrument_id LIMIT $2"
_BINDING_LIMITS = "SELECT * FROM risk_limit WHERE scope = $1 AND scope_id = ANY ($2::text[]) ORDER BY type"
_HISTORY = """
SELECT tx, position, stream_id, version, type, payload, metadata, recorded_at FROM event
WHERE stream_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3
"""
# A transaction that a snapshot shows has ended; one that was rolled back has written no position.
_SHOWS = "SELECT $1::text::xid8 < pg_snapshot_xmax(s) AND pg_visible_in_snapshot($1::text::xid8, s) FROM pg_current_snapshot() AS s"


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: everything of a tenant, or only some of its accounts; `firm` also sees what belongs to nobody's tenant."""

    tenant: str
    principal: str
    accounts: frozenset[str]
    whole_tenant: bool
    firm: bool


class ReadStore:
    """Reads for clients, from the same database that decides."""

    def __init__(self, database: Database, events: PostgresEventStore) -> None:
        self._database = database
        self._events = events

    async def require_position(self, position: LogPosition) -> None:
        """Check that reads from now on show a position of the log.

        Raises:
            UnavailableError: they do not yet; retry.
        """
        if position.tx and not await self._database.fetchval(_SHOWS, str(position.tx)):
            raise UnavailableError(
                Reason.DEPENDENCY_UNAVAILABLE, f"the log has not reached {position} here yet", retry_after_seconds=RETRY_SECONDS
            )

    async def account(self, account_id: str) -> Account | None:
        """Return an account, None for an unknown one."""
        row = await self._database.fetchrow("SELECT * FROM account WHERE account_id = $1", account_id)
        return None if row is None else read_account(row)

    async def accounts(self, viewer: Viewer, after: str, limit: int) -> list[Account]:
        """Return accounts that the viewer may see, by id."""
        rows = await self._database.fetch(_ACCOUNTS, viewer.tenant, after, viewer.whole_tenant, list(viewer.accounts), limit)
        return [read_account(row) for row in rows]

    async def instrument(self, instrument_id: str) -> Instrument | None:
        """Return an instrument, None for an unknown one."""
        row = await self._database.fetchrow("SELECT * FROM instrument WHERE instrument_id = $1", instrument_id)
        return None if row is None else read_instrument(row)

    async def instruments(self, after: str, limit: int) -> list[Instrument]:
        """Return instruments by id."""
        return [read_instrument(row) for row in await self._database.fetch(_INSTRUMENTS, after, limit)]

    async def limits(
        self, viewer: Viewer, *, scope: LimitScope | None, scope_id: str, after: tuple[int, str, int], limit: int
    ) -> list[Limit]:
        """Return limits that the viewer may see, by scope, scope id and type. Other traders' are the firm's to see."""
        rows = await self._database.fetch(
            _LIMITS, *after, 0 if scope is None else scope, scope_id, viewer.tenant, viewer.whole_tenant, list(viewer.accounts),
            viewer.firm, viewer.principal, limit,
        )  # fmt: skip
        return [read_limit(row) for row in rows]

    async def kill_switches(
        self, viewer: Viewer, *, active_only: bool, after: tuple[datetime, KillSwitchScope, str] | None, limit: int
    ) -> list[KillSwitch]:
        """Return kill switches that may stop the viewer's orders, latest change first."""
        rows = await self._database.fetch(
            _SWITCHES, *(after or (None, 0, "")), active_only, KillSwitchStatus.RELEASED, viewer.tenant, viewer.whole_tenant,
            list(viewer.accounts), viewer.firm, viewer.principal, limit,
        )  # fmt: skip
        return [read_kill_switch(row) for row in rows]

    async def risk_state(self, account_id: str) -> RiskState:
        """Return an account's exposures, all read in one snapshot; the account must exist."""
        async with self._database.transaction() as transaction:
            # One snapshot for all that follows.
            await transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return await _risk_state(transaction.connection, account_id)

    async def reference_prices(self, instrument_ids: Sequence[str]) -> dict[str, tuple[str, ReferencePrice]]:
        """Return the reference price of each instrument that has one, as an order would find it now, with the venue that named it."""
        async with self._database.transaction() as transaction:
            # One snapshot, so that prices and signs of life belong together.
            await transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return await _references(transaction.connection, instrument_ids, await transaction.connection.fetch("SELECT * FROM price_feed"))

    async def exposure_history(self, account_id: str, before_version: int, limit: int) -> list[RecordedEvent]:
        """Return events of an account's exposure below a version, newest first."""
        rows = await self._database.fetch(_HISTORY, exposure_stream(account_id), before_version, limit)
        return [RecordedEvent(LogPosition(row[0], row[1]), *row[2:]) for row in rows]


async def _risk_state(connection: Connection, account_id: str) -> RiskState:
    accounts = read_accounts(await connection.fetch("SELECT * FROM account_exposure WHERE account_id = $1", account_id))
    positions = read_positions(await connection.fetch("SELECT * FROM position_exposure WHERE account_id = $1", account_id))
    references = await _references(connection, [instrument_id for _, instrument_id in positions], ())
    account, valued = accounts[account_id], dict[str, InstrumentExposure]()
    for (_, instrument_id), position in positions.items():
        reference = references.get(instrument_id)
        valued[instrument_id] = position if reference is None else marked(position, reference[1].price)
        account = summed(account, position, valued[instrument_id])
    limits = await connection.fetch(_BINDING_LIMITS, LimitScope.ACCOUNT, [ANY, account_id])
    return RiskState(account, valued, _own_or_default(read_limit(row) for row in limits))


async def _references(connection: Connection, instrument_ids: Sequence[str], feeds: Iterable[Row]) -> dict[str, tuple[str, ReferencePrice]]:
    prices = await connection.fetch(
        "SELECT r.* FROM reference_price r JOIN instrument i ON i.instrument_id = r.instrument_id AND i.venue = r.feed"
        " WHERE r.instrument_id = ANY ($1::text[])",
        list(instrument_ids),
    )
    return read_references(prices, feeds, await connection.fetchval("SELECT clock_timestamp()"))


def _own_or_default(limits: Iterable[Limit]) -> list[Limit]:
    found: dict[LimitType, Limit] = {}
    for limit in limits:
        if limit.type not in found or limit.scope_id != ANY:
            found[limit.type] = limit
    return list(found.values())
