"""The parts of `kernel.wire` put together are what protobuf itself writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.event_records import position_bytes, to_position
from kernel.ports import LogPosition
from kernel.wire import Serialized, message_field, number_field, varint
from svc_oms.codec.answers import batch_response, create_response, entered_response
from trademesh.oms.v1 import order_pb2, order_service_pb2

NUMBERS = st.integers(0, 2**63 - 1)
ORDERS = st.builds(order_pb2.Order, order_id=st.text(max_size=300), labels=st.dictionaries(st.text(max_size=9), st.text(max_size=9)))
POSITIONS = st.builds(LogPosition, NUMBERS, NUMBERS)


@given(POSITIONS)
def test_a_position_is_written_as_protobuf_writes_it(position: LogPosition) -> None:
    assert position_bytes(position) == to_position(position).SerializeToString()


@given(ORDERS, POSITIONS, NUMBERS)
def test_answers_with_an_order_parse_to_their_parts(order: order_pb2.Order, position: LogPosition, number: int) -> None:
    data, place = order.SerializeToString(), to_position(position)
    created = order_service_pb2.CreateOrderResponse(order=order, log_position=place)
    assert order_service_pb2.CreateOrderResponse.FromString(create_response(data, position).SerializeToString()) == created
    entered = order_service_pb2.EnterOrdersResponse(correlation_id=number, order=order, log_position=place)
    assert order_service_pb2.EnterOrdersResponse.FromString(entered_response(number, data, position).SerializeToString()) == entered


@given(st.lists(ORDERS | st.none(), max_size=5), POSITIONS)
def test_a_batch_parses_to_its_results(orders: list[order_pb2.Order | None], position: LogPosition) -> None:
    failed = order_service_pb2.BatchCreateOrdersResult()
    failed.error.code = 3
    results = [failed if order is None else order_service_pb2.BatchCreateOrdersResult(order=order) for order in orders]
    parts = [failed.error if order is None else order.SerializeToString() for order in orders]
    batch = order_service_pb2.BatchCreateOrdersResponse(results=results, log_position=to_position(position))
    assert order_service_pb2.BatchCreateOrdersResponse.FromString(batch_response(parts, position).SerializeToString()) == batch


def test_an_empty_message_is_present_and_a_zero_is_not() -> None:
    response = order_service_pb2.CreateOrderResponse.FromString(create_response(b"", LogPosition(0, 0)).SerializeToString())
    assert response.HasField("order")
    assert response.HasField("log_position")
    assert number_field(1, 0) == b""
    assert Serialized(message_field(16, b"a")).SerializeToString() == b"\x82\x01\x01a"


def test_a_negative_number_has_no_form_here() -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        varint(-1)
