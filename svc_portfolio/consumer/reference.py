"""Follows svc_risk's log: whose account it is, and in which currency and at which venue an instrument trades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernel.bus.port import BusReader
from kernel.consumer import LogSource, Projection
from kernel.ports import Clock, Leases, RecordedEvent
from kernel.projection_store import Inboxed, ProjectionStore
from svc_portfolio.codec.reference import read_account, read_instrument
from svc_portfolio.store.reference import AccountRow, InstrumentRow, ReferenceStore

NAME = "reference-data"
SOURCE = "risk"


def reference_model(reference: ReferenceStore) -> Inboxed:
    """Return the read model of accounts and instruments."""

    async def handle(transaction: Any, events: Sequence[RecordedEvent]) -> None:
        accounts = [item for item in map(read_account, events) if item is not None]
        instruments = [item for item in map(read_instrument, events) if item is not None]
        await reference.put(
            transaction,
            [AccountRow(item.account_id, item.tenant, item.version) for item in accounts],
            [InstrumentRow(item.instrument_id, item.currency, item.venue, item.version) for item in instruments],
        )

    return Inboxed(handle)


def reference_projection(
    reference: ReferenceStore, store: ProjectionStore, log: LogSource, bus: BusReader | None, leases: Leases, clock: Clock
) -> Projection:
    """Return the projection of reference data."""
    return Projection(NAME, SOURCE, reference_model(reference), store, log, bus, leases, clock)
