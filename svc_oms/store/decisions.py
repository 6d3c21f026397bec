"""What is decided on orders, and what records it: the same whether the orders are locked or were only looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kernel.events.batch import check_batch
from kernel.ports import Commit, StreamAppend
from kernel.postgres.arrays import joined, numbers, texts
from svc_oms.codec.events import encode
from svc_oms.domain import Order, fold
from svc_oms.domain.events import Event
from svc_oms.store.projection import Projection, project_parameters

STREAM_PREFIX = "order-"

EVENT_PARAMETERS = (
    "$1::text::text[], $2::text::int[], $3::text::int[], "
    "$4::text::text[], $5::text::int[], $6::text::text[], $7, $8::text::int[], $9::text::int[]"
)
"""Parameters of `event_extend`, the first of what `OrderDecisions.arguments` gives."""
ROW_PARAMETERS = project_parameters(10)
"""Parameters of `orders_project`, the rest of it."""
PARAMETERS_NEXT = 40
"""The number of the parameter after them."""


def stream_of(order_id: str) -> str:
    """Return the stream of an order."""
    return STREAM_PREFIX + order_id


class OrderDecisions:
    """Orders as they were found, and the events that a batch adds to them. Nothing is written here."""

    def __init__(self, found: Mapping[str, Order | None] | None = None) -> None:
        self._before: dict[str, Order | None] = dict(found or {})
        self._after: dict[str, Order] = {}
        self._events: dict[str, list[Event]] = {}

    def __contains__(self, order_id: str) -> bool:
        """Say whether the order was found."""
        return order_id in self._before

    def order(self, order_id: str) -> Order | None:
        """Return an order that was found, as it has been left so far."""
        return self._after.get(order_id) or self._before[order_id]

    def record(self, order_id: str, events: Sequence[Event], after: Order | None = None) -> Order | None:
        """Add events of an order and return it after them; `after` spares folding what the decision has folded already."""
        order = fold(events, self.order(order_id)) if after is None else after
        if events:
            assert order is not None
            self._after[order_id] = order
            self._events.setdefault(order_id, []).extend(events)
        return order

    def changed(self) -> Iterable[Order]:
        """Return the orders that got events, as they are after them."""
        return self._after.values()

    def heads(self) -> list[tuple[str, int]]:
        """Return the streams of all orders, ascending, with the versions at which they were found."""
        return [(stream_of(order_id), _version(order)) for order_id, order in sorted(self._before.items())]

    def appends(self) -> list[StreamAppend]:
        """Return what each order's stream gets."""
        return [
            StreamAppend(
                stream_of(order_id), _version(self._before[order_id]), tuple(encode(event, self._after[order_id].terms) for event in events)
            )
            for order_id, events in self._events.items()
        ]

    def arguments(self, appends: Sequence[StreamAppend]) -> list[object]:
        """Return what `EVENT_PARAMETERS` and `ROW_PARAMETERS` stand for, of these appends and the orders' rows.

        Raises:
            ValueError: as `check_batch`.
        """
        if appends:
            check_batch((Commit(tuple(appends)),))
        projection = Projection()
        for order_id, events in self._events.items():
            projection.add(self._before[order_id], self._after[order_id], events)
        arguments = [*_event_columns(appends), *projection.arguments()]
        assert len(arguments) == PARAMETERS_NEXT - 1
        return arguments


def _version(order: Order | None) -> int:
    return 0 if order is None else order.version


def _event_columns(appends: Sequence[StreamAppend]) -> tuple[object, ...]:
    rows = [
        (append.stream_id, version, event)
        for append in appends
        for version, event in enumerate(append.events, start=append.expected_version + 1)
    ]
    assert not any(event.metadata for _, _, event in rows), "an event of an order says it all in its payload"
    return (
        texts([append.stream_id for append in appends]),
        numbers([append.expected_version for append in appends]),
        numbers([len(append.events) for append in appends]),
        texts([stream_id for stream_id, _, _ in rows]),
        numbers([version for _, version, _ in rows]),
        texts([event.type for _, _, event in rows]),
        *joined([event.payload for _, _, event in rows]),
    )
