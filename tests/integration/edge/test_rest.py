"""REST requests: what becomes of them, and what the door refuses."""

from __future__ import annotations

from typing import Any

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
    (request,) = orders.requests
    assert (request.account_id, request.client_order_id, request.limit_price) == ("ACC-1", "c-1", "187.5")
    assert answer.json["order"]["order_id"].startswith("9b2f")
