"""Follows svc_oms's log: each execution once onto its account's ledger.

A batch, its place in the log and its ledgers are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from kernel.bus.port import BusReader
from kernel.consumer import LogSource, Projection
from kernel.ports import Clock, Leases, LogPosition, RecordedEvent
from kernel.postgres import Transaction
from kernel.projection_store import Inboxed, ProjectionStore
from svc_custody.clients.calendars import Calendars
from svc_custody.codec.facts import EXECUTION_RECORDED, InstrumentFact, execution_of, read_execution
from svc_custody.domain.commands import ApplyExecution, Execution, Instrument
from svc_custody.domain.vocabulary import cash, security
from svc_custody.store.facts import FactStore
from svc_custody.store.ledgers import Decisions, LedgerStore, Need
from trademesh.oms.v1 import execution_pb2

NAME = "executions"
SOURCE = "oms"


class Executions:
    """Executions onto ledgers. One whose instrument is not known is parked, and those of its account and instrument queue behind it.

    Args:
        affirm_seconds: from an instruction to its automatic affirmation.
    """

    def __init__(self, ledgers: LedgerStore, facts: FactStore, calendars: Calendars, *, affirm_seconds: float) -> None:
        self._ledgers = ledgers
        self._facts = facts
        self._calendars = calendars
        self._affirm_after = timedelta(seconds=affirm_seconds)

    async def apply(self, transaction: Any, events: Sequence[RecordedEvent]) -> None:
        """Fold events of orders; those that are no executions are passed by.

        Raises:
            ValueError: an execution that the contract does not allow; the projection stops.
        """
        messages = [read_execution(event.payload) for event in events if event.type == EXECUTION_RECORDED]
        if messages:
            await self._fold(transaction, messages, parking=True)

    async def release(self, transaction: Transaction, account_ids: Sequence[str]) -> int:
        """Fold what is parked of accounts and has its instrument by now; return how many executions that were."""
        await self._ledgers.lock(transaction, account_ids)
        taken = await self._facts.take_parked(transaction, account_ids)
        if taken:
            await self._fold(transaction, [execution_pb2.Execution.FromString(message) for message in taken], parking=False)
        return len(taken)

    async def _fold(self, transaction: Transaction, messages: Sequence[execution_pb2.Execution], *, parking: bool) -> None:
        account_ids = {message.account_id for message in messages}
        locked = await self._ledgers.lock(transaction, account_ids)
        # After the lock: who releases parked executions holds it too, so none can be overtaken.
        instruments = await self._facts.instruments(transaction, {message.instrument_id for message in messages})
        queues = await self._facts.parked(transaction, account_ids) if parking else set()
        ready, parked = [], []
        for message in messages:
            queue = (message.account_id, message.instrument_id)
            if message.instrument_id not in instruments or queue in queues:
                queues.add(queue)
                parked.append((*queue, message.SerializeToString(deterministic=True)))
            else:
                ready.append(execution_of(message))
        if parked:
            await self._facts.park(transaction, parked)
        decisions = Decisions(await self._ledgers.load(transaction, account_ids, _need(ready, instruments.values())))
        terms = {name: self._terms(fact) for name, fact in instruments.items()}
        for execution in ready:
            command = ApplyExecution(execution, terms[execution.instrument_id], self._affirm_after, locked.moment)
            decisions.decide(execution.account_id, command)
        await self._ledgers.record(transaction, locked, decisions)

    def _terms(self, fact: InstrumentFact) -> Instrument:
        return Instrument(fact.currency, fact.asset_class, self._calendars.instrument(fact.currency, fact.holidays))


def _need(executions: Sequence[Execution], instruments: Any) -> Need:
    need = Need()
    for execution in executions:
        need.executions |= {(execution.key.venue, execution.key.exec_id), (execution.key.venue, execution.exec_ref_id)}
    for fact in instruments:
        need.assets |= {security(fact.instrument_id), cash(fact.currency)}
    return need


def execution_projection(
    executions: Executions, store: ProjectionStore, log: LogSource, bus: BusReader | None, leases: Leases, clock: Clock
) -> Projection:
    """Return the projection of svc_oms's log onto ledgers."""
    return Projection(NAME, SOURCE, Inboxed(executions.apply), store, log, bus, leases, clock)


class FoldedOrders:
    """Up to where executions are folded in."""

    def __init__(self, store: ProjectionStore) -> None:
        self._store = store

    async def position(self) -> LogPosition:
        """Return the position of svc_oms's log that the ledgers show."""
        return await self._store.load(NAME, SOURCE)
