"""The rules of the WebSocket door: frames, origins, quotas, tickets, and which methods only read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError, Reason, ResourceExhaustedError
from svc_gateway.codec.catalogue import Catalogue
from svc_gateway.codec.frames import FrameError, end_frame, error_frame, parse_frame
from svc_gateway.domain.origins import require_origin
from svc_gateway.domain.protocol import Call, Cancel, is_read
from svc_gateway.domain.quotas import NAMES_MAX, Rates, SocketQuota
from svc_gateway.domain.tickets import Grant, is_ticket

ALLOWED = frozenset({"https://app.example.com", "http://127.0.0.1:8080"})


def test_frames_become_commands() -> None:
    assert parse_frame('{"id":"1","method":"a/B","request":{"x":1}}') == Call("1", "a/B", {"x": 1})
    assert parse_frame('{"id":"1","method":"a/B"}') == Call("1", "a/B", {})
    assert parse_frame('{"id":"1","cancel":true}') == Cancel("1")


@pytest.mark.parametrize(
    "text", ["x", "[]", "{}", '{"id":1}', '{"id":""}', '{"id":"a b"}', '{"id":"é"}', f'{{"id":"{"x" * 65}"}}', '{"id":"1","id":"1"}']
)
def test_a_frame_without_a_usable_id_is_nobodys(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_frame(text)
    assert "error" in json.loads(error_frame(caught.value))


@pytest.mark.parametrize(
    ("members", "field", "reason"),
    [
        ({"method": "a/B", "requests": {}}, "requests", Reason.FIELD_UNKNOWN),
        ({"cancel": True, "method": "a/B"}, "method", Reason.FIELD_UNKNOWN),
        ({"cancel": 1}, "cancel", Reason.FIELD_INVALID),
        ({}, "method", Reason.FIELD_INVALID),
        ({"method": ""}, "method", Reason.FIELD_INVALID),
        ({"method": "x" * 257}, "method", Reason.FIELD_INVALID),
        ({"method": "a/B", "request": []}, "request", Reason.FIELD_INVALID),
        ({"method": "a/B", "request": None}, "request", Reason.FIELD_INVALID),
    ],
)
def test_a_wrong_frame_with_an_id_is_refused_by_that_id(members: dict[str, object], field: str, reason: Reason) -> None:
    with pytest.raises(FrameError) as caught:
        parse_frame(json.dumps({"id": "7", **members}))
    error = caught.value.error
    assert (caught.value.call_id, error.field_violations[0].field, error.reason) == ("7", field, reason)


_members: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(["id", "method", "request", "cancel", "other"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=70) | st.just({}) | st.just([]),
)


@given(st.one_of(st.text(), _members.map(json.dumps)))
def test_whatever_a_client_says_is_a_command_or_refused_by_kind(text: str) -> None:
    try:
        outcome: object = parse_frame(text)
    except (FrameError, InvalidArgumentError) as error:
        outcome = error
    assert isinstance(outcome, (Call, Cancel, FrameError, InvalidArgumentError))


def test_a_status_with_an_unknown_detail_still_has_code_and_words() -> None:
    status = status_pb2.Status(code=5, message="gone", details=[AnyMessage(type_url="type.googleapis.com/unknown.Type", value=b"x")])
    assert json.loads(end_frame('"', status)) == {"id": '"', "end": {"status": {"code": 5, "message": "gone", "details": []}}}


@pytest.mark.parametrize("name", ["GetOrder", "ListOrders", "BatchGetQuotes", "LookupOrder", "StreamOrderEvents"])
def test_names_of_reads(name: str) -> None:
    assert is_read(name)


@pytest.mark.parametrize(
    "name", ["Getaway", "Get", "CreateOrder", "CancelOrder", "BatchCreateOrders", "EnterOrders", "Listen", "ActivateKillSwitch"]
)
def test_names_of_everything_else(name: str) -> None:
    assert not is_read(name)


def test_the_catalogue_holds_reads_of_outside_services_only() -> None:
    catalogue = Catalogue()
    assert catalogue.find("trademesh.oms.v1.OrderService/StreamOrderEvents").streaming
    assert catalogue.find("trademesh.risk.v1.RiskService/GetRiskState").backend == "svc-risk"
    assert catalogue.find("google.longrunning.Operations/GetOperation").backend == "svc-reporting"
    assert {method.backend for method in catalogue.methods.values()} == {
        "svc-oms", "svc-risk", "svc-marketdata", "svc-custody", "svc-portfolio", "svc-reporting",
    }  # fmt: skip
    for name in catalogue.methods:
        service = name.partition("/")[0]
        assert service.endswith("Service") or service == "google.longrunning.Operations"
        assert not service.endswith(("ControlService", "EventLogService", "PreTradeService", "ReferencePriceService"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trademesh.oms.v1.OrderService/CreateOrder", "only reads"),
        ("trademesh.oms.v1.OrderService/EnterOrders", "only reads"),
        ("trademesh.risk.v1.RiskService/ActivateKillSwitch", "only reads"),
        ("google.longrunning.Operations/CancelOperation", "only reads"),
        ("trademesh.type.v1.EventLogService/ReadEvents", "no such method"),
        ("/trademesh.oms.v1.OrderService/GetOrder", "no such method"),
        ("", "no such method"),
    ],
)
def test_other_methods_are_refused(name: str, text: str) -> None:
    with pytest.raises(NotFoundError, match=text) as caught:
        Catalogue().find(name)
    assert caught.value.reason is Reason.METHOD_NOT_FOUND


def test_origins_are_compared_whole() -> None:
    assert require_origin(["https://app.example.com"], ALLOWED, required=True) == "https://app.example.com"
    assert require_origin([], ALLOWED, required=False) == ""


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://app.example.com", "https://app.example.com:8443", "https://app.example.com.evil.test", "https://APP.example.com",
        "https://app.example.com/", "https://evil.test", "*",
    ],
)  # fmt: skip
@pytest.mark.parametrize("required", [False, True])
def test_other_origins_are_refused(origin: str, required: bool) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        require_origin([origin], ALLOWED, required=required)
    assert caught.value.reason is Reason.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize("headers", [[], ["https://app.example.com", "https://app.example.com"]])
def test_a_ticket_needs_exactly_one_origin(headers: list[str]) -> None:
    with pytest.raises(PermissionDeniedError):
        require_origin(headers, ALLOWED, required=True)


def test_sockets_are_counted_for_each_user_and_in_all() -> None:
    quota = SocketQuota(principal_max=2, total_max=3)
    quota.enter("acme", "a")
    quota.enter("acme", "a")
    with pytest.raises(ResourceExhaustedError) as caught:
        quota.enter("acme", "a")
    assert caught.value.reason is Reason.QUOTA_EXCEEDED
    quota.enter("globex", "a")
    with pytest.raises(ResourceExhaustedError) as caught:
        quota.enter("acme", "b")
    assert caught.value.reason is Reason.OVERLOADED
    quota.leave("acme", "a")
    quota.enter("acme", "a")
    assert quota.total == 3


def test_rates_let_a_burst_pass_and_then_the_average() -> None:
    rates, half_second = Rates(500, 3), 500_000_000
    for _ in range(3):
        rates.take("a", 0)
    with pytest.raises(ResourceExhaustedError) as caught:
        rates.take("a", 0)
    assert caught.value.retry_after_seconds == 0.5
    rates.take("b", 0)
    rates.take("a", half_second)
    with pytest.raises(ResourceExhaustedError):
        rates.take("a", half_second)
    for _ in range(3):
        rates.take("a", 100 * half_second)
    with pytest.raises(ResourceExhaustedError):
        rates.take("a", 100 * half_second)


def test_rates_forget_who_came_longest_ago() -> None:
    rates = Rates(1_000_000, 1)
    rates.take("a", 0)
    for number in range(NAMES_MAX):
        rates.take(str(number), 0)
    rates.take("a", 0)


def test_a_ticket_has_one_form_and_a_grant_shows_no_token() -> None:
    assert is_ticket("x" * 43)
    assert not any(is_ticket(value) for value in ("", "x" * 42, "x" * 44, "x" * 42 + "=", "é" * 43))
    assert "secret" not in repr(Grant("Bearer secret", "secret", ""))
