"""Follows svc_oms's log. Each batch of events and the place up to which they are folded are one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernel.bus.port import BusReader
from kernel.consumer import LogSource, Projection
from kernel.ports import Clock, Leases, LogPosition, RecordedEvent
from kernel.projection_store import Handler, ProjectionStore
from svc_risk.store.facts import FactStore

NAME = "reservations"
SOURCE = "oms"


def order_handler(facts: FactStore) -> Handler:
    """Return what folds a batch of order events inside the projection's transaction."""

    async def fold(transaction: Any, events: Sequence[RecordedEvent]) -> None:
        await facts.fold(transaction, events)

    return fold


def order_projection(
    facts: FactStore, store: ProjectionStore, log: LogSource, bus: BusReader | None, leases: Leases, clock: Clock
) -> Projection:
    """Return the projection of order events onto reservations and exposures."""
    return Projection(NAME, SOURCE, order_handler(facts), store, log, bus, leases, clock)


class FoldedOrders:
    """Up to where order events are folded in."""

    def __init__(self, store: ProjectionStore) -> None:
        self._store = store

    async def position(self) -> LogPosition:
        """Return the position of svc_oms's log that the exposures show."""
        return await self._store.load(NAME, SOURCE)
