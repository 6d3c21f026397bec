"""The stored clock: one business date for the whole ledger. It only moves forward."""

from __future__ import annotations

from datetime import date

from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, LogPosition, StreamAppend
from kernel.postgres import Database, Transaction
from svc_custody.codec.events import BUSINESS_DATE_STREAM, new_event
from svc_custody.codec.scalars import day, timestamp
from trademesh.custody.v1 import events_pb2

_BEGIN = "INSERT INTO business_date (business_date) VALUES ($1)"
_MOVE = "UPDATE business_date SET business_date = $1"


class BusinessDateStore:
    """Reads and moves the business date. The head of its stream is its lock."""

    def __init__(self, database: Database, log: PostgresEventStore) -> None:
        self._database = database
        self._log = log

    async def current(self) -> date | None:
        """Return the business date, None before the first replica has started."""
        found: date | None = await self._database.fetchval("SELECT business_date FROM business_date")
        return found

    async def follow(self, target: date) -> bool:
        """Move forward to a date, as the wall clock does; return whether it moved."""
        before = await self.current()
        if before is not None and before >= target:
            return False
        async with self._database.transaction() as transaction:
            locked, version = await self.lock(transaction)
            if locked is not None and locked >= target:
                return False
            await self.move(transaction, version, locked, target, "")
        return True

    async def lock(self, transaction: Transaction) -> tuple[date | None, int]:
        """Lock the clock until the transaction ends; return its date and its stream's version."""
        heads = await self._log.lock(transaction, [BUSINESS_DATE_STREAM])
        found: date | None = await transaction.fetchval("SELECT business_date FROM business_date")
        return found, heads[BUSINESS_DATE_STREAM]

    async def move(self, transaction: Transaction, version: int, before: date | None, after: date, principal: str) -> LogPosition:
        """Move the locked clock; `principal` is empty where the wall clock does."""
        event = events_pb2.BusinessDateAdvanced(
            business_date=day(after),
            previous_date=day(before),
            principal=principal,
            event_time=timestamp(await transaction.fetchval("SELECT clock_timestamp()")),
        )
        commit = Commit((StreamAppend(BUSINESS_DATE_STREAM, version, (new_event(event),)),))
        (outcome,) = await self._log.append(transaction, [commit])
        if not isinstance(outcome, LogPosition):
            raise outcome
        await transaction.execute(_BEGIN if before is None else _MOVE, after)
        return outcome
