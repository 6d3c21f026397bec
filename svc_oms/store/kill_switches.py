"""Kill switches: rows that every sender locks, so that a change waits for the senders that did not see it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from kernel.postgres import Transaction
from svc_oms.domain import Order

# The firm's row is the gate: senders share it, a change takes it alone.
_ENTER_GATE = "SELECT 1 FROM kill_switch WHERE scope = 1 AND scope_id = '*' FOR SHARE"
_CLOSE_GATE = "SELECT 1 FROM kill_switch WHERE scope = 1 AND scope_id = '*' FOR UPDATE"
_ACTIVE = "SELECT scope, scope_id FROM kill_switch WHERE active"
_READ = """
SELECT k.scope, k.scope_id, k.active, k.version, k.cancel_open_orders
FROM unnest($1::smallint[], $2::text[]) AS u (scope, scope_id)
JOIN kill_switch k ON k.scope = u.scope AND k.scope_id = u.scope_id
"""
_WRITE = """
INSERT INTO kill_switch (scope, scope_id, active, version, cancel_open_orders)
SELECT * FROM unnest($1::smallint[], $2::text[], $3::boolean[], $4::bigint[], $5::boolean[])
ON CONFLICT (scope, scope_id) DO UPDATE
    SET active = excluded.active, version = excluded.version, cancel_open_orders = excluded.cancel_open_orders
"""
_STREAM_TEXT_MAX = 100


class Scope(IntEnum):
    """What a switch covers; numbers as in `trademesh.risk.v1.KillSwitchScope`."""

    FIRM = 1
    ACCOUNT = 2
    TRADER = 3
    INSTRUMENT = 4
    TENANT = 5


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch as risk has set it. `version` is risk's and grows with every change."""

    scope: Scope
    scope_id: str
    active: bool
    version: int
    cancel_open_orders: bool

    @property
    def name(self) -> str:
        """Return scope and id as events name them, `account/ACC-1`."""
        return f"{self.scope.name.lower()}/{self.scope_id}"

    @property
    def stream_id(self) -> str:
        """Return the stream of the switch. An id that is no plain text of 100 characters stands in it as its SHA-256."""
        plain = self.scope_id.isascii() and len(self.scope_id) <= _STREAM_TEXT_MAX
        text = self.scope_id if plain else hashlib.sha256(self.scope_id.encode()).hexdigest()
        return f"kill-{self.scope.name.lower()}-{text}"


@dataclass(frozen=True, slots=True)
class ActiveSwitches:
    """The switches that are active at one moment."""

    covered: frozenset[tuple[int, str]]

    def cover(self, order: Order) -> bool:
        """Say whether one of them covers the order."""
        if not self.covered:
            return False
        terms = order.terms
        subjects = ("*", terms.account_id, terms.principal, terms.instrument_id, terms.tenant)
        return any((scope.value, subject) in self.covered for scope, subject in zip(Scope, subjects, strict=True))


async def lock_active(transaction: Transaction) -> ActiveSwitches:
    """Return the active switches and keep them from changing until the transaction ends."""
    await transaction.execute(_ENTER_GATE)
    # A statement of its own: what a change committed while we waited at the gate is in this one's snapshot.
    active = await transaction.fetch(_ACTIVE)
    return ActiveSwitches(frozenset((row["scope"], row["scope_id"]) for row in active))


async def lock_and_read(transaction: Transaction, switches: Sequence[Switch]) -> dict[tuple[int, str], Switch]:
    """Lock out every sender and every other change, and return what is known of these switches."""
    await transaction.execute(_CLOSE_GATE)
    rows = await transaction.fetch(_READ, [item.scope.value for item in switches], [item.scope_id for item in switches])
    known = (Switch(Scope(row["scope"]), row["scope_id"], row["active"], row["version"], row["cancel_open_orders"]) for row in rows)
    return {(switch.scope.value, switch.scope_id): switch for switch in known}


async def write(transaction: Transaction, switches: Sequence[Switch]) -> None:
    """Set the switches; `lock_and_read` came before."""
    await transaction.execute(
        _WRITE,
        [item.scope.value for item in switches],
        [item.scope_id for item in switches],
        [item.active for item in switches],
        [item.version for item in switches],
        [item.cancel_open_orders for item in switches],
    )
