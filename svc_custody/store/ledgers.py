"""Ledgers: locked by their streams' heads, loaded as far as commands need them, recorded with their events in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, LogPosition, StreamAppend
from kernel.postgres import Transaction
from svc_custody.codec.events import ledger_stream, write_event
from svc_custody.domain import events as e
from svc_custody.domain.book import BalanceKey, Book, ExecutionKey, Hold, Settlement, Trade
from svc_custody.domain.commands import Command
from svc_custody.domain.decide import decide, fold
from svc_custody.domain.vocabulary import Asset, LedgerAccount
from svc_custody.store import rows

_NOW = "SELECT clock_timestamp() AS moment, business_date FROM business_date"
_BALANCES = """
SELECT * FROM ledger_balance
WHERE account_id = ANY ($1::text[])
    AND (asset_type, asset_id) IN (SELECT * FROM unnest($2::smallint[], $3::text[]))
"""
_EXECUTIONS = """
SELECT * FROM execution WHERE account_id = ANY ($1::text[]) AND (venue, exec_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))
"""
_TRADES = """
SELECT t.* FROM unnest($1::text[], $2::text[], $3::text[], $4::date[]) AS u (account_id, venue, exec_id, trade_date)
JOIN trade t USING (account_id, venue, exec_id, trade_date)
"""
_SETTLEMENTS = "SELECT * FROM settlement WHERE settlement_id = ANY ($1::text[]::uuid[]) AND account_id = ANY ($2::text[])"
_HOLDS = "SELECT * FROM hold WHERE hold_id = ANY ($1::text[]::uuid[]) AND account_id = ANY ($2::text[])"

_PUT_ENTRIES = "INSERT INTO ledger_entry SELECT * FROM jsonb_populate_recordset(NULL::ledger_entry, $1::text::jsonb)"
_PUT_BALANCES = """
INSERT INTO ledger_balance SELECT * FROM jsonb_populate_recordset(NULL::ledger_balance, $1::text::jsonb)
ON CONFLICT (account_id, asset_type, asset_id, ledger_account, venue) DO UPDATE SET balance = excluded.balance
"""
_PUT_EXECUTIONS = "INSERT INTO execution SELECT * FROM jsonb_populate_recordset(NULL::execution, $1::text::jsonb)"
_PUT_TRADES = """
INSERT INTO trade SELECT * FROM jsonb_populate_recordset(NULL::trade, $1::text::jsonb)
ON CONFLICT (account_id, venue, exec_id, trade_date) DO UPDATE SET
    order_id = excluded.order_id, side = excluded.side, quantity = excluded.quantity, price = excluded.price,
    currency = excluded.currency, notional = excluded.notional, generation = excluded.generation,
    settlement_id = excluded.settlement_id, busted = excluded.busted
"""
_PUT_SETTLEMENTS = """
INSERT INTO settlement SELECT * FROM jsonb_populate_recordset(NULL::settlement, $1::text::jsonb)
ON CONFLICT (settlement_id) DO UPDATE SET
    update_time = excluded.update_time, state = excluded.state, failure_reason = excluded.failure_reason,
    lacking_amount = excluded.lacking_amount, attempt_date = excluded.attempt_date, failed_days = excluded.failed_days,
    settled_date = excluded.settled_date, retry = false
"""
_PUT_HOLDS = """
INSERT INTO hold SELECT * FROM jsonb_populate_recordset(NULL::hold, $1::text::jsonb)
ON CONFLICT (hold_id) DO UPDATE SET state = excluded.state, update_time = excluded.update_time
"""
_PUTS = (_PUT_ENTRIES, _PUT_BALANCES, _PUT_EXECUTIONS, _PUT_TRADES, _PUT_SETTLEMENTS, _PUT_HOLDS)
# What came in may be what an instruction lacked.
_RETRY = """
UPDATE settlement s SET retry = true
FROM unnest($1::text[], $2::smallint[], $3::text[]) AS u (account_id, asset_type, asset_id)
WHERE s.account_id = u.account_id AND s.state = 4
    AND u.asset_id = CASE u.asset_type WHEN 1 THEN s.currency ELSE s.instrument_id END
