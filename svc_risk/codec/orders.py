"""Order events of svc_oms as facts."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from svc_risk.domain import reservation as r
from svc_risk.domain.vocabulary import OrderState, Side
from trademesh.oms.v1 import events_pb2

ORDER_STREAM_PREFIX = "order-"


def order_of(stream_id: str) -> str | None:
    """Return the order that a stream belongs to, None for other streams."""
    return stream_id.removeprefix(ORDER_STREAM_PREFIX) if stream_id.startswith(ORDER_STREAM_PREFIX) else None


def order_stream(order_id: str) -> str:
    """Return the stream of an order."""
    return ORDER_STREAM_PREFIX + order_id


def is_fact(event_type: str) -> bool:
    """Say whether events of a type move reservations."""
    return event_type in _READERS


def read_fact(event_type: str, version: int, payload: bytes) -> r.OrderFact | None:
    """Return the fact in an order event, None for types that do not move reservations, new ones included.

    Raises:
        google.protobuf.message.DecodeError: the payload is not what its type says.
    """
    reader = _READERS.get(event_type)
    return None if reader is None else reader(version, payload)


def _price(message: events_pb2.ReplaceRequested | events_pb2.OrderReplaced | events_pb2.OrderTerms) -> Decimal | None:
    return Decimal(message.limit_price) if message.HasField("limit_price") else None


def _accepted(version: int, payload: bytes) -> r.OrderFact:
    terms = events_pb2.OrderAccepted.FromString(payload).terms
    return r.Accepted(
        version,
        r.OrderTerms(terms.order_id, terms.account_id, terms.instrument_id, Side(terms.side), Decimal(terms.quantity), _price(terms)),
    )


def _executed(version: int, payload: bytes) -> r.OrderFact:
    message = events_pb2.ExecutionRecorded.FromString(payload)
    execution = message.execution
    return r.Executed(
        version, execution.exec_id, Decimal(execution.last_price), Decimal(execution.filled_quantity), OrderState(message.state)
    )


def _replace_requested(version: int, payload: bytes) -> r.OrderFact:
    message = events_pb2.ReplaceRequested.FromString(payload)
    return r.ReplaceAsked(version, message.request_id, Decimal(message.quantity), _price(message))


def _replace_rejected(version: int, payload: bytes) -> r.OrderFact:
    return r.ReplaceDropped(version, events_pb2.ReplaceRejected.FromString(payload).request_id)


def _replaced(version: int, payload: bytes) -> r.OrderFact:
    message = events_pb2.OrderReplaced.FromString(payload)
    return r.Replaced(version, Decimal(message.quantity), _price(message), message.restated)


def _state_changed(version: int, payload: bytes) -> r.OrderFact:
    return r.StateChanged(version, OrderState(events_pb2.OrderStateChanged.FromString(payload).state))


def _ended(version: int, payload: bytes) -> r.OrderFact:
    return r.Ended(version)


_READERS: dict[str, Callable[[int, bytes], r.OrderFact]] = {
    "oms.v1.OrderAccepted": _accepted,
    "oms.v1.OrderRejected": _ended,
    "oms.v1.OrderAbandoned": _ended,
    "oms.v1.OrderRefused": _ended,
    "oms.v1.OrderCanceled": _ended,
    "oms.v1.ExecutionRecorded": _executed,
    "oms.v1.ReplaceRequested": _replace_requested,
    "oms.v1.ReplaceRefused": lambda version, _: r.ReplaceDropped(version, None),
    "oms.v1.ReplaceRejected": _replace_rejected,
    "oms.v1.OrderReplaced": _replaced,
    "oms.v1.OrderStateChanged": _state_changed,
}
