"""What a bust or a correction amends: the fill that it names, through earlier corrections, as it stood before."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from kernel.values import ZERO
from svc_reporting.domain.orders import Execution
from svc_reporting.domain.vocabulary import ExecutionType


class Fill(NamedTuple):
    """The quantity and price at which a fill counts."""

    quantity: Decimal
    price: Decimal


class TradeKey(NamedTuple):
    """What identifies a trade for ever: the execution that it began with."""

    venue: str
    trade_date: date
    exec_id: str


class Counted(NamedTuple):
    """The trade that an execution belongs to, and what counted in its place before: nothing for a fill."""

    trade: TradeKey
    before: Fill


NOTHING = Fill(ZERO, ZERO)


class Fills:
    """The fills of one order, folded in the order's versions. A fill counts once, by (venue, trade date, exec id)."""

    def __init__(self, earlier: Iterable[Execution] = ()) -> None:
        self._fills: dict[TradeKey, Fill] = {}
        self._roots: dict[TradeKey, TradeKey] = {}
        for execution in earlier:
            self.add(execution)

    def add(self, execution: Execution) -> Counted:
        """Count an execution."""
        key = TradeKey(execution.venue, execution.trade_date, execution.exec_id)
        root = key
        if execution.type is not ExecutionType.TRADE:
            root = self._root(execution) or key
            self._roots[key] = root
        before = self._fills.get(root, NOTHING)
        busted = execution.type is ExecutionType.TRADE_CANCEL
        self._fills[root] = Fill(ZERO, before.price) if busted else Fill(execution.quantity, execution.price)
        return Counted(root, NOTHING if execution.type is ExecutionType.TRADE else before)

    def _root(self, execution: Execution) -> TradeKey | None:
        """FIX gives the reference no trade date: the same day is tried first, then the only fill of that id on another day."""
        named = TradeKey(execution.venue, execution.trade_date, execution.exec_ref_id)
        if named in self._roots or named in self._fills:
            return self._roots.get(named, named)
        found = {
            self._roots.get(key, key)
            for key in (*self._fills, *self._roots)
            if (key.venue, key.exec_id) == (execution.venue, execution.exec_ref_id)
        }
        return found.pop() if len(found) == 1 else None
