"""Accounts, instruments, limits and kill switches: each change once per request id, with its event, in one transaction.

A change takes the policy's lock first, so that changes happen one after the other and no decision is under way meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from kernel.errors import NotFoundError, Reason
from kernel.events.postgres import PostgresEventStore
from kernel.keyed_requests import Request, Response, Written
from kernel.ports import Commit, LogPosition, NewEvent, StreamAppend
from kernel.postgres import Database, Transaction
from svc_risk.codec.events import exposure_stream
from svc_risk.codec.resources import (
    account_stream,
    instrument_stream,
    kill_switch_event,
    kill_switch_stream,
    limit_stream,
)
from svc_risk.domain.administration import KillSwitch, Limit, told
from svc_risk.domain.calendar import TradingCalendar
from svc_risk.domain.policy import Account, Instrument
from svc_risk.domain.vocabulary import ANY, KillSwitchScope, KillSwitchStatus, LimitScope, LimitType
from svc_risk.store.rows import read_account, read_instrument, read_kill_switch, read_limit

_LOCK = "SELECT pg_advisory_xact_lock(policy_lock_key())"
_KNOWN = "SELECT command_hash, answer, clock_timestamp() AS moment FROM (SELECT) AS always LEFT JOIN request ON request_id = $1::text::uuid"
_REMEMBER = "INSERT INTO request VALUES ($1::text::uuid, $2, $3, $4)"
_CORRECT = "UPDATE request SET answer = $2 WHERE request_id = $1::text::uuid"

_PUT_ACCOUNT = """
INSERT INTO account VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (account_id) DO UPDATE SET
    display_name = excluded.display_name, status = excluded.status, version = excluded.version, update_time = excluded.update_time
"""
_OPEN_EXPOSURE = "INSERT INTO account_exposure VALUES ($1, 0, 0, 0, 0, 0, 0, '', $2)"
_NEXT_EXPOSURE = "UPDATE account_exposure SET version = version + 1 WHERE account_id = $1 RETURNING version"
_PUT_INSTRUMENT = """
INSERT INTO instrument VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (instrument_id) DO UPDATE SET
    display_name = excluded.display_name, time_zone = excluded.time_zone, open_time = excluded.open_time,
    close_time = excluded.close_time, holidays = excluded.holidays, status = excluded.status, version = excluded.version,
    update_time = excluded.update_time
"""
_PUT_LIMIT = """
INSERT INTO risk_limit VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (scope, scope_id, type) DO UPDATE SET
    value = excluded.value, version = excluded.version, principal = excluded.principal, update_time = excluded.update_time
"""
_PUT_SWITCH = """
INSERT INTO kill_switch VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (scope, scope_id) DO UPDATE SET
    status = excluded.status, version = excluded.version, principal = excluded.principal, comment = excluded.comment,
    cancel_open_orders = excluded.cancel_open_orders, update_time = excluded.update_time
"""


class Change:
    """A change under way: what the transaction reads, and what it will write."""

    def __init__(self, transaction: Transaction, now: datetime) -> None:
        self.now = now
        self._transaction = transaction
        self.appends: list[StreamAppend] = []

    async def account(self, account_id: str) -> Account | None:
        """Return an account, None for an unknown one."""
        row = await self._transaction.fetchrow("SELECT * FROM account WHERE account_id = $1", account_id)
        return None if row is None else read_account(row)

    async def instrument(self, instrument_id: str) -> Instrument | None:
        """Return an instrument, None for an unknown one."""
        row = await self._transaction.fetchrow("SELECT * FROM instrument WHERE instrument_id = $1", instrument_id)
        return None if row is None else read_instrument(row)

    async def limit(self, scope: LimitScope, scope_id: str, limit_type: LimitType) -> Limit | None:
        """Return a limit, None where none is set."""
        sql = "SELECT * FROM risk_limit WHERE scope = $1 AND scope_id = $2 AND type = $3"
        row = await self._transaction.fetchrow(sql, scope, scope_id, limit_type)
        return None if row is None else read_limit(row)

    async def kill_switch(self, scope: KillSwitchScope, scope_id: str) -> KillSwitch | None:
        """Return a kill switch, None where there never was one."""
        row = await self._transaction.fetchrow("SELECT * FROM kill_switch WHERE scope = $1 AND scope_id = $2", scope, scope_id)
        return None if row is None else read_kill_switch(row)

    async def put_account(self, account: Account, event: NewEvent) -> None:
        """Write an account at its version."""
        await self._transaction.execute(
            _PUT_ACCOUNT, account.account_id, account.tenant, account.display_name, account.currency, account.status, account.version,
            account.create_time, account.update_time,
        )  # fmt: skip
        if account.version == 1:
            await self._transaction.execute(_OPEN_EXPOSURE, account.account_id, self.now)
        self._record(account_stream(account.account_id), account.version, event)

    async def put_instrument(self, instrument: Instrument, event: NewEvent) -> None:
        """Write an instrument at its version."""
        await self._transaction.execute(
            _PUT_INSTRUMENT, instrument.instrument_id, instrument.display_name, instrument.asset_class, instrument.currency,
            instrument.tick_size, instrument.lot_size, instrument.venue, *_calendar(instrument.calendar), instrument.status,
            instrument.version, instrument.update_time,
        )  # fmt: skip
        self._record(instrument_stream(instrument.instrument_id), instrument.version, event)

    async def put_limit(self, limit: Limit, event: NewEvent) -> None:
        """Write a limit at its version. One account's own limit also stands in the history of its exposure."""
        await self._transaction.execute(
            _PUT_LIMIT, limit.scope, limit.scope_id, limit.type, limit.value, limit.version, limit.principal, limit.update_time
        )
        self._record(limit_stream(limit.scope, limit.scope_id, limit.type), limit.version, event)
        if limit.scope is LimitScope.ACCOUNT and limit.scope_id != ANY:
            version = await self._transaction.fetchval(_NEXT_EXPOSURE, limit.scope_id)
            self._record(exposure_stream(limit.scope_id), version, event)

    async def put_kill_switch(self, switch: KillSwitch) -> None:
        """Write a kill switch at its version."""
        await self._transaction.execute(
            _PUT_SWITCH, switch.scope, switch.scope_id, switch.status, switch.version, switch.principal, switch.comment,
            switch.cancel_open_orders, switch.update_time,
        )  # fmt: skip
        self._record(kill_switch_stream(switch.scope, switch.scope_id), switch.version, kill_switch_event(switch))

    def _record(self, stream_id: str, version: int, event: NewEvent) -> None:
        self.appends.append(StreamAppend(stream_id, version - 1, (event,)))


