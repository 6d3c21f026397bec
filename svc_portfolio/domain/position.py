"""A position: its lots, first in first out, and what closing them has earned. Pure.

- **Realised profit** is FIFO: a closing fill closes the oldest lots first, and earns (close price - lot price) x quantity on a long lot,
  the opposite on a short one.
- **Average cost** is the mean price of the lots that are open, weighted by what remains of them. It is not what closings are charged with:
  under FIFO it changes with every closing that leaves lots of other prices, where the moving-average method would leave it.

Money is exact, quantity times price to all its places; nothing is rounded before it is shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from kernel.ports import LOG_START, LogPosition
from kernel.values import SCALE_MAX, ZERO, exact_context
from svc_portfolio.domain.executions import Execution, ExecutionKey, Fill, Side, effective_fills, fill_of

EXACT = exact_context()
_QUANTUM = Decimal(1).scaleb(-SCALE_MAX)


class Lot(NamedTuple):
    """What a fill has opened. `quantity` is what was opened and `remaining` what is still open, both above zero or `remaining` zero."""

    key: ExecutionKey
    log_position: LogPosition
    order_id: str
    side: Side
    open_time: datetime
    quantity: Decimal
    price: Decimal
    remaining: Decimal


class Match(NamedTuple):
    """A closing of a lot by a fill; `realised` is exact."""

    lot: ExecutionKey
    lot_position: LogPosition
    closing: ExecutionKey
    closing_position: LogPosition
    close_time: datetime
    quantity: Decimal
    open_price: Decimal
    close_price: Decimal
    realised: Decimal

    @property
    def trade_date(self) -> str:
        """Return the trade date that the profit belongs to: the closing fill's."""
        return self.closing.trade_date


@dataclass(frozen=True, slots=True)
class Position:
    """What is held, after `version` executions, the last of them at `log_position`.

    `cost` is the sum of signed remaining quantity times price over the open lots; `realised` the sum of all matches.
    """

    version: int = 0
    log_position: LogPosition = LOG_START
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    realised: Decimal = ZERO

    @property
    def average_cost(self) -> Decimal | None:
        """Return the mean price of the open lots, to 18 places, half to even; None where nothing is held."""
        if not self.quantity:
            return None
        return EXACT.divide(self.cost, self.quantity).quantize(_QUANTUM, rounding=ROUND_HALF_EVEN, context=EXACT)


FLAT = Position()


class Change(NamedTuple):
    """What one execution did to a position. `restated`: lots and matches are not those before with some added, but other ones."""

    execution: Execution
    before: Position
    after: Position
    restated: bool


class Fold:
    """Folds fills into lots. Begin with nothing, or with the open lots of a position in order."""

    def __init__(self, open_lots: Iterable[Lot] = (), *, realised: Decimal = ZERO) -> None:
        self._open = deque(open_lots)
        self._quantity = ZERO
        self._cost = ZERO
        for lot in self._open:
            self._add(lot.side, lot.remaining, lot.price)
        self._realised = realised
        self.touched: dict[ExecutionKey, Lot] = {}
        self.matches: list[Match] = []

    def apply(self, fill: Fill) -> None:
        """Close the oldest lots of the other side, then open what is left of the fill."""
        left = fill.quantity
        while left and self._open and self._open[0].side is not fill.side:
            left = EXACT.subtract(left, self._close(fill, left))
        if left:
            lot = Lot(fill.key, fill.log_position, fill.order_id, fill.side, fill.transact_time, left, fill.price, left)
            self._open.append(lot)
            self.touched[lot.key] = lot
            self._add(lot.side, left, lot.price)

    def position(self, version: int, log_position: LogPosition) -> Position:
        """Return the position as it stands, which must agree with its lots."""
        assert not self._open or (self._quantity > 0) is (self._open[0].side is Side.BUY), "open lots are all of the position's side"
        return Position(version, log_position, self._quantity, self._cost, self._realised)

    @property
    def open_lots(self) -> list[Lot]:
        """Return the open lots in order."""
        return list(self._open)

    def _close(self, fill: Fill, left: Decimal) -> Decimal:
        lot = self._open[0]
        quantity = min(left, lot.remaining)
        rest = lot._replace(remaining=EXACT.subtract(lot.remaining, quantity))
        if rest.remaining:
            self._open[0] = rest
        else:
            self._open.popleft()
        self.touched[lot.key] = rest
        self._add(lot.side, -quantity, lot.price)
        gain = EXACT.subtract(fill.price, lot.price) if lot.side is Side.BUY else EXACT.subtract(lot.price, fill.price)
        realised = EXACT.multiply(gain, quantity)
        self._realised = EXACT.add(self._realised, realised)
        self.matches.append(
            Match(lot.key, lot.log_position, fill.key, fill.log_position, fill.transact_time, quantity, lot.price, fill.price, realised)
        )
        return quantity

    def _add(self, side: Side, quantity: Decimal, price: Decimal) -> None:
        signed = quantity if side is Side.BUY else -quantity
        self._quantity = EXACT.add(self._quantity, signed)
        self._cost = EXACT.add(self._cost, EXACT.multiply(signed, price))


def fold(executions: Iterable[Execution]) -> tuple[Position, Fold]:
    """Return what executions of one position, in log order, have made of it."""
    history = list(executions)
    folded = Fold()
    fills = effective_fills(history)
    for fill in fills:
        folded.apply(fill)
    position = folded.position(len(history), history[-1].log_position if history else LOG_START)
    assert position.quantity == signed_sum(fills), "a position is the sum of its fills"
    return position, folded


def signed_sum(fills: Iterable[Fill]) -> Decimal:
    """Return the sum of fills, sales below zero."""
    total = ZERO
    for fill in fills:
        total = EXACT.add(total, fill.signed_quantity)
    return total


class Book:
    """One position while executions are added to it, and what is to be written of it afterwards.

    Args:
        position: as it stands.
        open_lots: its open lots in order.
        history: its executions so far, in log order; needed where one that is added amends another.
    """

    def __init__(self, position: Position, open_lots: Iterable[Lot], history: list[Execution] | None = None) -> None:
        self.position = position
        self.restated = False
        self._history = history
        self._fold = Fold(open_lots, realised=position.realised)
        assert self._fold.position(0, LOG_START).quantity == position.quantity, "a position is the sum of its lots"

    @property
    def lots(self) -> list[Lot]:
        """Return the lots that were opened or changed; all lots that ever were where `restated`."""
        return sorted(self._fold.touched.values(), key=lambda lot: lot.log_position)

    @property
    def matches(self) -> list[Match]:
        """Return the matches that were added; all that ever were where `restated`."""
        return self._fold.matches

    def add(self, execution: Execution) -> Change:
        """Add the next execution of the log.

        A fill costs what it closes. A bust or correction folds all that the position ever had again, because lots that came after may have
        been matched with the amended one: linear in the position's executions.
        """
        before = self.position
        assert execution.log_position > before.log_position, "executions come in log order"
        if self._history is not None:
            self._history.append(execution)
        amends = not execution.is_fill
        if amends:
            assert self._history is not None, "an amendment needs the position's history"
            self.position, self._fold = fold(self._history)
            self.restated = True
        else:
            self._fold.apply(fill_of(execution))
            self.position = self._fold.position(before.version + 1, execution.log_position)
            assert self.position.quantity == EXACT.add(before.quantity, fill_of(execution).signed_quantity)
        assert self.position.version == before.version + 1
        return Change(execution, before, self.position, amends)
