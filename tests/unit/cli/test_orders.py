"""Order commands: what is sent, what is shown, how they end."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from cli.exits import Exit
from tests.unit.cli.desk import FakeServices, document, run
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.risk.v1 import limit_pb2
from trademesh.type.v1 import order_terms_pb2

ORDER_ID = "9b2f8a54-5c9f-5e0b-9d3e-3a5f6a1f9c11"


def placed(
    request: Any, state: order_pb2.OrderState.ValueType = order_pb2.ORDER_STATE_PENDING_NEW
) -> order_service_pb2.CreateOrderResponse:
    order = order_pb2.Order(
        order_id=ORDER_ID,
        client_order_id=request.client_order_id,
        account_id=request.account_id,
        instrument_id=request.instrument_id,
        side=request.side,
        type=request.type,
        quantity=request.quantity,
        state=state,
    )
    if request.HasField("limit_price"):
        order.limit_price = request.limit_price
    return order_service_pb2.CreateOrderResponse(order=order)


def refused(request: Any) -> order_service_pb2.CreateOrderResponse:
    response = placed(request, order_pb2.ORDER_STATE_REJECTED)
    breach = limit_pb2.LimitBreach(
        reason=error_reason_pb2.ERROR_REASON_MAX_QUANTITY_EXCEEDED, scope="account/ACC-1", limit="5", actual="10", text="10 is above 5"
    )
    response.order.reject.reason = breach.reason
    response.order.reject.text = breach.text
    response.order.reject.breaches.append(breach)
    return response


def test_a_limit_order_is_sent_as_it_was_written() -> None:
    services = FakeServices({"CreateOrder": placed})
    terms = ("--limit", "108000.10", "--tif", "GTC", "--client-order-id", "k-1", "--label", "desk=7")
    assert run(services, "order", "sell", "0.5", "BTC-USD", "--account", "ACC-1", *terms) == Exit.DONE
    [request] = services.requests
    assert request == order_service_pb2.CreateOrderRequest(
        account_id="ACC-1",
        client_order_id="k-1",
        instrument_id="BTC-USD",
        side=order_terms_pb2.SIDE_SELL,
        type=order_terms_pb2.ORDER_TYPE_LIMIT,
        time_in_force=order_terms_pb2.TIME_IN_FORCE_GTC,
        quantity="0.5",
        limit_price="108000.10",
        labels={"desk": "7"},
    )
    assert services.callers[0].accounts == ("ACC-1",)


def test_without_a_price_it_is_a_market_order_under_a_fresh_key_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices({"CreateOrder": placed})
    assert run(services, "order", "buy", "10", "AAPL", "--account", "ACC-1") == Exit.DONE
    [request] = services.requests
    assert request.type == order_terms_pb2.ORDER_TYPE_MARKET
    assert not request.HasField("limit_price")
    assert str(uuid.UUID(request.client_order_id)) == request.client_order_id
    captured = capsys.readouterr()
    assert request.client_order_id in captured.err
    assert ORDER_ID in captured.out
    assert "PENDING_NEW" in captured.out


def test_json_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(FakeServices({"CreateOrder": placed}, replayed=True), "--json", "order", "buy", "10", "AAPL", "--account", "ACC-1") == Exit.DONE
    )
    captured = capsys.readouterr()
    shown = document(captured.out)
    assert shown["order"]["order_id"] == ORDER_ID
    assert shown["order"]["state"] == "ORDER_STATE_PENDING_NEW"
    assert shown["replayed"] is True
    assert captured.err == ""


def test_a_refusal_ends_with_1_and_names_every_breach(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeServices({"CreateOrder": refused}), "order", "buy", "10", "AAPL", "--account", "ACC-1") == Exit.REJECTED
    shown = capsys.readouterr().out
    assert "MAX_QUANTITY_EXCEEDED" in shown
    assert "account/ACC-1" in shown
    assert run(FakeServices({"CreateOrder": refused}), "order", "buy", "10", "AAPL", "--account", "ACC-1", "--json") == Exit.REJECTED
    assert document(capsys.readouterr().out)["order"]["reject"]["breaches"][0]["limit"] == "5"


@pytest.mark.parametrize(
    ("words", "field", "rule"),
    [
        ("buy NaN AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy -5 AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy -0 AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy 0 AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy 1e3 AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy +1 AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy 1.1234567890123456789 AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy 123456789012345678901 AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy ten AAPL --account ACC-1", "quantity", "decimal.positive"),
        ("buy 1 AAPL --account ACC-1 --limit -0", "limit_price", "decimal.positive"),
        ("buy 1 AAPL --account ACC-1 --limit Infinity", "limit_price", "decimal.positive"),
        ("buy 1 AAPL --account acc-1", "account_id", "account_id"),
        ("buy 1 BTC/USD --account ACC-1", "instrument_id", "instrument_id"),
        ("buy 1 AAPL --account ACC-1 --client-order-id a/b", "client_order_id", "client_key"),
        ("buy 1 AAPL --account ACC-1 --tif GTC", "time_in_force", "order.time_in_force.market"),
    ],
)
def test_bad_input_names_field_and_rule_and_sends_nothing(words: str, field: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices()
    assert run(services, "order", *words.split(), "--json") == Exit.INVALID
    error = document(capsys.readouterr().out)["error"]
    assert error["reason"] == "FIELD_INVALID"
    assert [(item["field"], item["rule"]) for item in error["fields"]] == [(field, rule)]
    assert error["next"]
    assert services.requests == []


@pytest.mark.parametrize(
    "words",
    [
        "order hold 1 AAPL --account ACC-1",
        "order buy 1 AAPL",
        "order buy 1 AAPL --account ACC-1 --limt 5",
        "order buy 1 AAPL --account ACC-1 --label desk",
        "orders --account ACC-1 --state LOST",
        "get --account ACC-1",
        f"get {ORDER_ID} --client-order-id k --account ACC-1",
        "orders --account ACC-1 --page-size many",
        "nothing",
        "kill activate account",
        "kill activate firm ACC-1",
        "limits set account ACC-1 max-luck 5",
    ],
)
def test_a_wrong_command_is_a_typed_error_too(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices()
    assert run(services, "--json", *words.split()) == Exit.INVALID
    error = document(capsys.readouterr().out)["error"]
    assert error["reason"] == "USAGE"
    assert "--help" in error["next"]
    assert services.requests == []


def test_a_refused_replacement_ends_with_1() -> None:
    def answer(request: Any) -> order_service_pb2.ReplaceOrderResponse:
        order = order_pb2.Order(order_id=request.order_id, state=order_pb2.ORDER_STATE_NEW, quantity="1")
        return order_service_pb2.ReplaceOrderResponse(order=order, reject=order_pb2.OrderReject(text="too much"))

    services = FakeServices({"ReplaceOrder": answer})
    assert run(services, "replace", ORDER_ID, "--account", "ACC-1", "--quantity", "20") == Exit.REJECTED
    [request] = services.requests
    assert request.quantity == "20"
    assert not request.HasField("limit_price")
    nothing = FakeServices()
    assert run(nothing, "replace", ORDER_ID, "--account", "ACC-1") == Exit.INVALID
    assert nothing.requests == []


def test_an_order_is_found_by_id_or_by_key() -> None:
    order = order_pb2.Order(order_id=ORDER_ID)
    services = FakeServices(
        {
            "GetOrder": lambda request: order_service_pb2.GetOrderResponse(order=order),
            "LookupOrder": lambda request: order_service_pb2.LookupOrderResponse(order=order),
        }
    )
    assert run(services, "get", ORDER_ID, "--account", "ACC-1") == Exit.DONE
    assert run(services, "get", "--client-order-id", "k-1", "--account", "ACC-1") == Exit.DONE
    assert [type(request).__name__ for request in services.requests] == ["GetOrderRequest", "LookupOrderRequest"]


def test_waiting_ends_with_a_terminal_state(capsys: pytest.CaptureFixture[str]) -> None:
    states = [order_pb2.ORDER_STATE_NEW, order_pb2.ORDER_STATE_FILLED]

    def progress(request: Any) -> order_service_pb2.GetOrderResponse:
        return order_service_pb2.GetOrderResponse(order=order_pb2.Order(order_id=ORDER_ID, account_id="ACC-1", state=states.pop(0)))

    services = FakeServices({"CreateOrder": placed, "GetOrder": progress})
    assert run(services, "order", "buy", "1", "AAPL", "--account", "ACC-1", "--wait", "30", "--json") == Exit.DONE
    assert document(capsys.readouterr().out)["order"]["state"] == "ORDER_STATE_FILLED"
    assert states == []
