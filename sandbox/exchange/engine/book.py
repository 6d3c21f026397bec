"""The limit order book of one instrument: price levels in order, orders within a level by arrival."""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator

from sandbox.exchange.engine.vocabulary import Order, Side


class Level:
    """The queue at one price. `quantity` is the sum of the leaves in it, in lots."""

    __slots__ = ("orders", "price", "quantity")

    def __init__(self, price: int) -> None:
        self.price = price
        self.quantity = 0
        # Linked, not a dict: the head of the queue leaves most often, and a dict would search past its holes.
        self.orders: OrderedDict[int, Order] = OrderedDict()


class BookSide:
    """All bids or all asks. Best price last, so that the touch is where a list is cheap to change."""

    __slots__ = ("_keys", "_sign", "levels")

    def __init__(self, side: Side) -> None:
        self._sign = 1 if side is Side.BUY else -1
        self._keys: list[int] = []
        self.levels: dict[int, Level] = {}

    def __iter__(self) -> Iterator[Level]:
        """Iterate over levels from the best price."""
        for key in reversed(self._keys):
            yield self.levels[key * self._sign]

    @property
    def best(self) -> Level | None:
        """The level at the touch."""
        return self.levels[self._keys[-1] * self._sign] if self._keys else None

    def add(self, order: Order) -> None:
        """Put `order` at the back of the queue at its price."""
        level = self.levels.get(order.price)
        if level is None:
            level = self.levels[order.price] = Level(order.price)
            insort(self._keys, order.price * self._sign)
        level.orders[order.order_id] = order
        level.quantity += order.leaves_quantity

    def reduce(self, order: Order, quantity: int) -> None:
        """Account for `quantity` lots that `order` has lost; an order without leaves goes."""
        level = self.levels[order.price]
        level.quantity -= quantity
        if order.leaves_quantity == 0:
            self._drop(level, order)

    def remove(self, order: Order) -> None:
        """Take `order` out with all its leaves."""
        level = self.levels[order.price]
        level.quantity -= order.leaves_quantity
        self._drop(level, order)

    def _drop(self, level: Level, order: Order) -> None:
        del level.orders[order.order_id]
        if not level.orders:
            del self.levels[level.price]
            key = level.price * self._sign
            if self._keys[-1] == key:
                self._keys.pop()
            else:
                del self._keys[bisect_left(self._keys, key)]


class Book:
    """Both sides of one instrument."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = BookSide(Side.BUY)
        self.asks = BookSide(Side.SELL)

    def side(self, side: Side) -> BookSide:
        """The side that orders of `side` rest on."""
        return self.bids if side is Side.BUY else self.asks

    def opposite(self, side: Side) -> BookSide:
        """The side that orders of `side` trade against."""
        return self.asks if side is Side.BUY else self.bids
