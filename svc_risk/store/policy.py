"""What binds orders, as a transaction reads it.

Nothing here is trusted because it was read before. `policy.version` grows with every change of an account, instrument, limit or kill
switch (a trigger sees to that), and it is read in each deciding transaction, under a lock that no change can pass before that transaction
ends. A copy counts only while it carries exactly that version; at any other, everything is read again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from kernel.postgres import Transaction
from svc_risk.domain.policy import AccountPolicy, Bindings, Bounds, InstrumentPolicy, LimitValue, Policy, bounds, limit_value
from svc_risk.domain.vocabulary import ANY, KillSwitchScope, KillSwitchStatus, LimitScope, LimitType
from svc_risk.store.rows import read_account, read_instrument

ENTRIES_MAX = 50_000
"""Accounts, traders, instruments and bindings kept; beyond it everything is read again."""

_ACCOUNTS = "SELECT * FROM account WHERE account_id = ANY ($1::text[])"
_INSTRUMENTS = "SELECT * FROM instrument WHERE instrument_id = ANY ($1::text[])"
_LIMITS = """
SELECT l.scope, l.scope_id, l.type, l.value FROM unnest($1::smallint[], $2::text[]) AS u (scope, scope_id)
JOIN risk_limit l ON l.scope = u.scope AND l.scope_id = u.scope_id
"""
_KILL_SWITCHES = """
SELECT k.scope, k.scope_id FROM unnest($1::smallint[], $2::text[]) AS u (scope, scope_id)
JOIN kill_switch k ON k.scope = u.scope AND k.scope_id = u.scope_id WHERE k.status <> $3
"""

_Limits = dict[tuple[int, str], dict[LimitType, LimitValue]]
_Switches = set[tuple[int, str]]


class PolicyReader:
    """Reads policies, with a copy that each transaction validates. One per process."""

    def __init__(self) -> None:
        self._version = 0
        self._accounts: dict[str, AccountPolicy | None] = {}
        self._traders: dict[str, Bounds] = {}
        self._instruments: dict[str, InstrumentPolicy | None] = {}
        self._bindings: Bindings = {}

    async def read(
        self, transaction: Transaction, version: int, accounts: Collection[str], traders: Collection[str], instruments: Collection[str]
    ) -> Policy:
        """Return what is in force for these, at the version that the transaction has read under its lock."""
        kept = len(self._accounts) + len(self._traders) + len(self._instruments) + len(self._bindings)
        if version != self._version or kept > ENTRIES_MAX:
            self._version = version
            self._accounts, self._traders, self._instruments, self._bindings = {}, {}, {}, {}
        bindings, known_accounts, known_traders, known_instruments = self._bindings, self._accounts, self._traders, self._instruments
        new_accounts = [account for account in accounts if account not in known_accounts]
        new_traders = [trader for trader in traders if trader not in known_traders]
        new_instruments = [instrument for instrument in instruments if instrument not in known_instruments]
        if new_accounts or new_traders or new_instruments:
            # Dictionaries of this version: should another transaction have moved on meanwhile, its copy is not touched.
            await _load(transaction, (known_accounts, new_accounts), (known_traders, new_traders), (known_instruments, new_instruments))
        return Policy(
            {name: account for name in accounts if (account := known_accounts[name]) is not None},
            {name: known_traders[name] for name in traders},
            {name: instrument for name in instruments if (instrument := known_instruments[name]) is not None},
            bindings,
        )


async def _load(
    transaction: Transaction,
    accounts: tuple[dict[str, AccountPolicy | None], list[str]],
    traders: tuple[dict[str, Bounds], list[str]],
    instruments: tuple[dict[str, InstrumentPolicy | None], list[str]],
) -> None:
    account_rows = {row["account_id"]: read_account(row) for row in await transaction.fetch(_ACCOUNTS, accounts[1])}
    instrument_rows = {row["instrument_id"]: read_instrument(row) for row in await transaction.fetch(_INSTRUMENTS, instruments[1])}
    limits = _limits(await transaction.fetch(_LIMITS, *_limit_keys(accounts[1], traders[1], instruments[1])))
    tenants = {account.tenant for account in account_rows.values()}
    keys = _switch_keys(accounts[1], traders[1], instruments[1], tenants)
    switches = {(row["scope"], row["scope_id"]) for row in await transaction.fetch(_KILL_SWITCHES, *keys, KillSwitchStatus.RELEASED)}
    for account_id in accounts[1]:
        account = account_rows.get(account_id)
        covering = [(KillSwitchScope.FIRM, ANY), (KillSwitchScope.ACCOUNT, account_id)]
        if account is not None:
            covering.insert(1, (KillSwitchScope.TENANT, account.tenant))
        found = _bounds(LimitScope.ACCOUNT, account_id, limits, _active(covering, switches))
        accounts[0][account_id] = None if account is None else AccountPolicy(account, found)
    for trader in traders[1]:
        traders[0][trader] = _bounds(LimitScope.TRADER, trader, limits, _active([(KillSwitchScope.TRADER, trader)], switches))
    for instrument_id in instruments[1]:
        instrument = instrument_rows.get(instrument_id)
        found = _bounds(LimitScope.INSTRUMENT, instrument_id, limits, _active([(KillSwitchScope.INSTRUMENT, instrument_id)], switches))
        instruments[0][instrument_id] = None if instrument is None else InstrumentPolicy(instrument, found)


def _limit_keys(accounts: list[str], traders: list[str], instruments: list[str]) -> tuple[list[int], list[str]]:
    keys = [
        *((LimitScope.ACCOUNT, name) for name in (ANY, *accounts)),
        *((LimitScope.TRADER, name) for name in (ANY, *traders)),
        *((LimitScope.INSTRUMENT, name) for name in (ANY, *instruments)),
    ]
    return [int(scope) for scope, _ in keys], [name for _, name in keys]


def _switch_keys(accounts: list[str], traders: list[str], instruments: list[str], tenants: Iterable[str]) -> tuple[list[int], list[str]]:
    keys = [
        (KillSwitchScope.FIRM, ANY),
        *((KillSwitchScope.TENANT, name) for name in tenants),
        *((KillSwitchScope.ACCOUNT, name) for name in accounts),
        *((KillSwitchScope.TRADER, name) for name in traders),
        *((KillSwitchScope.INSTRUMENT, name) for name in instruments),
    ]
    return [int(scope) for scope, _ in keys], [name for _, name in keys]


def _limits(rows: Iterable[Any]) -> _Limits:
    limits: _Limits = {}
    for row in rows:
        limits.setdefault((row["scope"], row["scope_id"]), {})[LimitType(row["type"])] = limit_value(row["value"])
    return limits


def _bounds(scope: LimitScope, scope_id: str, limits: _Limits, kill_switches: tuple[str, ...]) -> Bounds:
    return bounds(scope, scope_id, limits.get((scope, ANY), {}) | limits.get((scope, scope_id), {}), kill_switches)


def _active(keys: Iterable[tuple[KillSwitchScope, str]], switches: _Switches) -> tuple[str, ...]:
    return tuple(f"{scope.name.lower()}/{name}" for scope, name in keys if (scope, name) in switches)
