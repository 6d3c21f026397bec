"""REST requests: what becomes of them, and what the door refuses."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.errors import FieldViolation, InvalidArgumentError, Reason, ResourceExhaustedError, UnavailableError
from tests.integration.edge.backend import Orders
from tests.integration.edge.world import Edge

ORDER: dict[str, Any] = {
    "client_order_id": "c-1",
    "instrument_id": "AAPL",
    "side": "SIDE_BUY",
    "type": "ORDER_TYPE_LIMIT",
    "time_in_force": "TIME_IN_FORCE_DAY",
    "quantity": "10",
    "limit_price": "187.5",
}
PATH = "/v1/accounts/ACC-1/orders"


def test_an_order_arrives_as_it_was_written(edge: Edge, orders: Orders) -> None:
    answer = edge.call("POST", PATH, ORDER)
    assert answer.status == 200, answer.body
    assert answer.json["order"]["order_id"].startswith("9b2f")
    (request,) = orders.requests
    assert (request.account_id, request.client_order_id, request.limit_price) == ("ACC-1", "c-1", "187.5")
    (context,) = orders.contexts
    assert (context.identity.peer, context.user.principal, context.user.tenant) == ("edge", "alice", "acme")


def test_both_spellings_of_a_name_are_taken(edge: Edge, orders: Orders) -> None:
    spelled = {"clientOrderId": "c-2", "instrumentId": "AAPL", "side": "SIDE_BUY", "type": "ORDER_TYPE_LIMIT", "quantity": "1"}
    assert edge.call("POST", PATH, {**spelled, "timeInForce": "TIME_IN_FORCE_DAY", "limitPrice": "2", "labels": {"a": "b"}}).status == 200
    assert orders.requests[0].limit_price == "2"
    assert dict(orders.requests[0].labels) == {"a": "b"}


def test_a_query_arrives_as_it_was_written(edge: Edge, orders: Orders) -> None:
    query = "page_size=5&minPosition.tx=3&states=ORDER_STATE_NEW&states=ORDER_STATE_FILLED&open_only=true&page_token=a%2Bb+c"
    assert edge.call("GET", f"{PATH}?{query}").status == 200
    (request,) = orders.requests
    assert (request.page_size, request.min_position.tx, len(request.states), request.open_only) == (5, 3, 2, True)
    assert request.page_token == "a+b+c"


@pytest.mark.parametrize(
    ("document", "reason", "field", "rule"),
    [
        ({**ORDER, "limitPrise": "1"}, "FIELD_UNKNOWN", "limitPrise", "json.field.known"),
        ({**ORDER, "account_id": "ACC-2"}, "FIELD_INVALID", "account_id", "path.body"),
        ({**ORDER, "accountId": "ACC-1"}, "FIELD_INVALID", "accountId", "path.body"),
        ({**ORDER, "quantity": 10}, "FIELD_INVALID", "quantity", "json.type"),
        ({**ORDER, "side": "BUY"}, "FIELD_INVALID", "side", "enum"),
        ({**ORDER, "side": 1}, "FIELD_INVALID", "side", "json.type"),
        ({**ORDER, "labels": {"a": 1}}, "FIELD_INVALID", "labels.a", "json.type"),
        ({**ORDER, "labels": {"a": None}}, "FIELD_INVALID", "labels.a", "json.type"),
        (b'{"quantity":"1","quantity":"2"}', "JSON_INVALID", "quantity", "json.name.unique"),
        (b'{"limit_price":"1","limitPrice":"2"}', "JSON_INVALID", "limitPrice", "json.name.unique"),
        (b'{"labels":{"a":"1","\\u0061":"2"}}', "JSON_INVALID", "labels.a", "json.name.unique"),
        (b'{"quantity":"\\ud800"}', "JSON_INVALID", "quantity", "json.string.surrogate"),
        (b'{"quantity":"\\u0000"}', "JSON_INVALID", "quantity", "json.string.nul"),
        (b'{"quantity":"\xff"}', "JSON_INVALID", "quantity", "json.utf8"),
        (b'{"quantity":"\xed\xa0\x80"}', "JSON_INVALID", "quantity", "json.utf8"),
        (b'{"quantity":"\t"}', "JSON_INVALID", "quantity", "json.string.control"),
        (b'{"quantity":"1",}', "JSON_INVALID", "", "json.grammar"),
        (b"{'quantity':'1'}", "JSON_INVALID", "", "json.grammar"),
        (b'{"quantity":"1"} {}', "JSON_INVALID", "", "json.grammar"),
        (b"[]", "FIELD_INVALID", "", "json.type"),
        (b"", "JSON_INVALID", "", "json.body.required"),
        (b" \n", "JSON_INVALID", "", "json.body.required"),
        (b'\xef\xbb\xbf{"quantity":"1"}', "FIELD_INVALID", "", "json.type"),
    ],
)
def test_a_loose_document_is_refused(edge: Edge, orders: Orders, document: Any, reason: str, field: str, rule: str) -> None:
    answer = edge.call("POST", PATH, document)
    assert (answer.status, answer.json["code"], answer.reason) == (400, 3, reason), answer.body
    assert answer.violations == [(field, rule)]
    assert answer.headers["content-type"] == "application/json"
    assert not orders.requests


def test_depth_and_nesting_are_named(edge: Edge, orders: Orders) -> None:
    inner = {**ORDER, "account_id": "ACC-1"}
    answer = edge.call("POST", "/v1/orders:batchCreate", {"requests": [inner, {**inner, "limitPrise": "1"}]})
    assert answer.violations == [("requests[1].limitPrise", "json.field.known")]
    assert edge.call("POST", "/v1/orders:batchCreate", {"requests": [inner, inner]}).status == 200
    assert len(orders.requests[0].requests) == 2


@pytest.mark.parametrize(
    ("path", "reason", "rule"),
    [
        (f"{PATH}?foo=1", "FIELD_UNKNOWN", "query.known"),
        (f"{PATH}?page_size=1&pageSize=2", "FIELD_INVALID", "query.unique"),
        (f"{PATH}?account_id=ACC-2", "FIELD_INVALID", "path.query"),
        (f"{PATH}?accountId=ACC-1", "FIELD_INVALID", "path.query"),
        (f"{PATH}?page_size=abc", "FIELD_INVALID", "int32"),
        (f"{PATH}?page_size=4294967296", "FIELD_INVALID", "int32.range"),
        (f"{PATH}?states=NEW", "FIELD_INVALID", "enum"),
        (f"{PATH}?open_only=1", "FIELD_INVALID", "bool"),
        (f"{PATH}?min_position=1", "FIELD_INVALID", "query.form"),
        (f"{PATH}?min_position.ty=1", "FIELD_UNKNOWN", "query.known"),
        (f"{PATH}?page_token=%ff", "FIELD_INVALID", "utf8"),
        (f"{PATH}?page_token=%00", "FIELD_INVALID", "control_character"),
        (f"{PATH}?page_token=%2", "FIELD_INVALID", "percent_encoding"),
        (f"{PATH}?page_size", "FIELD_INVALID", "query.grammar"),
        (f"{PATH}?account%5fid=ACC-2", "FIELD_INVALID", "query.grammar"),
        ("/v1/accounts/%ff/orders", "FIELD_INVALID", "utf8"),
    ],
)
def test_a_loose_query_is_refused(edge: Edge, orders: Orders, path: str, reason: str, rule: str) -> None:
    answer = edge.call("GET", path)
    assert (answer.status, answer.reason) == (400, reason), answer.body
    assert [found for _, found in answer.violations] == [rule]
    assert not orders.requests


def test_a_write_takes_no_query_and_a_read_no_body(edge: Edge, orders: Orders) -> None:
    query = edge.call("POST", f"{PATH}?quantity=5", ORDER)
    assert (query.status, query.reason, query.violations) == (400, "FIELD_UNKNOWN", [("quantity", "query.known")])
    body = edge.call("GET", PATH, b"{}")
    assert (body.status, body.reason, body.violations[0][1]) == (400, "JSON_INVALID", "json.body.forbidden")
    assert not orders.requests


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/jsonp", "text/json", ""],
)
def test_only_json_is_taken(edge: Edge, orders: Orders, content_type: str) -> None:
    answer = edge.call("POST", PATH, b"{}", headers={"content-type": content_type})
    assert (answer.status, answer.reason) == (415, "CONTENT_TYPE_UNSUPPORTED"), answer.body
    assert not orders.requests


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json;charset=UTF-8"])
def test_json_is_taken_in_every_spelling(edge: Edge, orders: Orders, content_type: str) -> None:
    assert edge.call("POST", PATH, ORDER, headers={"content-type": content_type}).status == 200


def test_a_compressed_body_is_refused(edge: Edge) -> None:
    answer = edge.call("POST", PATH, ORDER, headers={"content-encoding": "gzip"})
    assert (answer.status, answer.reason) == (415, "CONTENT_TYPE_UNSUPPORTED")


def test_a_body_is_bounded_whether_or_not_it_says_its_length(edge: Edge, orders: Orders) -> None:
    long = b'{"quantity":"' + b"1" * (1024 * 1024) + b'"}'
    told = edge.call("POST", PATH, long)
    assert (told.status, told.reason) == (413, "MESSAGE_TOO_LARGE")
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {edge.issuer.token()}\r\ncontent-type: application/json\r\n"
    chunked = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(long), long)
    untold = edge.raw(head.encode() + chunked)
    assert untold.startswith(b"HTTP/1.1 413")
    assert b"MESSAGE_TOO_LARGE" in untold
    assert not orders.requests


def test_what_there_is_not_is_not_found(edge: Edge, orders: Orders) -> None:
    for path in ("/", "/v1/nothing", "/v1/accounts/ACC-1/orders/", "/v2/orders", "/v1/accounts", "/v1/accounts//orders", "//docs"):
        answer = edge.call("PUT" if path == "/v1/accounts" else "GET", path)
        assert answer.status in {404, 405}, path
        assert answer.reason == "METHOD_NOT_FOUND"
    wrong = edge.call("DELETE", PATH)
    assert (wrong.status, wrong.headers["allow"], wrong.json["code"]) == (405, "GET, POST", 12)


def test_a_methods_grpc_name_is_no_rest_path(edge: Edge, orders: Orders) -> None:
    for path in (
        "/trademesh.oms.v1.OrderService/CreateOrder",
        "/trademesh.risk.v1.PreTradeService/CheckOrders",
        "/grpc.health.v1.Health/Check",
    ):
        answer = edge.call("POST", path, ORDER)
        assert (answer.status, answer.reason) == (404, "METHOD_NOT_FOUND")
    # A REST path with the content type of gRPC: the transcoder would let it pass.
    answer = edge.call("POST", PATH, b"\0\0\0\0\0", headers={"content-type": "application/grpc"})
    assert answer.headers["grpc-status"] == "12"
    assert not orders.requests


def test_paths_are_read_once_and_the_same_everywhere(edge: Edge, orders: Orders) -> None:
    viewer = edge.issuer.token(roles=["viewer"])
    for path in (
        "/v1/accounts/x/../ACC-1/orders",
        "/v1/./accounts/ACC-1/orders",
        "/docs/../v1/accounts/ACC-1/orders",
        "/v1/accounts/ACC-1/%6frders",
    ):
        assert edge.call("POST", path, ORDER, token=viewer).status in {403, 404}, path
        assert edge.call("POST", path, ORDER, token=None).status == 401, path
    assert edge.call("GET", "/v1/accounts/ACC%2f1/orders").status == 400
    assert edge.call("GET", "/v1/accounts/ACC%5c1/orders").status == 400
    assert not orders.requests


def test_a_services_refusal_comes_whole(edge: Edge, orders: Orders) -> None:
    violation = FieldViolation("limit_price", "decimal.canonical", "is not a canonical decimal")
    orders.script = lambda request, context: InvalidArgumentError(Reason.FIELD_INVALID, "limit_price: bad", field_violations=[violation])
    answer = edge.call("POST", PATH, ORDER)
    assert (answer.status, answer.reason, answer.violations) == (400, "FIELD_INVALID", [("limit_price", "decimal.canonical")])
    orders.script = lambda request, context: UnavailableError(Reason.RISK_UNAVAILABLE, "risk is away", retry_after_seconds=0.25)
    answer = edge.call("POST", PATH, ORDER)
    assert (answer.status, answer.json["code"], answer.reason) == (503, 14, "RISK_UNAVAILABLE")
    orders.script = lambda request, context: ResourceExhaustedError(Reason.OVERLOADED, "full", retry_after_seconds=0.25)
    assert edge.call("POST", PATH, ORDER).status == 429


def test_a_replay_is_marked_in_the_headers(edge: Edge, orders: Orders) -> None:
    def replayed(request: Any, context: Any) -> None:
        context.set_initial_metadata("idempotency-replayed", "true")

    orders.script = replayed
    assert edge.call("POST", PATH, ORDER).headers["idempotency-replayed"] == "true"


def test_a_service_that_cannot_be_reached_has_done_nothing(edge: Edge) -> None:
    answer = edge.call("GET", "/v1/limits", token=edge.issuer.token(roles=["admin"]))
    assert (answer.status, answer.json["code"], answer.reason) == (503, 14, "DEPENDENCY_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    assert any(detail["@type"].endswith("RetryInfo") for detail in answer.json["details"])


def test_refusals_come_in_the_documented_order(edge: Edge, orders: Orders) -> None:
    viewer, bad = edge.issuer.token(roles=["viewer"]), {**ORDER, "x": 1}
    text = {"content-type": "text/plain"}
    found = [
        edge.call("PUT", "/v1/nothing", bad, token=None, headers=text),
        edge.call("PUT", "/v1/nothing", bad, token=viewer, headers=text),
        edge.call("PUT", PATH, bad, token=viewer, headers=text),
        edge.call("POST", f"{PATH}?y=1", b"1" * 1_100_000, token=viewer, headers=text),
        edge.call("POST", f"{PATH}?y=1", b"1" * 1_100_000, token=viewer),
        edge.call("POST", PATH, bad, token=viewer),
        edge.call("POST", PATH, ORDER, token=viewer),
    ]
    assert [answer.status for answer in found] == [401, 404, 405, 415, 413, 400, 403]
    assert not orders.requests
