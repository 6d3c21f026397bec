"""The batches of a replica, put together for its process and for tests alike."""

from __future__ import annotations

from dataclasses import dataclass

from kernel.batcher import Batcher, Lane
from kernel.ports import Clock
from svc_oms.clients import PreTrade
from svc_oms.codec.requests import OrderCommand
from svc_oms.servicer.change_batches import OrderChanges
from svc_oms.servicer.changes import Change, Changed
from svc_oms.servicer.creates import Created, OrderEntry
from svc_oms.servicer.entry import BATCH_ORDERS_MAX, CONTROL_LANE, ORDERS_LANE
from svc_oms.servicer.requests import OrderRequests
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OrderReads

GATHER_SECONDS = 0.008
"""Measured at 256 callers: 4 ms cut the processor time of an order by a fifth, 8 to 10 ms by a quarter, and answers came no later."""

STANDING_SECONDS = 0.5
"""More than the slowest hundredth of orders takes under as much load as one client's edge lets in (docs/reference/performance.md)."""

ORDERS = Lane(batch_size_max=BATCH_ORDERS_MAX, queue_max=8_192, gather_seconds=GATHER_SECONDS, standing_seconds_max=STANDING_SECONDS)
CONTROL = Lane(batch_size_max=256, queue_max=8_192, flushes_in_flight_max=1, wait_seconds_max=5.0)
"""Two flushes at once would be as safe as two replicas are, and cancels came no sooner (ADR 37)."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """The batches of a replica: new orders, and everything that must never wait behind them."""

    orders: Batcher[OrderCommand, Created]
    control: Batcher[Change, Changed]
    requests: OrderRequests

    async def close(self) -> None:
        """Serve what waits, and refuse what comes."""
        await self.orders.close()
        await self.control.close()


def lanes(store: OrderStore, reads: OrderReads, risk: PreTrade, clock: Clock, *, orders: Lane = ORDERS, control: Lane = CONTROL) -> Lanes:
    """Return the batches of a replica."""
    changes = OrderChanges(store, reads, clock)
    entry = OrderEntry(store, risk, clock)
    order_batcher: Batcher[OrderCommand, Created] = Batcher(entry.flush, {ORDERS_LANE: orders}, clock)
    change_batcher: Batcher[Change, Changed] = Batcher(changes.flush, {CONTROL_LANE: control}, clock)
    return Lanes(order_batcher, change_batcher, OrderRequests(change_batcher, changes, store, reads, risk, clock))