class AdministrationStore:
    """Changes what binds orders."""

    def __init__(self, database: Database, events: PostgresEventStore) -> None:
        self._database = database
        self._events = events

    async def write(self, request: Request[Response], work: Callable[[Change], Awaitable[Response]]) -> Written[Response]:
        """Make a change once. `work` decides it and returns the answer, whose `log_position` is filled in here.

        Raises:
            AlreadyExistsError: the request id was used for another command.
            TrademeshError: what `work` refuses; nothing is recorded then, and the key stays free.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute(_LOCK)
            known = await transaction.fetchrow(_KNOWN, request.request_id)
            assert known is not None
            if known["command_hash"] is not None:
                return request.replayed(known["command_hash"], known["answer"])
            change = Change(transaction, known["moment"])
            response: Any = await work(change)
            position = await self._append(transaction, change)
            response.log_position.tx, response.log_position.position = position.tx, position.position
            await transaction.execute(
                _REMEMBER, request.request_id, request.command_hash, response.SerializeToString(deterministic=True), change.now
            )
        return Written(response, replayed=False)

    async def confirm(
        self, switch: KillSwitch, answer: tuple[str, Callable[[KillSwitch, LogPosition], Message]] | None = None
    ) -> tuple[KillSwitch, LogPosition | None]:
        """Record that svc_oms has a kill switch at its version, unless it changed meanwhile; return it as it stands.

        Args:
            switch: as svc_oms was told it.
            answer: the request that is still unanswered, and its answer from now on.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute(_LOCK)
            change = Change(transaction, await transaction.fetchval("SELECT clock_timestamp()"))
            current = await change.kill_switch(switch.scope, switch.scope_id)
            if current is None:
                raise NotFoundError(Reason.KILL_SWITCH_NOT_FOUND, "no such kill switch")
            if current.version != switch.version or not current.pending:
                return current, None
            confirmed = told(current, change.now)
            await change.put_kill_switch(confirmed)
            position = await self._append(transaction, change)
            if answer is not None:
                request_id, make = answer
                await transaction.execute(_CORRECT, request_id, make(confirmed, position).SerializeToString(deterministic=True))
        return confirmed, position

    async def pending_kill_switches(self, limit: int) -> list[KillSwitch]:
        """Return kill switches that svc_oms has yet to be told, oldest change first."""
        sql = "SELECT * FROM kill_switch WHERE status = ANY ($1::smallint[]) ORDER BY update_time LIMIT $2"
        rows = await self._database.fetch(sql, [KillSwitchStatus.PENDING, KillSwitchStatus.RELEASE_PENDING], limit)
        return [read_kill_switch(row) for row in rows]

    async def _append(self, transaction: Transaction, change: Change) -> LogPosition:
        (outcome,) = await self._events.append(transaction, [Commit(tuple(change.appends))])
        if not isinstance(outcome, LogPosition):
            raise outcome
        return outcome


def _calendar(calendar: TradingCalendar) -> tuple[str, str, str, list[str]]:
    return (
        calendar.time_zone,
        f"{calendar.open_time:%H:%M}" if calendar.open_time is not None else "",
        f"{calendar.close_time:%H:%M}" if calendar.close_time is not None else "",
        [day.isoformat() for day in sorted(calendar.holidays)],
    )
