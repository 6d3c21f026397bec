"""Order events as they are copied: each once, with the order after it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kernel.ports import LOG_START, RecordedEvent
from kernel.postgres import Transaction
from kernel.postgres.arrays import uuids
from svc_reporting.codec.orders import order_of, order_stream, read_order_event, read_view, write_view
from svc_reporting.domain.fills import NOTHING, Counted, Fills, TradeKey
from svc_reporting.domain.orders import OrderEvent, OrderView, evolve
from svc_reporting.domain.vocabulary import ExecutionType

# Joined, not compared with ANY: in the filter of a scan, which a fresh table gets, the literal would be parsed again for every row.
_VERSIONS = """
SELECT order_id::text, max(version) FROM unnest($1::text::uuid[]) AS wanted (order_id) JOIN order_event USING (order_id) GROUP BY order_id
"""
_VIEWS = """
SELECT DISTINCT ON (order_id) order_id::text, view FROM unnest($1::text::uuid[]) AS wanted (order_id) JOIN order_event USING (order_id)
ORDER BY order_id, version DESC
"""
_EXECUTIONS = """
SELECT order_id::text, version, type, payload, recorded_at
FROM unnest($1::text::uuid[]) AS wanted (order_id) JOIN order_event USING (order_id)
WHERE execution ORDER BY order_id, version
"""
_COPY = """
INSERT INTO order_event (
    tx, position, order_id, version, account_id, type, payload, view, event_time, recorded_at, execution,
    trade_date, transact_time, trade_venue, trade_root_date, trade_exec_id, before_quantity, before_price
)
SELECT * FROM unnest(
    $1::bigint[], $2::bigint[], $3::uuid[], $4::int[], $5::text[], $6::text[], $7::bytea[], $8::text[],
    $9::timestamptz[], $10::timestamptz[], $11::boolean[], $12::date[], $13::timestamptz[], $14::text[], $15::date[],
    $16::text[], $17::numeric[], $18::numeric[]
)
"""


class CopiedOrders:
    """The read model of order events. An order's rows say themselves what of its stream is copied, so that it needs none in the inbox."""

    def plain(self, events: Sequence[RecordedEvent]) -> Mapping[str, Any]:
        """See `ReadModel.plain`: nothing is."""
        return {}

    async def settle(self, transaction: Any, plain: Mapping[str, Any]) -> Collection[str]:
        """See `ReadModel.settle`."""
        return plain

    async def applied(self, transaction: Any, stream_ids: Collection[str]) -> Mapping[str, int]:
        """Return the version up to which each order is copied."""
        order_ids = [order_id for stream_id in stream_ids if (order_id := order_of(stream_id)) is not None]
        rows = await transaction.fetch(_VERSIONS, uuids(order_ids)) if order_ids else []
        return {order_stream(order_id): version for order_id, version in rows}

    async def apply(self, transaction: Any, events: Sequence[RecordedEvent]) -> Collection[str]:
        """Copy order events; return the streams of orders.

        Raises:
            ValueError: an order's first event is missing; nothing may be skipped.
        """
        told = [(order_id, event, read_order_event(event)) for event in events if (order_id := order_of(event.stream_id)) is not None]
        if told:
            views = await _views(transaction, {order_id for order_id, _, _ in told})
            fills = await _amended(transaction, told)
            await _copy(transaction, [_row(order_id, event, facts, views, fills) for order_id, event, facts in told])
        return {event.stream_id for _, event, _ in told}


async def _views(transaction: Transaction, order_ids: Iterable[str]) -> dict[str, OrderView]:
    rows = await transaction.fetch(_VIEWS, uuids(order_ids))
    return {order_id: read_view(order_id, view) for order_id, view in rows}


async def _amended(transaction: Transaction, told: Sequence[tuple[str, RecordedEvent, OrderEvent]]) -> dict[str, Fills]:
    """The fills of orders of which one is busted or corrected now; others need no history."""
    order_ids = {order_id for order_id, _, facts in told if facts.execution is not None and facts.execution.type is not ExecutionType.TRADE}
    if not order_ids:
        return {}
    fills = {order_id: Fills() for order_id in order_ids}
    for order_id, version, kind, payload, recorded_at in await transaction.fetch(_EXECUTIONS, uuids(order_ids)):
        earlier = read_order_event(RecordedEvent(LOG_START, order_stream(order_id), version, kind, payload, b"", recorded_at))
        assert earlier.execution is not None, "an execution was copied as one"
        fills[order_id].add(earlier.execution)
    return fills


def _row(
    order_id: str, event: RecordedEvent, facts: OrderEvent, views: dict[str, OrderView], fills: Mapping[str, Fills]
) -> tuple[object, ...]:
    view = views[order_id] = evolve(views.get(order_id), facts)
    place = (event.position.tx, event.position.position, order_id, event.version, view.terms.account_id)
    copied = (*place, event.type, event.payload, write_view(view), facts.event_time, event.recorded_at)
    execution = facts.execution
    if execution is None:
        return (*copied, False, None, None, None, None, None, None, None)
    counted = Counted(TradeKey(execution.venue, execution.trade_date, execution.exec_id), NOTHING)
    if order_id in fills:
        counted = fills[order_id].add(execution)
    return (*copied, True, execution.trade_date, execution.transact_time, *counted.trade, *counted.before)


async def _copy(transaction: Transaction, rows: Sequence[tuple[object, ...]]) -> None:
    await transaction.execute(_COPY, *(list(column) for column in zip(*rows, strict=True)))
