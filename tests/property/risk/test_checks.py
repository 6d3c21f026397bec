"""The shortcut past the contract's rules, and answers that are put together from bytes."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import InvalidArgumentError
from kernel.ports import LogPosition
from kernel.validation import check
from svc_risk.codec.checks import check_response, read_check, read_plain_check, respell
from tests.property.oms.test_requests import IDS, NUMBERS
from trademesh.risk.v1 import pre_trade_service_pb2

UUIDS = st.uuids().map(str) | st.sampled_from(
    ["", "x", str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1)).upper(), f"{uuid.UUID(int=1)}\n", uuid.UUID(int=1).hex]
)
TEXTS = st.sampled_from(["ada", "", "é" * 64, "a" * 128, "a" * 129, "a" * 32, "a" * 33, "trader"])


@st.composite
def questions(draw: st.DrawFn) -> pre_trade_service_pb2.OrderCheck:
    order_id = draw(UUIDS)
    numbers: dict[str, Any] = {
        "kind": draw(st.sampled_from([1, 1, 2, 0, 3, -1])),
        "side": draw(st.sampled_from([1, 2, 0, 3, -1])),
        "type": draw(st.sampled_from([1, 2, 0, 3])),
        "time_in_force": draw(st.integers(0, 5)),
    }
    message = pre_trade_service_pb2.OrderCheck(
        order_id=order_id,
        request_id=draw(st.just(order_id) | UUIDS),
        payload_hash=draw(st.sampled_from([b"h" * 32, b"", b"h" * 31, b"h" * 33])),
        account_id=draw(st.just("ACC-1") | IDS),
        instrument_id=draw(st.just("AAPL") | IDS),
        quantity=draw(st.just("10") | NUMBERS),
        **numbers,
    )
    if draw(st.integers(0, 9)):
        message.user.principal, message.user.tenant = draw(st.just("ada") | TEXTS), draw(st.just("north") | TEXTS)
        message.user.roles.extend(draw(st.just(["trader"]) | st.lists(TEXTS, max_size=3) | st.just(["r"] * 17)))
    if draw(st.booleans()):
        message.limit_price = draw(st.just("100.5") | NUMBERS)
    if draw(st.integers(0, 9)):
        message.receive_time.SetInParent()
    return message


@given(questions())
@settings(max_examples=1_500, deadline=None)
def test_what_is_plain_obeys_the_contract_and_reads_the_same(message: pre_trade_service_pb2.OrderCheck) -> None:
    request = pre_trade_service_pb2.CheckOrdersRequest(orders=[message])
    plain = read_plain_check(message)
    if plain is not None:
        check(request)
        assert plain == read_check(message)
    elif message.order_id.islower() and message.request_id.islower():
        try:
            check(request)
        except InvalidArgumentError:
            return
        raise AssertionError("a plain check went the long way")


@given(st.lists(st.integers(0, 400), max_size=4), st.none() | st.integers(0, 2**62))
def test_a_response_from_bytes_is_the_message(lengths: list[int], position: int | None) -> None:
    response = pre_trade_service_pb2.CheckOrdersResponse()
    for length in lengths:
        response.results.add(request_id="r" * length).undecided.text = "t"
    if position is not None:
        response.log_position.tx, response.log_position.position = position, 7
    shown_at = None if position is None else LogPosition(position, 7)
    encoded = [result.SerializeToString() for result in response.results]
    assert check_response(encoded, shown_at).SerializeToString() == response.SerializeToString()
    for result, data in zip(response.results, encoded, strict=True):
        result.request_id = "R"
        assert respell(data, "R") == result.SerializeToString()
