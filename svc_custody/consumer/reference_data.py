"""Follows svc_risk's log for accounts and instruments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernel.bus.port import BusReader
from kernel.consumer import LogSource, Projection
from kernel.ports import Clock, Leases, RecordedEvent
from kernel.projection_store import Inboxed, ProjectionStore
from svc_custody.codec.facts import read_account, read_instrument
from svc_custody.store.facts import FactStore

NAME = "reference-data"
SOURCE = "risk"


class ReferenceData:
    """Accounts and instruments as svc_risk records them."""

    def __init__(self, facts: FactStore) -> None:
        self._facts = facts

    async def apply(self, transaction: Any, events: Sequence[RecordedEvent]) -> None:
        """Fold events; those of other things are passed by."""
        for event in events:
            if (account := read_account(event.type, event.payload)) is not None:
                await self._facts.put_account(transaction, account)
            elif (instrument := read_instrument(event.type, event.payload)) is not None:
                await self._facts.put_instrument(transaction, instrument)


def reference_projection(
    facts: FactStore, store: ProjectionStore, log: LogSource, bus: BusReader | None, leases: Leases, clock: Clock
) -> Projection:
    """Return the projection of svc_risk's log onto accounts and instruments."""
    return Projection(NAME, SOURCE, Inboxed(ReferenceData(facts).apply), store, log, bus, leases, clock)
