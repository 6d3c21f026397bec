"""What the read models must hold after events, as the arrays of one statement. Pure: a fold of the log gives the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kernel.postgres.arrays import numbers, texts
from svc_oms.codec.orders import abandoned_message, execution_message, order_message
from svc_oms.domain import Action, Order, OrderState
from svc_oms.domain.events import Event, ExecutionRecorded

_TEXT, _SMALL, _INTEGER, _FLAG = "::text::text[]", "::text::smallint[]", "::text::integer[]", "::text::boolean[]"
_BYTES = ""
_NEW = (_TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _SMALL, _SMALL, _FLAG, _INTEGER, _BYTES)
_CHANGED = (_TEXT, _SMALL, _FLAG, _INTEGER, _BYTES)
_QUEUED = (_TEXT, _TEXT, _TEXT, _SMALL)
_REQUESTS = (_TEXT, _TEXT, _TEXT)
_EXECUTIONS = (_TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _BYTES)


def project_parameters(first: int) -> str:
    """Return the arguments of `orders_project` that `Projection.arguments` gives, as parameters from number `first` on."""
    columns = (*_NEW, *_CHANGED, *_QUEUED, *_REQUESTS, *_EXECUTIONS)
    return ", ".join(f"${number}{cast}" for number, cast in enumerate(columns, start=first))


class OpenRequest(NamedTuple):
    """A request that waits to be sent (`sent` false), for the venue's answer, or for evidence (`overdue`)."""

    action: Action
    sent: bool
    overdue: bool


_IN_DOUBT = OpenRequest(Action.NEW, sent=True, overdue=True)


def open_requests(order: Order | None) -> Mapping[str, OpenRequest]:
    """Return the requests of an order that the router still has to do something about, by ClOrdID at the venue.

    An UNKNOWN order counts as an overdue request for itself, whatever it was that nobody answered. Of a filled order, the sent replaces
    are open: the venue may yet grant one.
    """
    if order is None:
        return {}
    state = order.state
    if not order.requests:  # as nearly every order, at nearly every event
        if state is OrderState.PENDING_NEW:
            return {order.order_id: OpenRequest(Action.NEW, order.routed, overdue=False)}
        return {order.order_id: _IN_DOUBT} if state is OrderState.UNKNOWN else {}
    terminal = order.terminal
    if terminal and not order.reopening:
        return {}
    found = {
        request.venue_client_order_id: OpenRequest(request.action, request.sent, request.overdue)
        for request in order.requests
        if not terminal or (request.sent and request.action is Action.REPLACE)
    }
    if state is OrderState.PENDING_NEW:
        found[order.order_id] = OpenRequest(Action.NEW, order.routed, overdue=False)
    elif state is OrderState.UNKNOWN:
        found[order.order_id] = _IN_DOUBT
    return found


def snapshot_of(order: Order) -> bytes:
    """Return the order as the read model keeps it: a serialized `trademesh.oms.v1.Order`."""
    message = abandoned_message(order) if order.state is OrderState.ABANDONED else order_message(order)
    return message.SerializeToString()


class Projection:
    """Collects the rows of a batch. Add each order once, with its state before the batch and after it."""

    __slots__ = ("_answered", "_changed", "_executions", "_new", "_overdue", "_queued", "_sent")

    def __init__(self) -> None:
        self._new: list[tuple[Any, ...]] = []
        self._changed: list[tuple[Any, ...]] = []
        self._queued: list[tuple[Any, ...]] = []
        self._sent: list[str] = []
        self._overdue: list[str] = []
        self._answered: list[str] = []
        self._executions: list[tuple[Any, ...]] = []

    def add_new(self, order: Order, snapshot: bytes) -> None:
        """Add an order that begins."""
        terms = order.terms
        self._new.append(
            (
                terms.order_id,
                terms.account_id,
                terms.tenant,
                terms.principal,
                terms.instrument_id,
                terms.venue,
                terms.side.value,
                order.state.value,
                not order.terminal,
                order.version,
                snapshot,
            )
        )
        if order.state is OrderState.PENDING_NEW:
            self._queued.append((terms.order_id, terms.venue, terms.order_id, 0))

    def add(self, before: Order | None, after: Order, events: Iterable[Event]) -> None:
        """Add an order that changed, or began and changed, by these events."""
        if before is None:
            self.add_new(after, snapshot_of(after))
        else:
            self._changed.append((after.order_id, after.state.value, not after.terminal, after.version, snapshot_of(after)))
            self._add_requests(after, open_requests(before), open_requests(after))
        for event in events:
            if isinstance(event, ExecutionRecorded):
                self._add_execution(after, event)

    def _add_requests(self, order: Order, before: Mapping[str, OpenRequest], after: Mapping[str, OpenRequest]) -> None:
        terms = order.terms
        for request, now in after.items():
            was = before.get(request)
            if was is None:
                self._queued.append((request, terms.venue, terms.order_id, now.action.value))
            if now.sent and (was is None or not was.sent):
                self._sent.append(request)
            if now.overdue and (was is None or not was.overdue):
                self._overdue.append(request)
        self._answered.extend(request for request in before if request not in after)

    def _add_execution(self, order: Order, event: ExecutionRecorded) -> None:
        key, terms = event.execution.key, order.terms
        payload = execution_message(event.execution, terms).SerializeToString()
        self._executions.append((*key, terms.order_id, terms.account_id, terms.instrument_id, payload))

    def arguments(self) -> list[object]:
        """Return the arrays that `project_parameters` stands for."""
        return [
            *_columns(self._new, _NEW),
            *_columns(self._changed, _CHANGED),
            *_columns(self._queued, _QUEUED),
            texts(self._sent),
            texts(self._overdue),
            texts(self._answered),
            *_columns(self._executions, _EXECUTIONS),
        ]


def _columns(rows: list[tuple[Any, ...]], casts: tuple[str, ...]) -> list[object]:
    columns = zip(*rows, strict=True) if rows else ((),) * len(casts)
    return [_WRITERS[cast](column) for cast, column in zip(casts, columns, strict=True)]


_WRITERS: Mapping[str, Callable[[Iterable[Any]], object]] = {_TEXT: texts, _SMALL: numbers, _INTEGER: numbers, _FLAG: numbers, _BYTES: list}
