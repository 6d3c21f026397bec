"""What time alone decides, on every replica and for every venue, configured or not: requests that were never sent, or never answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from kernel.errors import TrademeshError
from kernel.ports import Clock
from svc_oms.domain import Order, decide
from svc_oms.domain.commands import Command, MarkUnknown, RefuseUnsent
from svc_oms.fix.routing import UNANSWERED_SECONDS_MAX, UNSENT_SECONDS_MAX, Choice, Waiting, judge_waiting
from svc_oms.store.keys import purge_keys
from svc_oms.store.orders import OrderStore
from svc_oms.store.projection import open_requests
from svc_oms.store.venue_requests import QueuedRequest, forget, late, unanswered

_logger = logging.getLogger(__name__)

_CommandFor = Callable[[Order, QueuedRequest], Command | None]

SWEEP_SECONDS = 0.5
PURGE_SECONDS = 600.0


class Sweeper:
    """Refuses what waited too long to be sent, and marks UNKNOWN what waited too long for an answer.

    Replicas may sweep at once: each request is decided again under the lock of its order.
    """

    def __init__(self, store: OrderStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._purged_at = clock.monotonic()

    async def run(self) -> None:
        """Sweep until cancelled. A failing sweep is logged and tried again."""
        while True:
            try:
                busy = await self.sweep()
            except TrademeshError as error:
                _logger.warning("sweep failed", extra={"fields": {"reason": str(error)}})
                busy = False
            if not busy:
                await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> bool:
        """Sweep once; say whether there was something to do."""
        refused = await self._decide_each(await late(self._store.database, UNSENT_SECONDS_MAX), self._refusal)
        marked = await self._decide_each(await unanswered(self._store.database, UNANSWERED_SECONDS_MAX), self._mark)
        if self._clock.monotonic() - self._purged_at > PURGE_SECONDS:
            self._purged_at = self._clock.monotonic()
            await purge_keys(self._store.database)
        return refused or marked

    async def _decide_each(self, requests: Sequence[QueuedRequest], command_for: _CommandFor) -> bool:
        if not requests:
            return False
        async with self._store.unit() as unit:
            await unit.lock(request.order_id for request in requests)
            stray: list[str] = []
            for request in requests:
                order = unit.order(request.order_id)
                command = None if order is None else command_for(order, request)
                events = () if command is None else decide(order, command)
                unit.record(request.order_id, events)
                if not events and request.venue_client_order_id not in open_requests(order):
                    stray.append(request.venue_client_order_id)
            await unit.flush()
            # What is in the queue and needs nothing was left there by an older release; the next sweep must not meet it again.
            await forget(unit.transaction, stray)
        return True

    def _refusal(self, order: Order, request: QueuedRequest) -> Command | None:
        waiting = Waiting(request.action, request.venue_client_order_id, request.requested_at)
        verdict = judge_waiting(order, waiting, can_send=False, killed=False, now=request.now)
        if verdict.choice is not Choice.REFUSE:
            return None
        assert verdict.reason is not None
        return RefuseUnsent(request.action, request.venue_client_order_id, verdict.reason, verdict.text, self._clock.now())

    def _mark(self, order: Order, request: QueuedRequest) -> Command | None:
        return MarkUnknown(request.venue_client_order_id, self._clock.now())
