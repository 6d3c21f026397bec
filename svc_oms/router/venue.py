"""A venue's session on this replica: wait for the lease, then connect, send, ask, until the lease is lost or the service stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime

from kernel.breaker import Breaker
from kernel.errors import LeaseLostError, TrademeshError
from kernel.fix.steps import AppMessage
from kernel.leadership import lead
from kernel.lease import LeaseKeeper, PostgresLeases
from kernel.ports import Clock, IdSource
from svc_oms.domain import Order
from svc_oms.fix.connection import ConnectionConfig, VenueConnection
from svc_oms.fix.ports import Number, Persist
from svc_oms.fix.requests import mass_status_request, status_request
from svc_oms.fix.routing import Reconciliation, reconcile
from svc_oms.router.host import SessionTransactions
from svc_oms.store.orders import OrderStore
from svc_oms.store.venue_requests import REQUESTS_MAX, any_unsent, doubtful, open_at, server_time

_logger = logging.getLogger(__name__)

ACQUIRE_SECONDS = 0.5
RECONCILE_SECONDS = 0.5
IDLE_SECONDS_MIN = 0.002
IDLE_SECONDS_MAX = 0.05
STOP_SECONDS = 6.0


class VenueRouter:
    """Keeps a venue's session on one replica at a time.

    Args:
        config: the venue and its FIX session.
        store: the orders.
        leases: where the lease lives.
        clock: time.
        ids: ids of status requests.
    """

    def __init__(self, config: ConnectionConfig, store: OrderStore, leases: PostgresLeases, clock: Clock, ids: IdSource) -> None:
        self._config = config
        self._store = store
        self._leases = leases
        self._clock = clock
        self._ids = ids
        # The router's, so that a session taken anew is not one that has never failed.
        self.breaker = Breaker(f"venue {config.venue}")
        self._connection: VenueConnection | None = None
        self._stopping = asyncio.Event()

    @property
    def lease_name(self) -> str:
        """Return the name of the session's lease."""
        return f"venue-session/{self._config.venue}"

    @property
    def logged_on(self) -> bool:
        """Say whether this replica holds the session and may send."""
        return self._connection is not None and self._connection.view().ready

    async def run(self) -> None:
        """Hold the session whenever it is free, until cancelled; `stop` first, for a graceful end."""
        await lead(self._leases, self.lease_name, self._hold, retry_seconds=ACQUIRE_SECONDS)

    async def stop(self) -> None:
        """Log out and send nothing more."""
        self._stopping.set()
        if self._connection is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._connection.stop(), STOP_SECONDS)

    async def _hold(self, keeper: LeaseKeeper) -> None:
        if self._stopping.is_set():
            return
        _logger.info("venue session taken", extra={"fields": {"venue": self._config.venue, "epoch": keeper.current.epoch}})
        transactions = SessionTransactions(self._config.venue, self._store, self._leases, lambda: keeper.current, self._clock)
        connection = VenueConnection(
            self._config, transactions, self._clock, still_mine=lambda: self._leases.still_mine(keeper.current), breaker=self.breaker
        )
        self._connection = connection
        work = [
            asyncio.create_task(connection.run(), name="venue-connection"),
            asyncio.create_task(self._send(connection, transactions), name="venue-sender"),
            asyncio.create_task(self._ask(connection, transactions), name="venue-asker"),
        ]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # All are gone before the lease is given back, so that whoever takes it next never meets a writer of ours.
            self._connection = None
            for task in work:
                task.cancel()
            ends = await asyncio.gather(*work, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _send(self, connection: VenueConnection, transactions: SessionTransactions) -> None:
        """Send what waits, batch after batch; look more and more seldom while nothing does."""
        pause = IDLE_SECONDS_MIN
        while True:
            await connection.ready()
            try:
                waiting = await any_unsent(self._store.database, self._config.venue)
                sent = waiting and await connection.transmit(transactions.send_waiting)
            except LeaseLostError:
                raise
            except TrademeshError as error:
                _logger.warning("sending failed", extra={"fields": {"venue": self._config.venue, "reason": str(error)}})
                sent, pause = False, IDLE_SECONDS_MAX
            pause = IDLE_SECONDS_MIN if sent else min(2 * pause, IDLE_SECONDS_MAX)
            await asyncio.sleep(pause)

    async def _ask(self, connection: VenueConnection, transactions: SessionTransactions) -> None:
        """Ask the venue about orders in doubt: after each logon all that were sent before it, later those that went unanswered."""
        state = Reconciliation()
        logged_on_at: datetime | None = None
        while True:
            await connection.ready()
            try:
                view = connection.view()
                if logged_on_at is None or view.generation != state.generation:
                    logged_on_at = await server_time(self._store.database)
                orders = await self._doubtful(logged_on_at)
                state, questions = reconcile(state, view, list(orders.values()), self._clock.now())
                if questions.synchronise:
                    await connection.synchronise()
                messages: list[AppMessage] = [mass_status_request(self._ids.new_id())] if questions.mass_status else []
                messages += [status_request(orders[order_id], self._ids.new_id()) for order_id in questions.order_ids]
                if messages:
                    await connection.transmit(_asking(transactions, messages))
                await self._recount(connection, transactions)
            except LeaseLostError:
                raise
            except TrademeshError as error:
                _logger.warning("reconciliation failed", extra={"fields": {"venue": self._config.venue, "reason": str(error)}})
            await asyncio.sleep(RECONCILE_SECONDS)

    async def _recount(self, connection: VenueConnection, transactions: SessionTransactions) -> None:
        """After the venue has skipped numbers: ask what it has, then for each order that it did not mention."""
        recount, view, now = connection.recount, connection.view(), self._clock.now()
        if recount.wants_mass_status(view):
            request_id, sent = self._ids.new_id(), False
            recount.asks_all(request_id, view.generation, now)
            try:
                sent = await connection.transmit(_asking(transactions, [mass_status_request(request_id)]))
            finally:
                if not sent:
                    recount.begin()
        elif recount.wants_orders(now):
            recount.compare(await open_at(self._store.database, self._config.venue))
        if view.ready and (due := recount.due(now, REQUESTS_MAX)):
            orders = await self._store.load_many(due)
            asking = [order for order in orders.values() if order.acknowledged and not order.terminal]
            recount.settle(set(due).difference(order.order_id for order in asking))
            recount.asks((order.order_id for order in asking), now)
            if asking:
                await connection.transmit(_asking(transactions, [status_request(order, self._ids.new_id()) for order in asking]))

    async def _doubtful(self, logged_on_at: datetime) -> dict[str, Order]:
        order_ids = await doubtful(self._store.database, self._config.venue, logged_on_at)
        assert len(order_ids) <= REQUESTS_MAX
        return await self._store.load_many(order_ids)


def _asking(transactions: SessionTransactions, messages: Sequence[AppMessage]) -> Persist:
    async def persist(number: Number) -> None:
        await transactions.send_questions(number, messages)

    return persist
