"""Rules about what clients were told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tests.simulation.chain.auditor.view import Audited, Violation
from tests.simulation.chain.history import Answer, Call, LogEvent
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.risk.v1 import risk_service_pb2

NOTHING_DONE = frozenset(
    {
        "RISK_UNAVAILABLE",
        "DATABASE_UNAVAILABLE",
        "DEPENDENCY_UNAVAILABLE",
        "REFERENCE_PRICE_STALE",
        "OVERLOADED",
        "DEADLINE_EXPIRED",
        "SHUTTING_DOWN",
    }
)
"""Reasons that promise that nothing was persisted and the key is free."""


def _answered(audited: Audited) -> Iterator[tuple[Call, Answer]]:
    calls = {call.number: call for call in audited.history.calls}
    return ((calls[answer.number], answer) for answer in audited.history.answers)


def acknowledged_is_durable(audited: Audited) -> Iterator[Violation]:
    """What was acknowledged was committed before, and it is what was acknowledged."""
    rule = "acknowledged-is-durable"
    first = {entry.event.stream_id: entry for _, entry in audited.order_entries() if entry.event.version == 1}
    requests: dict[str, LogEvent] = {}
    for _, entry in audited.order_entries():
        if entry.kind in ("CancelRequested", "ReplaceRequested", "ReplaceRejected"):
            requests.setdefault(entry.body.request_id, entry.event)
    for call, answer in _answered(audited):
        if answer.outcome != "ok":
            continue
        for order in _orders_of(call.method, answer.response):
            begun = first.get(f"order-{order.order_id}")
            if begun is None or begun.event.moment > answer.moment:
                yield Violation(rule, f"call {call.number}: order {order.order_id} was acknowledged and is not in the log by then")
            elif Decimal(order.quantity) != Decimal(begun.body.terms.quantity):
                yield Violation(rule, f"call {call.number}: order {order.order_id} was acknowledged with quantity {order.quantity}")
        if call.method in ("CancelOrder", "ReplaceOrder"):
            event = requests.get(call.key[1])
            if event is None or event.moment > answer.moment:
                yield Violation(rule, f"call {call.number}: {call.method} {call.key[1]} was acknowledged and is not in the log by then")


def _orders_of(method: str, response: bytes) -> list[order_pb2.Order]:
    if method == "CreateOrder":
        return [order_service_pb2.CreateOrderResponse.FromString(response).order]
    if method == "BatchCreateOrders":
        results = order_service_pb2.BatchCreateOrdersResponse.FromString(response).results
        return [result.order for result in results if result.HasField("order")]
    return []


def changes_are_durable(audited: Audited) -> Iterator[Violation]:
    """A limit or kill switch that was acknowledged stands in risk's log at the position that was answered."""
    rule = "acknowledged-is-durable"
    at = {(event.tx, event.position): event for event in audited.history.risk}
    types: dict[str, Any] = {
        "UpdateLimit": risk_service_pb2.UpdateLimitResponse,
        "ActivateKillSwitch": risk_service_pb2.ActivateKillSwitchResponse,
        "ReleaseKillSwitch": risk_service_pb2.ReleaseKillSwitchResponse,
    }
    for call, answer in _answered(audited):
        if answer.outcome == "ok" and call.method in types:
            position = types[call.method].FromString(answer.response).log_position
            event = at.get((position.tx, position.position))
            if event is None or event.moment > answer.moment:
                yield Violation(rule, f"call {call.number}: {call.method} was acknowledged and is not in the log by then")


def replays_are_identical(audited: Audited) -> Iterator[Violation]:
    """A key gets one answer for ever."""
    answers: dict[tuple[str, tuple[str, str], bytes], tuple[int, bytes]] = {}
    for call, answer in _answered(audited):
        if answer.outcome != "ok" or call.method == "BatchCreateOrders":
            continue
        number, response = answers.setdefault((call.method, call.key, call.request), (call.number, answer.response))
        if response != answer.response and not _is_news_of_a_switch(call.method, response, answer.response):
            yield Violation("replays-are-identical", f"calls {number} and {call.number}: {call.method} {call.key} got two answers")


def _is_news_of_a_switch(method: str, *responses: bytes) -> bool:
    """PENDING is corrected once svc_oms was told: the contract says so."""
    types: dict[str, Any] = {
        "ActivateKillSwitch": risk_service_pb2.ActivateKillSwitchResponse,
        "ReleaseKillSwitch": risk_service_pb2.ReleaseKillSwitchResponse,
    }
    return method in types and len({types[method].FromString(response).kill_switch.status for response in responses}) > 1


def unknown_outcomes_resolve(audited: Audited) -> Iterator[Violation]:
    """Whoever did not learn an outcome learns it by asking again with the same key; and what "nothing was done" promised holds."""
    rule = "unknown-outcomes-resolve"
    last: dict[tuple[str, tuple[str, str]], Answer] = {}
    doubtful: set[tuple[str, tuple[str, str]]] = set()
    free: dict[tuple[str, tuple[str, str]], bool] = defaultdict(lambda: True)
    doubled = set(audited.history.doubled)
    for call, answer in _answered(audited):
        key = call.method, call.key
        last[key] = answer
        if answer.outcome == "unknown":
            doubtful.add(key)
        harmless = answer.outcome == "refused" and answer.reason in NOTHING_DONE and call.request not in doubled
        free[key] = free[key] and harmless
    for (method, name), answer in last.items():
        if answer.outcome == "unknown" and method != "BatchCreateOrders":
            yield Violation(rule, f"{method} {name} was asked again and again, and nobody knows what came of it")
    begun = {
        (entry.body.terms.account_id, entry.body.terms.client_order_id): entry.event.stream_id
        for _, entry in audited.order_entries()
        if entry.event.version == 1 and entry.kind != "OrderAbandoned"
    }
    batched = _batched(audited)
    for (method, name), untouched in free.items():
        if method == "CreateOrder" and untouched and name in begun and name not in batched:
            yield Violation(rule, f"every answer to {name} said that nothing was done, and {begun[name]} exists")


def _batched(audited: Audited) -> set[tuple[str, str]]:
    """Keys that also travelled in a batch, which may have answered nothing at all."""
    found = set()
    for call in audited.history.calls:
        if call.method == "BatchCreateOrders":
            for request in order_service_pb2.BatchCreateOrdersRequest.FromString(call.request).requests:
                found.add((request.account_id, request.client_order_id))
    return found
