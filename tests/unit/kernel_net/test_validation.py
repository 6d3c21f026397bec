"""Form, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from kernel import validation
from kernel.errors import InvalidArgumentError, Reason
from trademesh.oms.v1 import order_service_pb2
from trademesh.type.v1 import order_terms_pb2

ORDER = order_service_pb2.CreateOrderRequest
FIELDS: dict[str, Any] = {"account_id": "A", "client_order_id": "c", "instrument_id": "X", "side": 1, "time_in_force": 1, "quantity": "1"}
UNKNOWN = b"\xf8\x7f\x07"


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    ("message_type", "data"),
    [
        (ORDER, UNKNOWN),
        (ORDER, field(9, b"\x0a\x01a\x12\x01b\x18\x07")),  # inside a map entry
        (order_service_pb2.BatchCreateOrdersRequest, field(1, UNKNOWN)),  # inside a repeated message
        (order_service_pb2.EnterOrdersRequest, field(2, UNKNOWN)),  # inside a oneof
        (order_service_pb2.EnterOrdersRequest, b"\x08\x01" + field(2, UNKNOWN) + field(2, b"")),  # in a part that is merged over
        (ORDER, b"\x20\x01\x23\x20\x01\x24"),  # a group under a known number
    ],
)
def test_unknown_fields_are_found_wherever_they_hide(message_type: type, data: bytes) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        validation.refuse_unknown_fields(validation.parse(message_type, data))
    assert caught.value.reason is Reason.FIELD_UNKNOWN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        field(1, b"ACC-1") + field(1, b"ACC-2"),  # said twice: the last one counts
        b"\x20\x80\x00",  # a number longer than it has to be
        b"\x20\x00",  # a default, said all the same
        field(9, b"\x12\x01b\x0a\x01a"),  # a map entry the other way round
    ],
)
def test_unusual_but_known_encodings_pass(data: bytes) -> None:
    validation.refuse_unknown_fields(validation.parse(ORDER, data))


def test_a_recursive_type_cannot_be_checked_exactly() -> None:
    with pytest.raises(ValueError, match="recursive"):
        validation.check_exact(descriptor_pb2.DescriptorProto.DESCRIPTOR)
    validation.check_exact(ORDER.DESCRIPTOR)


def test_violations_name_the_place_in_the_message() -> None:
    good = ORDER(**FIELDS, type=order_terms_pb2.ORDER_TYPE_MARKET)
    bad = ORDER()
    bad.CopyFrom(good)
    bad.quantity = "1e5"
    bad.labels[""] = "x"
    with pytest.raises(InvalidArgumentError) as caught:
        validation.check(order_service_pb2.EnterOrdersRequest(correlation_id=1, create=bad))
    assert {violation.field for violation in caught.value.field_violations} == {"create.quantity", 'create.labels[""]'}


def test_rules_across_fields_blame_one_also_inside_other_messages() -> None:
    order = ORDER(**FIELDS, type=order_terms_pb2.ORDER_TYPE_LIMIT)
    with pytest.raises(InvalidArgumentError) as caught:
        validation.check(order_service_pb2.EnterOrdersRequest(correlation_id=1, create=order))
    assert [(item.field, item.rule) for item in caught.value.field_violations] == [("create.limit_price", "order.limit_price.required")]


def test_the_number_of_violations_is_bounded() -> None:
    request = ORDER(labels={f"{'k' * 40}{number}": "x" * 100 for number in range(100)})
    with pytest.raises(InvalidArgumentError, match="more") as caught:
        validation.check(request)
    assert len(caught.value.field_violations) <= validation.VIOLATIONS_MAX
