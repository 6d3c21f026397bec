"""The clock's work: releases what was parked, affirms what waited long enough, settles what is due, moves the business date.

One replica does it at a time, under a lease that every transaction checks. What it decides it decides under the ledgers' locks, so that a
second one (a takeover, an operator who advances the date) costs time and never a second settlement.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

from kernel.lease import LeaseKeeper, PostgresLeases
from kernel.ports import Clock, HeldLease
from kernel.postgres import Database, Transaction
from kernel.telemetry import Sample
from svc_custody.clients.calendars import Calendars
from svc_custody.consumer.executions import Executions
from svc_custody.domain.business_days import DayOpen, business_day_at_or_before, next_business_day
from svc_custody.domain.commands import AffirmSettlement, AttemptSettlement, Command
from svc_custody.domain.events import Moment, SettlementFailed, SettlementSettled
from svc_custody.domain.vocabulary import SettlementState
from svc_custody.store.business_date import BusinessDateStore
from svc_custody.store.facts import FactStore
from svc_custody.store.ledgers import Decisions, LedgerStore, Need
from svc_custody.store.schedule import ScheduleStore, Waiting

LEASE = "settlement"
PAUSE_SECONDS = 0.5
ROUNDS_MAX = 1_000
"""Rounds of one run: each settles up to 200 instructions, and what came in by them is tried again in the next."""

COUNT_EVERY_ROUNDS = 20
"""Counting what is open, for metrics alone, reads all of it."""

_logger = logging.getLogger(__name__)


class BusinessClock:
    """Which day it is for the ledger.

    Args:
        zone: IANA time zone of the firm.
        currency: whose business days are the firm's.
    """

    def __init__(self, clock: Clock, calendars: Calendars, *, zone: str, currency: str) -> None:
        self._clock = clock
        self._zone = ZoneInfo(zone)
        self.is_open: DayOpen = calendars.currency(currency)

    def today(self) -> date:
        """Return the business day that the wall clock says: today, or the last one before it."""
        now: datetime = self._clock.now()
        return business_day_at_or_before(now.astimezone(self._zone).date(), self.is_open)

    def after(self, day: date) -> date:
        """Return the next business day."""
        return next_business_day(day, self.is_open)


class Settling:
    """Moves instructions as far as they go at the business date."""

    def __init__(
        self,
        database: Database,
        leases: PostgresLeases,
        ledgers: LedgerStore,
        schedule: ScheduleStore,
        dates: BusinessDateStore,
        facts: FactStore,
        executions: Executions,
        clock: BusinessClock,
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._leases = leases
        self._ledgers = ledgers
        self._schedule = schedule
        self._dates = dates
        self._facts = facts
        self._executions = executions
        self._clock = clock
        self._pause_seconds = pause_seconds
        self._open: dict[int, int] = {}
        self._parked = 0
        self.settled = 0
        self.failed = 0

    async def run(self, keeper: LeaseKeeper) -> None:
        """Work, again and again.

        Raises:
            TrademeshError: PostgreSQL did not answer, or the lease is lost; begin again.
        """
        for number in itertools.count():
            await self._dates.follow(self._clock.today())
            await self.settle(lambda: keeper.current)
            if number % COUNT_EVERY_ROUNDS == 0:
                self._open = await self._schedule.open_counts()
            await asyncio.sleep(self._pause_seconds)

    async def settle(self, lease: Callable[[], HeldLease] | None = None) -> int:
        """Release, affirm and settle until nothing moves any more; return how many instructions settled.

        Args:
            lease: what each transaction checks; None for a caller that needs none.

        Raises:
            TrademeshError: as for `run`; what was recorded so far stands.
        """
        before = self.settled
        for account_id in await self._facts.releasable():
            async with self._database.transaction() as transaction:
                await self._check(transaction, lease)
                await self._executions.release(transaction, [account_id])
        self._parked = await self._facts.count_parked()
        for _ in range(ROUNDS_MAX):
            affirmed = await self._round(lease, await self._schedule.to_affirm(), _affirm)
            business_date = await self._dates.current()
            assert business_date is not None, "the business date is written before anything is served"
            tried = await self._round(lease, await self._schedule.to_settle(business_date), _attempt)
            if not affirmed and not tried:
                return self.settled - before
        _logger.warning("settling goes on after %d rounds", ROUNDS_MAX)
        return self.settled - before

    def samples(self) -> list[Sample]:
        """Return the worker's metrics; `custody_parked_executions` above 0 for longer than svc_risk's log lags is an alarm."""
        states = [SettlementState.INSTRUCTED, SettlementState.AFFIRMED, SettlementState.FAILED]
        return [
            Sample("custody_parked_executions", self._parked),
            Sample("custody_settlements_settled_total", self.settled),
            Sample("custody_settlement_failures_total", self.failed),
            *(Sample("custody_open_settlements", self._open.get(state, 0), (("state", state.name.lower()),)) for state in states),
        ]

    async def _round(
        self, lease: Callable[[], HeldLease] | None, waiting: Sequence[Waiting], command: Callable[[str, Moment], Command]
    ) -> int:
        """Decide what waits, all of it in one transaction; return how many that were."""
        if not waiting:
            return 0
        account_ids = {one.account_id for one in waiting}
        settlement_ids = [one.settlement_id for one in waiting]
        async with self._database.transaction() as transaction:
            await self._check(transaction, lease)
            locked = await self._ledgers.lock(transaction, account_ids)
            decisions = Decisions(await self._ledgers.load(transaction, account_ids, Need(settlement_ids=set(settlement_ids))))
            for one in waiting:
                decisions.decide(one.account_id, command(one.settlement_id, locked.moment))
            await self._ledgers.record(transaction, locked, decisions, tried=settlement_ids if command is _attempt else ())
        happened = [event for events in decisions.events.values() for event in events]
        self.settled += sum(isinstance(event, SettlementSettled) for event in happened)
        self.failed += sum(isinstance(event, SettlementFailed) for event in happened)
        return len(waiting)

    async def _check(self, transaction: Transaction, lease: Callable[[], HeldLease] | None) -> None:
        if lease is not None:
            await self._leases.assert_held(transaction, lease())


def _affirm(settlement_id: str, moment: Moment) -> Command:
    return AffirmSettlement(settlement_id, "", moment)


def _attempt(settlement_id: str, moment: Moment) -> Command:
    return AttemptSettlement(settlement_id, moment)
