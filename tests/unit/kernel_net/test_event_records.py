"""Events survive the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.event_records import decode_metadata, encode_metadata, from_record, to_record
from kernel.ports import LogPosition, RecordedEvent
from trademesh.type.v1 import event_log_service_pb2

moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001 (made aware at once)
metadata = st.dictionaries(st.text(max_size=8).filter(lambda key: key != "base64"), st.text(max_size=8), max_size=16).map(encode_metadata)


@given(recorded_at=moments, content=metadata, payload=st.binary(max_size=64), version=st.integers(1, 2**31 - 1))
def test_a_record_holds_all_of_an_event(recorded_at: datetime, content: bytes, payload: bytes, version: int) -> None:
    event = RecordedEvent(LogPosition(2**62, 2**62), "order-1", version, "oms.v1.OrderAccepted", payload, content, recorded_at)
    data = to_record(event).SerializeToString()
    assert from_record(event_log_service_pb2.EventRecord.FromString(data)) == event


@pytest.mark.parametrize("content", [b"\xff\x00", b"[]", b'{"a": 1}', b"{"])
def test_metadata_of_another_form_travels_whole(content: bytes) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(microseconds=1)
    event = RecordedEvent(LogPosition(1, 1), "s", 1, "t", b"", content, moment)
    assert set(decode_metadata(content)) == {"base64"}
    assert from_record(to_record(event)) == event


def test_metadata_is_bounded() -> None:
    with pytest.raises(ValueError, match="16"):
        encode_metadata({str(number): "" for number in range(17)})
