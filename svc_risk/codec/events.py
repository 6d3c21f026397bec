"""The events of exposure streams, as the log keeps them."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from kernel.ports import NewEvent, RecordedEvent
from svc_risk.codec.amounts import text
from svc_risk.codec.checks import write_breach
from svc_risk.domain import events as e
from trademesh.risk.v1 import events_pb2, risk_service_pb2

PREFIX = "risk.v1."


def exposure_stream(account_id: str) -> str:
    """Return the stream of an account's exposure."""
    return f"exposure-{account_id}"


def timestamp(moment: datetime) -> Timestamp:
    """Return a moment on the wire."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def new_event(message: Message) -> NewEvent:
    """Return a message of `events.proto` as an event under its stable name."""
    return NewEvent(PREFIX + message.DESCRIPTOR.name, message.SerializeToString(deterministic=True))


class ExposureWriter:
    """Writes the exposure events of one transaction. Approvals are many, so one message serves them all, each setting all its fields."""

    def __init__(self, moment: datetime) -> None:
        self._event_time = timestamp(moment)
        self._reserved = events_pb2.ExposureReserved(event_time=self._event_time)

    def write(self, event: e.ExposureEvent) -> tuple[str, bytes]:
        """Return an event's stable name and payload."""
        if isinstance(event, e.ExposureReserved):
            message = self._reserved
            _fill(message.delta, event.delta)
            message.request_id = event.request_id
            message.reference_price = text(event.reference)
            return "risk.v1.ExposureReserved", message.SerializeToString()
        other = _message(event, self._event_time)
        return PREFIX + other.DESCRIPTOR.name, other.SerializeToString(deterministic=True)


def _message(event: e.OrderRefused | e.ExposureReleased | e.ExposureAdjusted | e.ExposureFilled, event_time: Timestamp) -> Message:
    delta = events_pb2.ExposureDelta()
    _fill(delta, event.delta)
    match event:
        case e.OrderRefused():
            breaches = [write_breach(breach) for breach in event.breaches]
            return events_pb2.OrderRefused(delta=delta, request_id=event.request_id, breaches=breaches, event_time=event_time)
        case e.ExposureReleased():
            return events_pb2.ExposureReleased(delta=delta, cause=event.cause, event_time=event_time)
        case e.ExposureAdjusted():
            return events_pb2.ExposureAdjusted(delta=delta, cause=event.cause, in_breach=event.in_breach, event_time=event_time)
        case e.ExposureFilled():
            return events_pb2.ExposureFilled(
                delta=delta,
                exec_id=event.exec_id,
                position_delta=text(event.position_delta),
                position_quantity=text(event.position),
                price=text(event.price),
                in_breach=event.in_breach,
                event_time=event_time,
            )


def _fill(message: events_pb2.ExposureDelta, delta: e.ExposureDelta) -> None:
    """Set every field of the message."""
    message.account_id, _, message.instrument_id, message.order_id, side, quantity, notional, opened, gross, open_limit, gross_limit = delta
    message.side = side.value  # type: ignore[assignment]  # our enums have the contract's numbers
    message.delta_quantity = text(quantity)
    message.delta_notional = text(notional)
    message.open_notional = text(opened)
    message.gross_exposure = text(gross)
    message.open_limit = open_limit
    message.gross_limit = gross_limit


_EXPOSURE_EVENTS: dict[str, type[Message]] = {
    PREFIX + message.DESCRIPTOR.name: message
    for message in (
        events_pb2.ExposureReserved,
        events_pb2.OrderRefused,
        events_pb2.ExposureReleased,
        events_pb2.ExposureAdjusted,
        events_pb2.ExposureFilled,
    )
}


def read_exposure_change(event: RecordedEvent) -> risk_service_pb2.ExposureChange:
    """Return an event of an exposure stream as clients see it. A changed limit has no delta: it shows the new limit only."""
    change = risk_service_pb2.ExposureChange(version=event.version, type=event.type)
    if event.type == f"{PREFIX}LimitUpdated":
        updated = events_pb2.LimitUpdated.FromString(event.payload)
        change.limit = updated.limit.value
        change.delta_notional = "0"
        change.event_time.CopyFrom(updated.limit.update_time)
        return change
    message = _EXPOSURE_EVENTS[event.type].FromString(event.payload)
    delta: events_pb2.ExposureDelta = getattr(message, "delta")  # noqa: B009 (every one of these messages has it)
    change.order_id = delta.order_id
    change.delta_notional = delta.delta_notional
    change.open_notional = delta.open_notional
    change.limit = delta.open_limit
    change.event_time.CopyFrom(getattr(message, "event_time"))  # noqa: B009 (as above)
    return change
