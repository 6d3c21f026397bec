"""Domain events as the public messages of `events.proto`, and back. Old messages are read for ever; upcasting belongs in the decoders."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from kernel.ports import NewEvent, RecordedEvent
from kernel.wire import Serialized, message_field
from svc_oms.codec.orders import execution_message, reject_message, reject_of, terms_message, terms_of
from svc_oms.codec.scalars import decimal_text, moment, reason_number, text_of, time_field, timestamp
from svc_oms.domain import Action, ExecutionKey, ExecutionType, OrderState, Terms
from svc_oms.domain import events as e
from trademesh.oms.v1 import events_pb2, execution_pb2

TYPE_PREFIX = "oms.v1."
ANOMALY_BYTES_MAX = 8192

_TERMS = events_pb2.OrderAccepted.TERMS_FIELD_NUMBER
_ACCEPTED_TIME = events_pb2.OrderAccepted.EVENT_TIME_FIELD_NUMBER


def encode(event: e.Event | e.KillSwitchApplied, terms: Terms | None, metadata: bytes = b"") -> NewEvent:
    """Return the event as it is recorded. `terms` are the order's; only executions need them."""
    kind = type(event)
    message = _ENCODERS[kind](event, terms)
    return NewEvent(_TYPE_NAMES[kind], message.SerializeToString(), metadata)


def decode(record: RecordedEvent) -> e.Event:
    """Return the domain event of a record of an order's stream.

    Raises:
        ValueError: a type that no release of ours wrote into an order's stream.
    """
    return decode_payload(record.type, record.payload)


def decode_payload(type_name: str, payload: bytes) -> e.Event:
    """Like `decode`, from the type's name and the payload."""
    decoder = _DECODERS.get(type_name)
    if decoder is None:
        raise ValueError(f"not an event of an order: {type_name[:128]!r}")
    message_type, read = decoder
    return read(message_type.FromString(payload))


def execution_of(payload: bytes) -> execution_pb2.Execution:
    """Return the public execution inside a recorded `oms.v1.ExecutionRecorded`."""
    return events_pb2.ExecutionRecorded.FromString(payload).execution


def _accepted(event: e.OrderAccepted, _: Terms | None) -> Serialized:
    # Every order passes here: put together from its parts, which saves copying the one message into the other.
    return Serialized(message_field(_TERMS, terms_message(event.terms).SerializeToString()) + time_field(_ACCEPTED_TIME, event.time))


def _rejected(event: e.OrderRejected, _: Terms | None) -> Message:
    return events_pb2.OrderRejected(terms=terms_message(event.terms), reject=reject_message(event.reject), event_time=timestamp(event.time))


def _abandoned(event: e.OrderAbandoned, _: Terms | None) -> Message:
    return events_pb2.OrderAbandoned(order_id=event.order_id, account_id=event.account_id, event_time=timestamp(event.time))


def _routed(event: e.OrderRouted, _: Terms | None) -> Message:
    return events_pb2.OrderRouted(
        venue=event.venue,
        venue_client_order_id=event.venue_client_order_id,
        action=event.action,  # type: ignore[arg-type]  # (the contract's numbers)
        message_sequence=event.message_sequence,
        event_time=timestamp(event.time),
    )


def _acknowledged(event: e.OrderAcknowledged, _: Terms | None) -> Message:
    return events_pb2.OrderAcknowledged(
        venue_order_id=event.venue_order_id,
        exec_id=event.exec_id,
        trade_date=event.trade_date,
        transact_time=timestamp(event.transact_time),
        event_time=timestamp(event.time),
    )


def _refused(event: e.OrderRefused, _: Terms | None) -> Message:
    return events_pb2.OrderRefused(
        reject=reject_message(event.reject), exec_id=event.exec_id, trade_date=event.trade_date, event_time=timestamp(event.time)
    )


def _executed(event: e.ExecutionRecorded, terms: Terms | None) -> Message:
    assert terms is not None, "an execution belongs to an order"
    return events_pb2.ExecutionRecorded(
        execution=execution_message(event.execution, terms),
        venue_order_id=event.venue_order_id,
        state=event.state,  # type: ignore[arg-type]  # (the contract's numbers)
        event_time=timestamp(event.time),
    )


