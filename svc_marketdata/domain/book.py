"""One instrument's book: its orders by reference, and what they come to at each price. Prices in ticks, quantities in lots.

Levels are kept in order of price as a sorted list beside a dict: changes are made near the touch, which is the list's end, where an
insertion moves few items.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple


class BookError(Exception):
    """A change that does not fit the book: something before it was missed. The book is no longer what the venue has."""


class Level(NamedTuple):
    """All orders at one price."""

    price: int
    quantity: int
    order_count: int


class Resting(NamedTuple):
    """An order in the book."""

    is_bid: bool
    price: int
    quantity: int


class _Side:
    """Levels of one side. `keys` ascend to the best: prices of bids, negated prices of offers."""

    __slots__ = ("keys", "levels", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.levels: dict[int, list[int]] = {}

    def put(self, price: int, quantity: int) -> None:
        level = self.levels.get(price)
        if level is None:
            self.levels[price] = [quantity, 1]
            key = price * self.sign
            keys = self.keys
            if not keys or key > keys[-1]:
                keys.append(key)
            else:
                keys.insert(bisect_left(keys, key), key)
        else:
            level[0] += quantity
            level[1] += 1

    def reduce(self, price: int, quantity: int) -> None:
        self.levels[price][0] -= quantity

    def remove(self, price: int, quantity: int) -> None:
        level = self.levels[price]
        if level[1] > 1:
            level[0] -= quantity
            level[1] -= 1
            return
        del self.levels[price]
        key = price * self.sign
        keys = self.keys
        if keys[-1] == key:
            keys.pop()
        else:
            del keys[bisect_left(keys, key)]

    def best(self) -> Level | None:
        if not self.keys:
            return None
        price = self.keys[-1] * self.sign
        quantity, count = self.levels[price]
        return Level(price, quantity, count)

    def top(self, depth: int) -> list[Level]:
        levels, sign = self.levels, self.sign
        return [Level(price, *levels[price]) for price in [key * sign for key in self.keys[: -depth - 1 : -1]]]


class OrderBook:
    """The book of one instrument."""

    __slots__ = ("_asks", "_bids", "_orders")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all orders."""
        self._orders: dict[int, Resting] = {}
        self._bids = _Side(1)
        self._asks = _Side(-1)

    def __len__(self) -> int:
        """Return how many orders rest."""
        return len(self._orders)

    def order(self, reference: int) -> Resting | None:
        """Return an order, None for an unknown reference."""
        return self._orders.get(reference)

    def add(self, reference: int, *, is_bid: bool, quantity: int, price: int) -> None:
        """Book an order at the back of its price.

        Raises:
            BookError: the reference is booked already, or quantity or price is not above zero.
        """
        if quantity <= 0 or price <= 0 or reference in self._orders:
            raise BookError(f"order {reference} cannot be booked with quantity {quantity} at {price}")
        self._orders[reference] = Resting(is_bid, price, quantity)
        (self._bids if is_bid else self._asks).put(price, quantity)

    def reduce(self, reference: int, quantity: int) -> Resting:
        """Take quantity from an order, as an execution or a partial cancel does; without a rest it leaves. Return it as it was before.

        Raises:
            BookError: no such order, or it has less.
        """
        order = self._orders.get(reference)
        if order is None or not 0 < quantity <= order.quantity:
            raise BookError(f"order {reference} cannot lose {quantity}")
        side = self._bids if order.is_bid else self._asks
        if quantity == order.quantity:
            del self._orders[reference]
            side.remove(order.price, quantity)
        else:
            self._orders[reference] = Resting(order.is_bid, order.price, order.quantity - quantity)
            side.reduce(order.price, quantity)
        return order

    def delete(self, reference: int) -> Resting:
        """Remove an order with all its rest; return it as it was.

        Raises:
            BookError: no such order.
        """
        order = self._orders.pop(reference, None)
        if order is None:
            raise BookError(f"order {reference} cannot leave")
        (self._bids if order.is_bid else self._asks).remove(order.price, order.quantity)
        return order

    def replace(self, reference: int, new_reference: int, *, quantity: int, price: int) -> None:
        """Move an order to the back of a price of the same side, under another reference.

        Raises:
            BookError: no such order, or the new one cannot be booked; the book is as before then.
        """
        if new_reference in self._orders or quantity <= 0 or price <= 0:
            raise BookError(f"order {reference} cannot become {new_reference} with quantity {quantity} at {price}")
        order = self.delete(reference)
        self.add(new_reference, is_bid=order.is_bid, quantity=quantity, price=price)

    @property
    def best_bid(self) -> Level | None:
        """Return the best bid, None where nobody bids."""
        return self._bids.best()

    @property
    def best_ask(self) -> Level | None:
        """Return the best offer, None where nobody offers."""
        return self._asks.best()

    def bids(self, depth: int) -> list[Level]:
        """Return at most `depth` levels of bids, best first."""
        return self._bids.top(depth)

    def asks(self, depth: int) -> list[Level]:
        """Return at most `depth` levels of offers, best first."""
        return self._asks.top(depth)

    @property
    def is_crossed(self) -> bool:
        """Return whether the best bid meets the best offer; no venue's continuous book does, so something was missed."""
        bids, asks = self._bids.keys, self._asks.keys
        return bool(bids and asks and bids[-1] >= -asks[-1])
