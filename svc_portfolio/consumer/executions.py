"""Follows svc_oms's log: executions onto positions, in one transaction with the place up to which they are folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernel.bus.port import BusReader
from kernel.consumer import LogSource, Projection
from kernel.ports import Clock, Leases, RecordedEvent
from kernel.projection_store import Inboxed, ProjectionStore
from svc_portfolio.codec.executions import read_execution
from svc_portfolio.store.positions import PositionStore
from svc_portfolio.store.reads import PROJECTION, SOURCE


def execution_model(positions: PositionStore) -> Inboxed:
    """Return the read model of executions."""

    async def handle(transaction: Any, events: Sequence[RecordedEvent]) -> None:
        await positions.record(transaction, [found for event in events if (found := read_execution(event)) is not None])

    return Inboxed(handle)


def execution_projection(
    positions: PositionStore, store: ProjectionStore, log: LogSource, bus: BusReader | None, leases: Leases, clock: Clock
) -> Projection:
    """Return the projection of executions onto positions."""
    return Projection(PROJECTION, SOURCE, execution_model(positions), store, log, bus, leases, clock)