def _cancel_requested(event: e.CancelRequested, _: Terms | None) -> Message:
    return events_pb2.CancelRequested(
        principal=event.principal,
        request_id=event.request_id,
        venue_client_order_id=event.venue_client_order_id,
        event_time=timestamp(event.time),
    )


def _cancel_refused(event: e.CancelRefused, _: Terms | None) -> Message:
    return events_pb2.CancelRefused(
        venue_client_order_id=event.venue_client_order_id,
        venue_reason=event.venue_reason,
        text=event.text,
        event_time=timestamp(event.time),
    )


def _canceled(event: e.OrderCanceled, _: Terms | None) -> Message:
    return events_pb2.OrderCanceled(
        exec_id=event.exec_id,
        trade_date=event.trade_date,
        unsolicited=event.unsolicited,
        text=event.text,
        event_time=timestamp(event.time),
    )


def _replace_requested(event: e.ReplaceRequested, _: Terms | None) -> Message:
    return events_pb2.ReplaceRequested(
        principal=event.principal,
        request_id=event.request_id,
        venue_client_order_id=event.venue_client_order_id,
        quantity=text_of(event.quantity),
        limit_price=decimal_text(event.limit_price),
        command_hash=event.command_hash,
        event_time=timestamp(event.time),
    )


def _replace_refused(event: e.ReplaceRefused, _: Terms | None) -> Message:
    return events_pb2.ReplaceRefused(
        venue_client_order_id=event.venue_client_order_id,
        venue_reason=event.venue_reason,
        text=event.text,
        event_time=timestamp(event.time),
    )


def _replace_rejected(event: e.ReplaceRejected, _: Terms | None) -> Message:
    return events_pb2.ReplaceRejected(
        principal=event.principal,
        request_id=event.request_id,
        command_hash=event.command_hash,
        reject=reject_message(event.reject),
        event_time=timestamp(event.time),
    )


def _replaced(event: e.OrderReplaced, _: Terms | None) -> Message:
    return events_pb2.OrderReplaced(
        exec_id=event.exec_id,
        trade_date=event.trade_date,
        quantity=text_of(event.quantity),
        limit_price=decimal_text(event.limit_price),
        restated=event.restated,
        venue_order_id=event.venue_order_id,
        event_time=timestamp(event.time),
    )


def _state_changed(event: e.OrderStateChanged, _: Terms | None) -> Message:
    return events_pb2.OrderStateChanged(
        state=event.state,  # type: ignore[arg-type]  # (the contract's numbers)
        exec_id=event.exec_id,
        trade_date=event.trade_date,
        text=event.text,
        event_time=timestamp(event.time),
    )


def _marked_unknown(event: e.OrderMarkedUnknown, _: Terms | None) -> Message:
    return events_pb2.OrderMarkedUnknown(venue_client_order_id=event.venue_client_order_id, event_time=timestamp(event.time))


def _anomaly(event: e.AnomalyRecorded, _: Terms | None) -> Message:
    return events_pb2.AnomalyRecorded(text=event.text, report=event.report[:ANOMALY_BYTES_MAX], event_time=timestamp(event.time))


def _kill_switch(event: e.KillSwitchApplied, _: Terms | None) -> Message:
    return events_pb2.KillSwitchApplied(
        scope=event.scope,
        active=event.active,
        switch_version=event.switch_version,
        reason=reason_number(event.reason),
        event_time=timestamp(event.time),
    )


def _read_execution(message: events_pb2.ExecutionRecorded) -> e.Event:
    item = message.execution
    execution = e.Execution(
        key=ExecutionKey(item.venue, item.trade_date, item.exec_id),
        type=ExecutionType(item.type),
        exec_ref_id=item.exec_ref_id,
        last_quantity=Decimal(item.last_quantity),
        last_price=Decimal(item.last_price),
        filled_quantity=Decimal(item.filled_quantity),
        leaves_quantity=Decimal(item.leaves_quantity),
        average_price=Decimal(item.average_price) if item.HasField("average_price") else None,
        transact_time=moment(item.transact_time),
        order_version=item.order_version,
        late=item.late,
    )
    return e.ExecutionRecorded(execution, message.venue_order_id, OrderState(message.state), moment(message.event_time))


def _limit_price(message: events_pb2.ReplaceRequested | events_pb2.OrderReplaced) -> Decimal | None:
    return Decimal(message.limit_price) if message.HasField("limit_price") else None


