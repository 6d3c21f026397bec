"""Recorded events on the wire: one encoding, for `EventLogService` and for the bus."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kernel.ports import LogPosition, RecordedEvent
from kernel.wire import number_field
from trademesh.type.v1 import event_log_service_pb2, log_position_pb2

METADATA_ENTRIES_MAX = 16
_RAW_KEY = "base64"
_TX = log_position_pb2.LogPosition.TX_FIELD_NUMBER
_POSITION = log_position_pb2.LogPosition.POSITION_FIELD_NUMBER
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode_metadata(metadata: Mapping[str, str]) -> bytes:
    """Return an event's metadata (who, why, trace) as the log keeps it: a JSON object of at most 16 texts.

    Raises:
        ValueError: more than 16 entries.
    """
    if len(metadata) > METADATA_ENTRIES_MAX:
        raise ValueError(f"an event has at most {METADATA_ENTRIES_MAX} metadata entries")
    return json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode() if metadata else b""


def decode_metadata(metadata: bytes) -> dict[str, str]:
    """Return what `encode_metadata` wrote; bytes of any other form come back whole, in base64."""
    if not metadata:
        return {}
    try:
        parsed = json.loads(metadata)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict) and len(parsed) <= METADATA_ENTRIES_MAX and all(isinstance(value, str) for value in parsed.values()):
        return parsed
    return {_RAW_KEY: base64.b64encode(metadata).decode()}


def to_position(position: LogPosition) -> log_position_pb2.LogPosition:
    """Return a log position as a message."""
    return log_position_pb2.LogPosition(tx=position.tx, position=position.position)


def position_bytes(position: LogPosition) -> bytes:
    """Return a log position as a serialized message."""
    return number_field(_TX, position.tx) + number_field(_POSITION, position.position)


def from_position(message: log_position_pb2.LogPosition) -> LogPosition:
    """Return a log position from its message; an unset one is the beginning of the log."""
    return LogPosition(message.tx, message.position)


def to_record(event: RecordedEvent) -> event_log_service_pb2.EventRecord:
    """Return an event as a message."""
    # Messages within it are written in place: made first and copied here, they cost twice as much as all the rest.
    record = event_log_service_pb2.EventRecord()
    record.stream_id = event.stream_id
    record.version = event.version
    record.type = event.type
    record.payload = event.payload
    position = record.log_position
    position.tx, position.position = event.position.tx, event.position.position
    since_epoch = event.recorded_at - _EPOCH
    # By hand: Timestamp's own conversions cost more than all the rest.
    time = record.record_time
    time.seconds, time.nanos = since_epoch.days * 86_400 + since_epoch.seconds, since_epoch.microseconds * 1_000
    if event.metadata:
        record.metadata.update(decode_metadata(event.metadata))
    return record


def from_record(record: event_log_service_pb2.EventRecord) -> RecordedEvent:
    """Return the event of a message."""
    position, time = record.log_position, record.record_time
    return RecordedEvent(
        LogPosition(position.tx, position.position),
        record.stream_id,
        record.version,
        record.type,
        record.payload,
        _encoded(dict(record.metadata)) if record.metadata else b"",
        _EPOCH + timedelta(0, time.seconds, time.nanos // 1_000),
    )


def _encoded(metadata: dict[str, str]) -> bytes:
    raw = metadata.get(_RAW_KEY)
    return encode_metadata(metadata) if raw is None else base64.b64decode(raw)
