"""Settles reservations of which svc_oms has said nothing within the bound: it is asked, and only then anything is released."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kernel.lease import LeaseKeeper, PostgresLeases
from kernel.ports import HeldLease, LogPosition
from kernel.postgres import Database
from svc_risk.clients.orders import OrderControl
from svc_risk.store.facts import FactStore, Resolution

LEASE = "orphans"
BOUND_SECONDS = 30.0
PAUSE_SECONDS = 5.0


class OrphanSweeper:
    """Asks svc_oms what became of orders.

    Args:
        database: of the service.
        leases: of the service; each settlement checks that ours still holds.
        store: of reservations.
        orders: svc_oms.
        folded_position: up to which position of svc_oms's log order events are folded in.
        bound_seconds: how long a reservation may stay unconfirmed; above the longest transaction of either service.
        pause_seconds: between sweeps.
    """

    def __init__(
        self,
        database: Database,
        leases: PostgresLeases,
        store: FactStore,
        orders: OrderControl,
        folded_position: Callable[[], Awaitable[LogPosition]],
        *,
        bound_seconds: float = BOUND_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._leases = leases
        self._store = store
        self._orders = orders
        self._folded_position = folded_position
        self._bound_seconds = bound_seconds
        self._pause_seconds = pause_seconds

    async def run(self, keeper: LeaseKeeper) -> None:
        """Sweep, again and again.

        Raises:
            TrademeshError: svc_oms or PostgreSQL did not answer, or the lease is lost; begin again.
        """
        while True:
            await self.sweep(keeper.current)
            await asyncio.sleep(self._pause_seconds)

    async def sweep(self, lease: HeldLease) -> int:
        """Settle the oldest orphans, and return how many there were.

        Raises:
            TrademeshError: as for `run`; nothing was released that svc_oms has not given up.
        """
        orphans = await self._store.orphans(self._bound_seconds)
        if not orphans:
            return 0
        names = list(dict.fromkeys((orphan.order_id, orphan.account_id) for orphan in orphans))
        answer = await self._orders.resolve(names)
        resolved = {order.order_id: order for order in answer.orders}
        folded = await self._folded_position() >= answer.position
        resolutions = [Resolution(orphan, resolved[orphan.order_id].state) for orphan in orphans]
        async with self._database.transaction() as transaction:
            await self._leases.assert_held(transaction, lease)
            await self._store.settle(transaction, resolutions, folded=folded, bound_seconds=self._bound_seconds)
        return len(orphans)