"""
_TRIED = "UPDATE settlement SET retry = false WHERE settlement_id = ANY ($1::text[]::uuid[]) AND retry"


@dataclass(slots=True)
class Need:
    """What commands need of the ledgers that are loaded. Whatever a trade, instruction or hold moves is loaded with it.

    Attributes:
        assets: whose balances.
        executions: venue and exec id of executions, with the trades that they are about and these trades' instructions.
        settlement_ids: instructions.
        hold_ids: holds.
    """

    assets: set[Asset] = field(default_factory=set)
    executions: set[tuple[str, str]] = field(default_factory=set)
    settlement_ids: set[str] = field(default_factory=set)
    hold_ids: set[str] = field(default_factory=set)


class Locked(NamedTuple):
    """Ledgers that are ours until the transaction ends: the version of each, and the moment."""

    versions: Mapping[str, int]
    moment: e.Moment


class Decisions:
    """Commands decided one after the other on loaded ledgers, each on what the earlier ones leave."""

    def __init__(self, books: Mapping[str, Book]) -> None:
        self.before = books
        self.after = dict(books)
        self.events: dict[str, list[e.AnyEvent]] = {}

    def decide(self, account_id: str, command: Command) -> Sequence[e.AnyEvent]:
        """Decide a command of an account and fold what follows.

        Raises:
            TrademeshError: it is refused; the ledger is as before.
        """
        events = decide(self.after[account_id], command)
        self.after[account_id] = fold(self.after[account_id], events)
        self.events.setdefault(account_id, []).extend(events)
        return events


class LedgerStore:
    """Reads and writes ledgers within transactions. The log's heads are the locks: in stream order, before anything else."""

    def __init__(self, log: PostgresEventStore) -> None:
        self._log = log

    async def lock(self, transaction: Transaction, account_ids: Collection[str]) -> Locked:
        """Lock the ledgers of accounts, once per transaction and before anything of them is read."""
        streams = {ledger_stream(account_id): account_id for account_id in account_ids}
        heads = await self._log.lock(transaction, list(streams))
        row = await transaction.fetchrow(_NOW)
        assert row is not None, "the business date is written before anything is served"
        versions = {streams[stream]: version for stream, version in heads.items()}
        return Locked(versions, e.Moment(row["moment"], row["business_date"]))

    async def load(self, transaction: Transaction, account_ids: Collection[str], need: Need) -> dict[str, Book]:
        """Return the ledgers of locked accounts, as far as they are needed; empty ones for accounts that never had anything."""
        accounts = sorted(account_ids)
        executions = await self._executions(transaction, accounts, need)
        trades = await self._trades(transaction, executions)
        wanted = need.settlement_ids | {trade.settlement_id for of in trades.values() for trade in of.values() if trade.settlement_id}
        settlements: dict[str, dict[str, Settlement]] = {}
        for row in await transaction.fetch(_SETTLEMENTS, sorted(wanted), accounts) if wanted else ():
            settlements.setdefault(row["account_id"], {})[str(row["settlement_id"])] = rows.read_settlement(row)
        holds: dict[str, dict[str, Hold]] = {}
        for row in await transaction.fetch(_HOLDS, sorted(need.hold_ids), accounts) if need.hold_ids else ():
            holds.setdefault(row["account_id"], {})[str(row["hold_id"])] = rows.read_hold(row)
        assets = need.assets | _assets(trades.values(), settlements.values(), holds.values())
        balances = await self._balances(transaction, accounts, assets)
        return {
            account_id: Book(
                account_id,
                balances.get(account_id, {}),
                executions.get(account_id, {}),
                trades.get(account_id, {}),
                settlements.get(account_id, {}),
                holds.get(account_id, {}),
            )
            for account_id in accounts
        }

    async def record(
        self, transaction: Transaction, locked: Locked, decisions: Decisions, *, tried: Sequence[str] = ()
    ) -> LogPosition | None:
        """Append the events of locked ledgers and write what they change; return the last one's position, None where nothing happened.

        Args:
            tried: instructions that were tried with all that had come in before.

        Raises:
            AbortedError: a head is not where the lock found it; a defect.
        """
        if tried:
            await transaction.execute(_TRIED, list(tried))
        happened = {account_id: own for account_id, own in sorted(decisions.events.items()) if own}
        if not happened:
            return None
        appends = [
            StreamAppend(ledger_stream(account_id), locked.versions[account_id], tuple(write_event(event) for event in own))
            for account_id, own in happened.items()
        ]
        (outcome,) = await self._log.append(transaction, [Commit(tuple(appends))])
        if not isinstance(outcome, LogPosition):
            raise outcome
        await _write(transaction, locked, decisions, happened)
        return outcome

    async def _executions(
        self, transaction: Transaction, accounts: Sequence[str], need: Need
    ) -> dict[str, dict[ExecutionKey, ExecutionKey]]:
        found: dict[str, dict[ExecutionKey, ExecutionKey]] = {}
        if need.executions:
            names = sorted(need.executions)
            asked = (list(accounts), [venue for venue, _ in names], [exec_id for _, exec_id in names])
            for row in await transaction.fetch(_EXECUTIONS, *asked):
                root = ExecutionKey(row["venue"], row["root_trade_date"], row["root_exec_id"])
                key = ExecutionKey(row["venue"], row["trade_date"], row["exec_id"])
                # The fill itself counted too, whether it was asked for or one of its corrections.
                found.setdefault(row["account_id"], {}).update({key: root, root: root})
        return found

    async def _trades(
        self, transaction: Transaction, executions: Mapping[str, Mapping[ExecutionKey, ExecutionKey]]
    ) -> dict[str, dict[ExecutionKey, Trade]]:
        roots = sorted({(account_id, *root) for account_id, own in executions.items() for root in own.values()})
        found: dict[str, dict[ExecutionKey, Trade]] = {}
        if roots:
            columns: list[list[str] | list[date]] = [
                [account_id for account_id, _, _, _ in roots],
                [venue for _, venue, _, _ in roots],
                [exec_id for _, _, _, exec_id in roots],
                [trade_date for _, _, trade_date, _ in roots],
            ]
            for row in await transaction.fetch(_TRADES, *columns):
                trade = rows.read_trade(row)
                found.setdefault(row["account_id"], {})[trade.key] = trade
        return found

    async def _balances(
        self, transaction: Transaction, accounts: Sequence[str], assets: Collection[Asset]
    ) -> dict[str, dict[BalanceKey, Decimal]]:
        found: dict[str, dict[BalanceKey, Decimal]] = {}
        ordered = sorted(assets)
        if ordered:
            asked = ([asset.type for asset in ordered], [asset.asset_id for asset in ordered])
            for row in await transaction.fetch(_BALANCES, list(accounts), *asked):
                key, balance = rows.read_balance(row)
                found.setdefault(row["account_id"], {})[key] = balance
        return found


