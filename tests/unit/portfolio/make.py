"""Executions for tests of positions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from kernel.ports import LogPosition
from svc_portfolio.domain.executions import Execution, ExecutionKey, ExecutionType, PositionKey, Side, rooted
from svc_portfolio.domain.position import FLAT, Book, Change

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
KEY = PositionKey("ACC-1", "AAPL")
DAY = "2026-03-02"


def execution(
    number: int,
    signed_quantity: str,
    price: str,
    *,
    kind: ExecutionType = ExecutionType.TRADE,
    amends: str = "",
    exec_id: str | None = None,
    trade_date: str = DAY,
    order_id: str = "order-1",
    position: PositionKey = KEY,
) -> Execution:
    """Return the execution at place `number` of the log; a quantity below zero is a sale."""
    key = ExecutionKey("XSIM", trade_date, exec_id or f"e{number}")
    quantity = Decimal(signed_quantity)
    side = Side.BUY if quantity > 0 else Side.SELL
    time = NOON + timedelta(seconds=number)
    return Execution(LogPosition(number, 1), key, key, position, order_id, kind, amends, side, abs(quantity), Decimal(price), time)


def facts(*values: object) -> tuple[object, ...]:
    """Return values to compare, decimals with whole numbers too."""
    return values


def bust(number: int, busted: Execution) -> Execution:
    """Return the bust of a fill."""
    signed = busted.quantity if busted.side is Side.BUY else -busted.quantity
    return execution(number, str(signed), str(busted.price), kind=ExecutionType.TRADE_CANCEL, amends=busted.key.exec_id)


def correction(number: int, corrected: Execution, quantity: str, price: str) -> Execution:
    """Return a correction of a fill, or of an earlier correction."""
    signed = quantity if corrected.side is Side.BUY else f"-{quantity}"
    return execution(number, signed, price, kind=ExecutionType.TRADE_CORRECT, amends=corrected.key.exec_id)


class Told:
    """A position that is told executions one by one, as the store tells it."""

    def __init__(self) -> None:
        self.history: list[Execution] = []
        self.changes: list[Change] = []
        self.book = Book(FLAT, (), [])

    def tell(self, *executions: Execution) -> Told:
        """Tell executions in order."""
        for item in executions:
            item = rooted(item, {other.key: other for other in self.history})
            self.history.append(item)
            self.changes.append(self.book.add(item))
        return self