_ENCODERS: dict[type, Callable[[Any, Terms | None], Message | Serialized]] = {
    e.OrderAccepted: _accepted,
    e.OrderRejected: _rejected,
    e.OrderAbandoned: _abandoned,
    e.OrderRouted: _routed,
    e.OrderAcknowledged: _acknowledged,
    e.OrderRefused: _refused,
    e.ExecutionRecorded: _executed,
    e.CancelRequested: _cancel_requested,
    e.CancelRefused: _cancel_refused,
    e.OrderCanceled: _canceled,
    e.ReplaceRequested: _replace_requested,
    e.ReplaceRefused: _replace_refused,
    e.ReplaceRejected: _replace_rejected,
    e.OrderReplaced: _replaced,
    e.OrderStateChanged: _state_changed,
    e.OrderMarkedUnknown: _marked_unknown,
    e.AnomalyRecorded: _anomaly,
    e.KillSwitchApplied: _kill_switch,
}

_TYPE_NAMES = {kind: TYPE_PREFIX + kind.__name__ for kind in _ENCODERS}

_READERS: dict[type[Message], Callable[[Any], e.Event]] = {
    events_pb2.OrderAccepted: lambda m: e.OrderAccepted(terms_of(m.terms), moment(m.event_time)),
    events_pb2.OrderRejected: lambda m: e.OrderRejected(terms_of(m.terms), reject_of(m.reject), moment(m.event_time)),
    events_pb2.OrderAbandoned: lambda m: e.OrderAbandoned(m.order_id, m.account_id, moment(m.event_time)),
    events_pb2.OrderRouted: lambda m: e.OrderRouted(
        m.venue, m.venue_client_order_id, Action(m.action), m.message_sequence, moment(m.event_time)
    ),
    events_pb2.OrderAcknowledged: lambda m: e.OrderAcknowledged(
        m.venue_order_id, m.exec_id, m.trade_date, moment(m.transact_time), moment(m.event_time)
    ),
    events_pb2.OrderRefused: lambda m: e.OrderRefused(reject_of(m.reject), m.exec_id, m.trade_date, moment(m.event_time)),
    events_pb2.ExecutionRecorded: _read_execution,
    events_pb2.CancelRequested: lambda m: e.CancelRequested(m.principal, m.request_id, m.venue_client_order_id, moment(m.event_time)),
    events_pb2.CancelRefused: lambda m: e.CancelRefused(m.venue_client_order_id, m.venue_reason, m.text, moment(m.event_time)),
    events_pb2.OrderCanceled: lambda m: e.OrderCanceled(m.exec_id, m.trade_date, m.unsolicited, m.text, moment(m.event_time)),
    events_pb2.ReplaceRequested: lambda m: e.ReplaceRequested(
        m.principal,
        m.request_id,
        m.venue_client_order_id,
        Decimal(m.quantity),
        _limit_price(m),
        m.command_hash,
        moment(m.event_time),
    ),
    events_pb2.ReplaceRefused: lambda m: e.ReplaceRefused(m.venue_client_order_id, m.venue_reason, m.text, moment(m.event_time)),
    events_pb2.ReplaceRejected: lambda m: e.ReplaceRejected(
        m.principal, m.request_id, m.command_hash, reject_of(m.reject), moment(m.event_time)
    ),
    events_pb2.OrderReplaced: lambda m: e.OrderReplaced(
        m.exec_id, m.trade_date, Decimal(m.quantity), _limit_price(m), m.restated, m.venue_order_id, moment(m.event_time)
    ),
    events_pb2.OrderStateChanged: lambda m: e.OrderStateChanged(OrderState(m.state), m.exec_id, m.trade_date, m.text, moment(m.event_time)),
    events_pb2.OrderMarkedUnknown: lambda m: e.OrderMarkedUnknown(m.venue_client_order_id, moment(m.event_time)),
    events_pb2.AnomalyRecorded: lambda m: e.AnomalyRecorded(m.text, m.report, moment(m.event_time)),
}

_DECODERS: dict[str, tuple[type[Message], Callable[[Any], e.Event]]] = {
    TYPE_PREFIX + message_type.DESCRIPTOR.name: (message_type, read) for message_type, read in _READERS.items()
}
