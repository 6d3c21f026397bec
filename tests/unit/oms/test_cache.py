"""The cache of folded orders: bounded, and never behind what was put into it."""

from __future__ import annotations

from svc_oms.domain import Order
from svc_oms.store.cache import OrderCache
from tests.unit.oms import make


def order(key: str, version: int = 1) -> Order:
    placed = make.placed()
    return placed._replace(terms=make.terms(client_order_id=key), version=version)


def test_an_older_state_never_replaces_a_newer_one() -> None:
    cache, newer = OrderCache(), order("a", 3)
    for state in (order("a", 2), newer, order("a", 1)):
        cache.put(state)
    assert cache.get(newer.order_id) is newer


def test_what_was_not_used_for_longest_leaves_first() -> None:
    cache = OrderCache(orders_max=3)
    first, second, third, fourth, fifth = (order(key) for key in "abcde")
    for state in (first, second, third):
        cache.put(state)
    assert cache.get(first.order_id) is first
    cache.put(second._replace(version=2))
    cache.put(fourth)
    assert cache.get(third.order_id) is None
    cache.put(fifth)
    assert cache.get(first.order_id) is None
    assert [cache.get(state.order_id) is None for state in (second, fourth, fifth)] == [False, False, False]