def _assets(
    trades: Iterable[Mapping[ExecutionKey, Trade]],
    settlements: Iterable[Mapping[str, Settlement]],
    holds: Iterable[Mapping[str, Hold]],
) -> set[Asset]:
    movements: list[Trade | Settlement] = [
        *(trade for of in trades for trade in of.values()),
        *(made for of in settlements for made in of.values()),
    ]
    return {flow.asset for movement in movements for flow in movement.flows} | {hold.asset for of in holds for hold in of.values()}


def _received(event: e.AnyEvent) -> set[Asset]:
    available = LedgerAccount.CLIENT_AVAILABLE
    return {entry.asset for entry in event.entries if entry.ledger_account is available and entry.amount > 0}


async def _write(transaction: Transaction, locked: Locked, decisions: Decisions, happened: Mapping[str, Sequence[e.AnyEvent]]) -> None:
    written: dict[str, list[rows.Row]] = {sql: [] for sql in _PUTS}
    came_in: set[tuple[str, Asset]] = set()
    for account_id, events in happened.items():
        old, new = decisions.before[account_id], decisions.after[account_id]
        made: dict[str, int] = {}
        for version, event in enumerate(events, locked.versions[account_id] + 1):
            written[_PUT_ENTRIES] += rows.entry_rows(event, version)
            if isinstance(event, e.SettlementInstructed | e.HoldCreated):
                made[e.reference_of(event)] = version
        for key, balance in new.balances.items():
            if old.balances.get(key) != balance:
                written[_PUT_BALANCES].append(rows.balance_row(account_id, key, balance))
        for execution, root in new.executions.items():
            if execution not in old.executions:
                written[_PUT_EXECUTIONS].append(rows.execution_row(account_id, execution, root))
        for root, trade in new.trades.items():
            if old.trades.get(root) is not trade:
                written[_PUT_TRADES].append(rows.trade_row(account_id, trade))
        for settlement_id, settlement in new.settlements.items():
            if old.settlements.get(settlement_id) is not settlement:
                written[_PUT_SETTLEMENTS].append(rows.settlement_row(account_id, settlement, made.get(settlement_id, 0)))
        for hold_id, hold in new.holds.items():
            if old.holds.get(hold_id) is not hold:
                written[_PUT_HOLDS].append(rows.hold_row(account_id, hold, made.get(hold_id, 0)))
        came_in |= {(account_id, asset) for event in events for asset in _received(event)}
    for sql, of_table in written.items():
        if of_table:
            await transaction.execute(sql, rows.as_json(of_table))
    if came_in:
        columns = sorted(came_in)
        await transaction.execute(
            _RETRY,
            [account_id for account_id, _ in columns],
            [asset.type for _, asset in columns],
            [asset.asset_id for _, asset in columns],
        )
