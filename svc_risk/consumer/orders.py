"""Follows svc_oms's log. Each batch of events and the place up to which they are folded are one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kernel.bus.port import BusReader
from kernel.consumer import LogSource, Projection
from kernel.ports import Clock, Leases, LogPosition, RecordedEvent
from kernel.projection_store import ProjectionStore
from svc_risk.codec.orders import is_fact, order_of, order_stream
from svc_risk.domain.reservation import ReservationStatus
from svc_risk.store.facts import FactStore, Step

NAME = "reservations"
SOURCE = "oms"


class Reservations:
    """Order events onto reservations and exposures. A reservation's `order_version` says what of its order is folded in, so that an order
    needs no row in the inbox; streams without a reservation have one there.
    """

    def __init__(self, facts: FactStore) -> None:
        self._facts = facts

    def plain(self, events: Sequence[RecordedEvent]) -> Mapping[str, Step]:
        """Return the orders whose events move nothing reserved: see `step`."""
        streams: dict[str, list[RecordedEvent]] = {}
        for event in events:
            known = streams.get(event.stream_id)
            if known is None:
                streams[event.stream_id] = [event]
            else:
                known.append(event)
        return {stream_id: found for stream_id, own in streams.items() if (found := step(own)) is not None}

    async def settle(self, transaction: Any, plain: Mapping[str, Step]) -> Collection[str]:
        """Advance the reservations of plain orders; return the streams of the others."""
        return {order_stream(order_id) for order_id in await self._facts.advance(transaction, plain.values())}

    async def applied(self, transaction: Any, stream_ids: Collection[str]) -> Mapping[str, int]:
        """Return how far orders are folded into their reservations."""
        order_ids = [order_id for stream_id in stream_ids if (order_id := order_of(stream_id)) is not None]
        return {order_stream(order_id): version for order_id, version in await self._facts.versions(transaction, order_ids)}

    async def apply(self, transaction: Any, events: Sequence[RecordedEvent]) -> Collection[str]:
        """Fold events; return the streams of orders that have a reservation."""
        return {order_stream(order_id) for order_id in await self._facts.fold(transaction, events)}


def step(events: Sequence[RecordedEvent]) -> Step | None:
    """Return what the events of one stream come to if they are those of an order and move nothing reserved; else None.

    Such are an acceptance, which confirms what was reserved, a rejection, after which nothing is, and events that are no facts.
    """
    first, last = events[0], events[-1]
    order_id = order_of(first.stream_id)
    if order_id is None or last.version - first.version != len(events) - 1:
        return None
    status = None
    if first.version == 1:
        status = _BEGINNINGS.get(first.type)
        if status is None:
            return None
    elif is_fact(first.type):
        return None
    if last is not first and any(is_fact(event.type) for event in events[1:]):
        return None
    return Step(order_id, first.version - 1, last.version, status)


_BEGINNINGS = {"oms.v1.OrderAccepted": int(ReservationStatus.UNCONFIRMED), "oms.v1.OrderRejected": int(ReservationStatus.REFUSED)}


def order_projection(
    facts: FactStore, store: ProjectionStore, log: LogSource, bus: BusReader | None, leases: Leases, clock: Clock
) -> Projection:
    """Return the projection of order events onto reservations and exposures."""
    return Projection(NAME, SOURCE, Reservations(facts), store, log, bus, leases, clock)


class FoldedOrders:
    """Up to where order events are folded in."""

    def __init__(self, store: ProjectionStore) -> None:
        self._store = store

    async def position(self) -> LogPosition:
        """Return the position of svc_oms's log that the exposures show."""
        return await self._store.load(NAME, SOURCE)
