"""What happens to orders, for the streams of clients: one tail of the log per replica, folded once and fanned out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from kernel.errors import InternalError, Reason, TrademeshError, UnavailableError
from kernel.event_records import to_position
from kernel.events.postgres import PostgresEventStore
from kernel.ports import LogPosition, RecordedEvent
from kernel.streams import Item, Mailbox, PositionExpiredError
from svc_oms.codec.events import decode, execution_of
from svc_oms.codec.orders import order_message
from svc_oms.domain import Order, OrderState, evolve
from svc_oms.store.decisions import STREAM_PREFIX
from svc_oms.store.reads import OrderReads
from trademesh.oms.v1 import order_pb2, order_service_pb2

SNAPSHOT_ORDERS_MAX = 500
CATCH_UP_EVENTS_MAX = 20_000
"""Events of the whole log behind which a resumed stream begins with a snapshot instead."""

_PAGE = 1_000
_ORDERS_KEPT = 20_000
_RETRY_SECONDS = 0.5
_SNAPSHOT_UNFINISHED = "snapshot"
_EXECUTION = "oms.v1.ExecutionRecorded"

Response = order_service_pb2.StreamOrderEventsResponse

_logger = logging.getLogger(__name__)


class OrderFeed:
    """Tails the log while anybody listens, and hands every change of an order to whoever asked for its account."""

    def __init__(self, log: PostgresEventStore) -> None:
        self._log = log
        self._orders: OrderedDict[str, Order] = OrderedDict()
        self._listeners: dict[str, dict[OrderSource, None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._cursor: LogPosition | None = None
        self._starting = asyncio.Lock()

    async def enter(self, listener: OrderSource) -> LogPosition:
        """Hand the listener every later event; return the position after which they come."""
        async with self._starting:
            if self._task is None or self._cursor is None:
                self._cursor = await self._log.horizon()
                self._task = asyncio.create_task(self._run(), name="order-feed")
            self._listeners.setdefault(listener.account_id, {})[listener] = None
            return self._cursor

    async def leave(self, listener: OrderSource) -> None:
        """Forget a listener; the tail ends with the last one."""
        listeners = self._listeners.get(listener.account_id)
        if listeners is not None:
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[listener.account_id]
        if not self._listeners:
            await self.close()

    async def close(self) -> None:
        """Stop tailing."""
        task, self._task, self._cursor = self._task, None, None
        self._orders.clear()
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def changes(self, events: Sequence[RecordedEvent], known: dict[str, Order]) -> list[tuple[RecordedEvent, Order]]:
        """Return each event of an order with the order after it. `known` holds states to go on from, and takes the new ones."""
        wanted = [event for event in events if event.stream_id.startswith(STREAM_PREFIX)]
        missing = {event.stream_id for event in wanted if event.version > 1 and _behind(known.get(event.stream_id), event)}
        histories = await self._log.read_streams(sorted(missing)) if missing else {}
        changed: list[tuple[RecordedEvent, Order]] = []
        for event in wanted:
            order = known.get(event.stream_id)
            if order is not None and order.version >= event.version:
                # Seen before, or read ahead of the log's order: fold from the start, to show the order as it was.
                order = None
            for earlier in histories.get(event.stream_id, ()):
                if (0 if order is None else order.version) < earlier.version < event.version:
                    order = evolve(order, decode(earlier))
            order = evolve(order, decode(event))
            assert order.version == event.version, f"{event.event_id} folds to version {order.version}"
            known[event.stream_id] = order
            changed.append((event, order))
        return changed

    async def _run(self) -> None:
        try:
            await self._tail()
        except Exception:
            # A defect: without the tail the streams would show a calm that is not there.
            _logger.exception("the order feed met a defect")
            for listeners in tuple(self._listeners.values()):
                for listener in tuple(listeners):
                    listener.fail(InternalError(Reason.INTERNAL, "the stream met a defect; open it again"))
            # Whoever enters next starts it anew; on a tail that has ended they would wait for ever.
            self._task = self._cursor = None
            self._orders.clear()

    async def _tail(self) -> None:
        while True:
            assert self._cursor is not None
            batches = self._log.subscribe(self._cursor)
            try:
                async for events in batches:
                    for event, order in await self.changes(events, self._orders):
                        self._hand_out(event, order)
                    self._cursor = events[-1].position
                    while len(self._orders) > _ORDERS_KEPT:
                        self._orders.popitem(last=False)
            except TrademeshError as error:
                _logger.warning("order feed failed", extra={"fields": {"reason": str(error)}})
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                await batches.aclose()

    def _hand_out(self, event: RecordedEvent, order: Order) -> None:
        listeners = self._listeners.get(order.terms.account_id)
        if listeners:
            change = order_event(event, order)
            for listener in tuple(listeners):
                listener.offer(event, order, change)


def _behind(known: Order | None, event: RecordedEvent) -> bool:
    return known is None or known.version != event.version - 1


def order_event(event: RecordedEvent, order: Order) -> order_service_pb2.OrderEvent:
    """Return an event as streams show it."""
    return order_service_pb2.OrderEvent(
        type=event.type,
        order=order_message(order),
        execution=execution_of(event.payload) if event.type == _EXECUTION else None,
        log_position=to_position(event.position),
    )


class OrderSource:
    """One client's selection of the feed: an account, and perhaps one instrument (`kernel.streams.Source`)."""

    def __init__(
        self, feed: OrderFeed, reads: OrderReads, log: PostgresEventStore, account_id: str, tenant: str, instrument_id: str
    ) -> None:
        self._feed = feed
        self._reads = reads
        self._log = log
        self.account_id = account_id
        self._tenant = tenant
        self._instrument_id = instrument_id
        self._mailbox: Mailbox[Response] | None = None
        self._held: list[tuple[RecordedEvent, Order, order_service_pb2.OrderEvent]] | None = None
        self._after = LogPosition(0, 0)
        self._shown: dict[str, int] = {}

    async def snapshot(self, mailbox: Mailbox[Response]) -> AsyncIterator[Item[Response]]:
        """See `Source.snapshot`. What happens meanwhile is held back, and left out where the snapshot shows it already."""
        position = await self._begin(mailbox)
        self._shown = {}
        sequence = 0
        while True:
            rows = await self._reads.open_page(
                self.account_id, after=sequence, instrument_id=self._instrument_id, limit=SNAPSHOT_ORDERS_MAX
            )
            orders = [order_pb2.Order.FromString(row.message) for row in rows]
            self._shown.update((order.order_id, order.version) for order in orders)
            complete = len(rows) < SNAPSHOT_ORDERS_MAX
            shown = order_service_pb2.OrderSnapshot(orders=orders, complete=complete, log_position=to_position(position))
            # A stream that breaks inside a snapshot begins it anew: what it has seen is only a part.
            yield Item(Response(snapshot=shown), str(position) if complete else _SNAPSHOT_UNFINISHED)
            if complete:
                break
            sequence = rows[-1].sequence
        self._after = position
        self._release()

    async def resume(self, position: str, mailbox: Mailbox[Response]) -> None:
        """See `Source.resume`."""
        if position == _SNAPSHOT_UNFINISHED:
            raise PositionExpiredError
        begun = cursor = LogPosition.parse(position)
        upto = await self._begin(mailbox)
        self._shown = {}
        read = 0
        known: dict[str, Order] = {}
        while cursor < upto:
            events = await self._log.read_after(cursor, _PAGE)
            read += len(events)
            if read > CATCH_UP_EVENTS_MAX:
                raise PositionExpiredError
            for event, order in await self._feed.changes([event for event in events if event.position <= upto], known):
                if order.terms.account_id == self.account_id:
                    self._put(event, order, order_event(event, order))
            if len(events) < _PAGE:
                break
            cursor = events[-1].position
        # Not the cursor: the last page may reach beyond what the feed has read, and that is still the feed's to tell.
        self._after = max(upto, begun)
        self._release()

    async def close(self) -> None:
        """See `Source.close`."""
        await self._feed.leave(self)

    def offer(self, event: RecordedEvent, order: Order, change: order_service_pb2.OrderEvent) -> None:
        """Take an event of the feed."""
        if self._held is not None:
            self._held.append((event, order, change))
            if len(self._held) > CATCH_UP_EVENTS_MAX:
                self.fail(UnavailableError(Reason.OVERLOADED, "the snapshot took too long; open the stream again", retry_after_seconds=1.0))
        elif event.position > self._after:
            self._put(event, order, change)

    async def _begin(self, mailbox: Mailbox[Response]) -> LogPosition:
        self._mailbox = mailbox
        self._held = []
        return await self._feed.enter(self)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for event, order, change in held:
            self.offer(event, order, change)

    def _put(self, event: RecordedEvent, order: Order, change: order_service_pb2.OrderEvent) -> None:
        terms = order.terms
        selected = not self._instrument_id or terms.instrument_id == self._instrument_id
        if not selected or terms.tenant != self._tenant or order.state is OrderState.ABANDONED:
            return
        if event.version <= self._shown.get(terms.order_id, 0):
            return
        assert self._mailbox is not None
        self._mailbox.put(Item(Response(event=change), str(event.position)))

    def fail(self, error: TrademeshError) -> None:
        """End the client's stream: the feed cannot go on for it."""
        self._held = []
        if self._mailbox is not None:
            self._mailbox.fail(error)
