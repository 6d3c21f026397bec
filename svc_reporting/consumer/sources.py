"""Follows the logs of svc_oms, svc_risk and, where there is one, svc_custody. Copies and the place up to which they go are one transaction.

A further source is a name in `SOURCES` and `DataPositions`, a handler, and its targets in the configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from kernel.bus.port import BusReader
from kernel.consumer import LogSource, Projection
from kernel.errors import Reason, UnavailableError
from kernel.ports import Clock, Leases, LogPosition
from kernel.projection_store import Inboxed, ProjectionStore, ReadModel
from svc_reporting.domain.report import SOURCES, DataVector
from svc_reporting.store.orders import CopiedOrders
from svc_reporting.store.reference import HANDLERS

NAME = "reports"
POLL_SECONDS = 0.05


def model_of(source: str) -> ReadModel:
    """Return what copies the events of a source."""
    return CopiedOrders() if source == "oms" else Inboxed(HANDLERS[source])


def projection_of(source: str, store: ProjectionStore, log: LogSource, bus: BusReader | None, leases: Leases, clock: Clock) -> Projection:
    """Return the projection of a source's log onto its copies."""
    return Projection(NAME, source, model_of(source), store, log, bus, leases, clock)


class FoldedSources:
    """Up to where each source is copied."""

    def __init__(self, store: ProjectionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def positions(self) -> DataVector:
        """Return the position of each source; the beginning of the log for one that is not followed."""
        return DataVector(**{source: await self._store.load(NAME, source) for source in SOURCES})

    async def reach(self, wanted: Mapping[str, LogPosition], within_seconds: float) -> DataVector:
        """Return the positions, once they are at least those that are wanted.

        Raises:
            UnavailableError: they are not in that time; nothing was done.
        """
        deadline = self._clock.monotonic() + within_seconds
        while behind := (found := await self.positions()).behind(wanted):
            if self._clock.monotonic() >= deadline:
                raise UnavailableError(
                    Reason.DEPENDENCY_UNAVAILABLE,
                    f"the log of {' and '.join(behind)} is not copied so far yet",
                    metadata={f"{source}_position": str(found.of(source)) for source in behind},
                    retry_after_seconds=1.0,
                )
            await asyncio.sleep(POLL_SECONDS)
        return found
