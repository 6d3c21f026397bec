"""Requests as JSON: every name known and given once, every value of its type; the refusal names the field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import InvalidArgumentError, Reason
from svc_gateway.codec.strict_json import VIOLATIONS_MAX, parse_object, parse_request
from trademesh.oms.v1.order_pb2 import ORDER_STATE_NEW
from trademesh.oms.v1.order_service_pb2 import CreateOrderRequest, EnterOrdersRequest, ListOrdersRequest, StreamOrderEventsRequest


def test_a_request_is_read_in_either_spelling() -> None:
    value = {
        "account_id": "ACC-1",
        "openOnly": True,
        "page_size": 5,
        "states": ["ORDER_STATE_NEW"],
        "min_position": {"tx": "7", "position": 8},
    }
    request = parse_request(value, ListOrdersRequest)
    assert (request.account_id, request.open_only, request.page_size, list(request.states)) == ("ACC-1", True, 5, [ORDER_STATE_NEW])
    assert (request.min_position.tx, request.min_position.position) == (7, 8)


def test_null_leaves_a_field_unset() -> None:
    assert parse_request({"account_id": None, "min_position": None}, ListOrdersRequest) == ListOrdersRequest()


def test_a_duration_has_its_json_form() -> None:
    request = parse_request({"account_id": "ACC-1", "heartbeat_interval": "1.5s"}, StreamOrderEventsRequest)
    assert request.heartbeat_interval == Duration(seconds=1, nanos=500_000_000)


@pytest.mark.parametrize(
    ("value", "field", "rule"),
    [
        ({"acount_id": "ACC-1"}, "acount_id", "field.known"),
        ({"min_position": {"tx": 1, "offset": 2}}, "min_position.offset", "field.known"),
        ({"account_id": "a", "accountId": "a"}, "accountId", "field.once"),
        ({"account_id": 7}, "account_id", "json.type"),
        ({"account_id": ["a"]}, "account_id", "json.type"),
        ({"open_only": "true"}, "open_only", "json.type"),
        ({"open_only": 1}, "open_only", "json.type"),
        ({"page_size": 5.5}, "page_size", "json.type"),
        ({"page_size": 5.0}, "page_size", "json.type"),
        ({"page_size": True}, "page_size", "json.type"),
        ({"page_size": "5 "}, "page_size", "json.type"),
        ({"page_size": "0x5"}, "page_size", "json.type"),
        ({"states": "ORDER_STATE_NEW"}, "states", "json.type"),
        ({"states": [2]}, "states[0]", "json.type"),
        ({"states": ["order_state_new"]}, "states[0]", "json.type"),
        ({"states": [None]}, "states[0]", "json.type"),
        ({"min_position": "7"}, "min_position", "json.type"),
        ({"page_size": 1 << 40}, "request", "json.type"),
    ],
)
def test_what_is_wrong_is_named(value: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_request(value, ListOrdersRequest)
    [violation] = caught.value.field_violations
    assert (violation.field, violation.rule) == (field, rule)
    assert caught.value.reason is (Reason.FIELD_UNKNOWN if rule == "field.known" else Reason.FIELD_INVALID)


@pytest.mark.parametrize("value", [{"labels": []}, {"labels": {"a": 1}}, {"labels": {"a": None}}, {"quantity": 1.5}, {"quantity": 1}])
def test_maps_and_decimals_are_as_strict(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_request(value, CreateOrderRequest)


def test_a_malformed_duration_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match="heartbeat_interval: is not the JSON form of"):
        parse_request({"heartbeat_interval": 5}, StreamOrderEventsRequest)


def test_two_members_of_a_oneof_are_refused() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_request({"correlation_id": "1", "create": {}, "cancel": {}}, EnterOrdersRequest)
    assert caught.value.reason is Reason.FIELD_INVALID


def test_a_number_of_thousands_of_digits_is_not_converted() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_object('{"a":' + "9" * 5_000 + "}")
    assert caught.value.reason is Reason.JSON_INVALID


def test_violations_are_told_together_and_bounded() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_request({f"field_{number}": 1 for number in range(100)}, ListOrdersRequest)
    assert len(caught.value.field_violations) == VIOLATIONS_MAX


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{",
        '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', '{"a":NaN}', '{"a":Infinity}', "{'a':1}", '{"a":1}x', '{"a":01}', "[" * 100_000,
    ],
)  # fmt: skip
def test_text_that_is_not_one_json_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_object(text)
    assert caught.value.reason is Reason.JSON_INVALID


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["tx", "position", "x", "account_id"]), inner, max_size=4),
    max_leaves=12,
)
_names = st.sampled_from(["account_id", "accountId", "states", "open_only", "page_size", "min_position", "other"])


@given(st.dictionaries(_names, _json, max_size=5))
def test_whatever_comes_is_a_message_or_a_named_field(value: dict[str, Any]) -> None:
    try:
        outcome: object = parse_request(value, ListOrdersRequest)
    except InvalidArgumentError as error:
        outcome = error.field_violations[0].field
    assert isinstance(outcome, (ListOrdersRequest, str))
