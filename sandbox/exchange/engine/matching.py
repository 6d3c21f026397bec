"""Price-time priority: which booked orders an incoming order would meet, without touching them."""

from typing import NamedTuple

from sandbox.exchange.engine.book import BookSide
from sandbox.exchange.engine.vocabulary import Order, Side


class Plan(NamedTuple):
    """The fills in order, the quantity left over (lots), and whether self-trade prevention ended the walk."""

    fills: list[tuple[Order, int]]
    remaining: int
    met_own_order: bool


def plan_fills(opposite: BookSide, side: Side, limit: int | None, quantity: int, owner: str, account: str) -> Plan:
    """Walk the opposite side from its best price.

    Args:
        limit: the worst acceptable price in ticks; None for a market order.
        quantity: lots wanted, positive.
        owner, account: the walk stops before an order of the same owner and account; what is left over must then not rest.
    """
    fills: list[tuple[Order, int]] = []
    remaining = quantity
    is_buy = side is Side.BUY
    for level in opposite:
        if limit is not None and (level.price > limit if is_buy else level.price < limit):
            break
        for maker in level.orders.values():
            if maker.account == account and maker.owner == owner:
                return Plan(fills, remaining, True)
            take = maker.leaves_quantity
            if take >= remaining:
                fills.append((maker, remaining))
                return Plan(fills, 0, False)
            fills.append((maker, take))
            remaining -= take
    return Plan(fills, remaining, False)
