"""Folded orders by id, so that an order is not read and folded again for each of its events. Only a cache: heads decide what is current."""

from __future__ import annotations

from collections import OrderedDict

from svc_oms.domain import Order

ORDERS_MAX = 20_000


class OrderCache:
    """The most recently used orders of this replica, at most `orders_max`."""

    def __init__(self, orders_max: int = ORDERS_MAX) -> None:
        self._orders_max = orders_max
        self._orders: OrderedDict[str, Order] = OrderedDict()

    def get(self, order_id: str) -> Order | None:
        """Return the order as it was last seen here; it may be behind."""
        order = self._orders.get(order_id)
        if order is not None:
            self._orders.move_to_end(order_id)
        return order

    def put(self, order: Order) -> None:
        """Remember a committed state; an older one never replaces a newer."""
        orders, order_id = self._orders, order.terms.order_id
        known = orders.get(order_id)
        if known is None:
            orders[order_id] = order
            if len(orders) > self._orders_max:
                orders.popitem(last=False)
        elif known.version <= order.version:
            orders[order_id] = order
            orders.move_to_end(order_id)
