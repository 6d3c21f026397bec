"""Events of svc_oms as facts, and views of orders as the read model keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from kernel.ports import RecordedEvent
from svc_reporting.codec.scalars import moment, optional_decimal
from svc_reporting.domain.cells import decimal_text
from svc_reporting.domain.orders import NEW_ORDER, Execution, OrderEvent, OrderTerms, OrderView
from svc_reporting.domain.vocabulary import ExecutionType, OrderState
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import events_pb2, order_pb2

_PREFIX = "order-"
_REASON_PREFIX = "ERROR_REASON_"
_Facts = dict[str, Any]


def order_of(stream_id: str) -> str | None:
    """Return the order that a stream belongs to; None for kill switches and sessions."""
    return stream_id.removeprefix(_PREFIX) if stream_id.startswith(_PREFIX) else None


def order_stream(order_id: str) -> str:
    """Return the stream of an order."""
    return _PREFIX + order_id


def read_order_event(event: RecordedEvent) -> OrderEvent:
    """Return the facts of an event; of a type that these rules do not know, only that it happened."""
    known = _READERS.get(event.type)
    if known is None:
        return OrderEvent(type=event.type, event_time=event.recorded_at)
    message_type, read = known
    message: Any = message_type.FromString(event.payload)
    return OrderEvent(type=event.type, event_time=moment(message.event_time), **read(message))


def write_view(view: OrderView) -> str:
    """Return a view as text."""
    terms = view.terms
    return json.dumps(
        {
            "client_order_id": terms.client_order_id,
            "account_id": terms.account_id,
            "tenant": terms.tenant,
            "principal": terms.principal,
            "instrument_id": terms.instrument_id,
            "side": terms.side,
            "order_type": terms.order_type,
            "time_in_force": terms.time_in_force,
            "venue": terms.venue,
            "labels": dict(terms.labels),
            "state": int(view.state),
            "quantity": decimal_text(view.quantity),
            "limit_price": decimal_text(view.limit_price),
            "filled_quantity": decimal_text(view.filled_quantity),
            "average_price": decimal_text(view.average_price),
            "venue_order_id": view.venue_order_id,
            "routed": view.routed,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def read_view(order_id: str, text: str) -> OrderView:
    """Return a view that `write_view` wrote."""
    kept = json.loads(text)
    limit_price, average_price = kept.pop("limit_price"), kept.pop("average_price")
    order: _Facts = {
        "state": OrderState(kept.pop("state")),
        "quantity": Decimal(kept.pop("quantity")),
        "limit_price": None if limit_price is None else Decimal(limit_price),
        "filled_quantity": Decimal(kept.pop("filled_quantity")),
        "average_price": None if average_price is None else Decimal(average_price),
        "venue_order_id": kept.pop("venue_order_id"),
        "routed": kept.pop("routed"),
    }
    return OrderView(terms=OrderTerms(order_id=order_id, **kept), **order)


def _terms(message: events_pb2.OrderTerms) -> _Facts:
    terms = OrderTerms(
        order_id=message.order_id,
        client_order_id=message.client_order_id,
        account_id=message.account_id,
        tenant=message.tenant,
        principal=message.principal,
        instrument_id=message.instrument_id,
        side=message.side,
        order_type=message.type,
        time_in_force=message.time_in_force,
        venue=message.venue,
        labels=dict(message.labels),
    )
    return {"terms": terms, "principal": terms.principal, "venue": terms.venue, **_stated(message)}


def _stated(message: events_pb2.OrderTerms | events_pb2.ReplaceRequested | events_pb2.OrderReplaced) -> _Facts:
    limit_price = Decimal(message.limit_price) if message.HasField("limit_price") else None
    return {"quantity": optional_decimal(message.quantity), "limit_price": limit_price}


def _reject(reject: order_pb2.OrderReject) -> _Facts:
    breaches = [
        {"reason": _reason(each.reason), "scope": each.scope, "limit": each.limit, "actual": each.actual, "text": each.text}
        for each in reject.breaches
    ]
    return {
        "reason": _reason(reject.reason),
        "text": reject.text,
        "breaches": json.dumps(breaches, ensure_ascii=False, separators=(",", ":")) if breaches else "",
    }


def _reason(number: int) -> str:
    names = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_number
    if not number:
        return ""
    return names[number].name.removeprefix(_REASON_PREFIX) if number in names else str(number)


def _executed(message: events_pb2.ExecutionRecorded) -> _Facts:
    item = message.execution
    execution = Execution(
        exec_id=item.exec_id,
        type=ExecutionType(item.type),
        exec_ref_id=item.exec_ref_id,
        quantity=optional_decimal(item.last_quantity) or Decimal(0),
        price=optional_decimal(item.last_price) or Decimal(0),
        filled_quantity=optional_decimal(item.filled_quantity) or Decimal(0),
        average_price=Decimal(item.average_price) if item.HasField("average_price") else None,
        venue=item.venue,
        trade_date=date.fromisoformat(item.trade_date),
        transact_time=moment(item.transact_time),
        late=item.late,
    )
    state = OrderState(message.state) if message.state else None
    return {"execution": execution, "state": state, "venue": item.venue, "venue_order_id": message.venue_order_id}


def _action(number: int) -> str:
    names = {order_pb2.PENDING_ACTION_CANCEL: "CANCEL", order_pb2.PENDING_ACTION_REPLACE: "REPLACE"}
    return names.get(number, NEW_ORDER)  # type: ignore[call-overload,no-any-return]  # a number of the contract


def _request_refused(message: events_pb2.CancelRefused | events_pb2.ReplaceRefused) -> _Facts:
    return {"venue_client_order_id": message.venue_client_order_id, "venue_reason": message.venue_reason, "text": message.text}


def _requested(message: events_pb2.CancelRequested | events_pb2.ReplaceRequested) -> _Facts:
    return {
        "principal": message.principal,
        "request_id": message.request_id,
        "venue_client_order_id": message.venue_client_order_id,
    }


def _report(message: events_pb2.OrderCanceled | events_pb2.OrderStateChanged) -> _Facts:
    return {"exec_id": message.exec_id, "trade_date": message.trade_date, "text": message.text}


def _abandoned(message: events_pb2.OrderAbandoned) -> _Facts:
    return {"terms": OrderTerms(order_id=message.order_id, account_id=message.account_id), "state": OrderState.ABANDONED}


_BY_MESSAGE: Mapping[type[Message], Callable[[Any], _Facts]] = {
    events_pb2.OrderAccepted: lambda m: {**_terms(m.terms), "state": OrderState.PENDING_NEW},
    events_pb2.OrderRejected: lambda m: {**_terms(m.terms), "state": OrderState.REJECTED, **_reject(m.reject)},
    events_pb2.OrderAbandoned: _abandoned,
    events_pb2.OrderRouted: lambda m: {
        "venue": m.venue,
        "venue_client_order_id": m.venue_client_order_id,
        "action": _action(m.action),
        "message_sequence": m.message_sequence,
    },
    events_pb2.OrderAcknowledged: lambda m: {
        "venue_order_id": m.venue_order_id,
        "exec_id": m.exec_id,
        "trade_date": m.trade_date,
        "transact_time": moment(m.transact_time),
    },
    events_pb2.OrderRefused: lambda m: {**_reject(m.reject), "exec_id": m.exec_id, "trade_date": m.trade_date},
    events_pb2.ExecutionRecorded: _executed,
    events_pb2.CancelRequested: _requested,
    events_pb2.CancelRefused: _request_refused,
    events_pb2.OrderCanceled: lambda m: {**_report(m), "unsolicited": m.unsolicited},
    events_pb2.ReplaceRequested: lambda m: {**_requested(m), **_stated(m)},
    events_pb2.ReplaceRefused: _request_refused,
    events_pb2.ReplaceRejected: lambda m: {"principal": m.principal, "request_id": m.request_id, **_reject(m.reject)},
    events_pb2.OrderReplaced: lambda m: {
        "exec_id": m.exec_id,
        "trade_date": m.trade_date,
        "unsolicited": m.restated,
        "venue_order_id": m.venue_order_id,
        **_stated(m),
    },
    events_pb2.OrderStateChanged: lambda m: {**_report(m), "state": OrderState(m.state)},
    events_pb2.OrderMarkedUnknown: lambda m: {"venue_client_order_id": m.venue_client_order_id},
    events_pb2.AnomalyRecorded: lambda m: {"text": m.text, "report": m.report},
}

_READERS: Mapping[str, tuple[type[Message], Callable[[Any], _Facts]]] = {
    f"oms.v1.{message_type.DESCRIPTOR.name}": (message_type, read) for message_type, read in _BY_MESSAGE.items()
}
