"""What venues reported, as positions see it: fills, and what was said of them later.

A position is the fold of its fills in the order of svc_oms's log, each with the terms that the last word about it gives it: a bust takes it
out, a correction gives it other terms at its old place. So it does not matter when a bust or a correction comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple

from kernel.ports import LogPosition


class Side(IntEnum):
    """The side of an order, with the numbers of FIX 54."""

    BUY = 1
    SELL = 2


class ExecutionType(IntEnum):
    """What an execution report tells (FIX 150), with the contract's numbers."""

    TRADE = 1
    TRADE_CANCEL = 2
    TRADE_CORRECT = 3


class ExecutionKey(NamedTuple):
    """What makes an execution the same one, whatever session told of it. `trade_date` is `YYYY-MM-DD`."""

    venue: str
    trade_date: str
    exec_id: str

    def __str__(self) -> str:
        return f"{self.venue}/{self.trade_date}/{self.exec_id}"


class PositionKey(NamedTuple):
    """What a position belongs to."""

    account_id: str
    instrument_id: str


@dataclass(frozen=True, slots=True)
class Execution:
    """A fill, bust or correction.

    Attributes:
        log_position: where svc_oms's log has it; the order of all executions.
        key: its identity.
        root: the fill that it is, or that it amends, through earlier corrections.
        position: the account and instrument that it counts for.
        order_id: of the order.
        type: what it tells.
        exec_ref_id: what a bust or correction names (FIX 19); empty on a fill.
        side: of the order.
        quantity: of the fill, the busted fill or the corrected fill; above zero.
        price: likewise.
        transact_time: the venue's.
    """

    log_position: LogPosition
    key: ExecutionKey
    root: ExecutionKey
    position: PositionKey
    order_id: str
    type: ExecutionType
    exec_ref_id: str
    side: Side
    quantity: Decimal
    price: Decimal
    transact_time: datetime

    @property
    def is_fill(self) -> bool:
        """Say whether it stands for itself."""
        return self.type is ExecutionType.TRADE


class Fill(NamedTuple):
    """A fill as it counts: with the terms that were said of it last, at the place in the log where it was first told."""

    log_position: LogPosition
    key: ExecutionKey
    order_id: str
    side: Side
    quantity: Decimal
    price: Decimal
    transact_time: datetime

    @property
    def signed_quantity(self) -> Decimal:
        """Return the quantity, below zero for a sale."""
        return self.quantity if self.side is Side.BUY else -self.quantity


def fill_of(execution: Execution) -> Fill:
    """Return an execution's own terms as a fill."""
    return Fill(
        execution.log_position,
        execution.key,
        execution.order_id,
        execution.side,
        execution.quantity,
        execution.price,
        execution.transact_time,
    )


def rooted(execution: Execution, earlier: Mapping[ExecutionKey, Execution]) -> Execution:
    """Return a bust or correction with the fill that it amends, found among the earlier executions of its order as svc_oms finds it.

    FIX gives the reference no trade date: the same day is tried first, then the only fill of that id on another day. One that amends
    nothing known stands for itself, as it does in svc_oms.
    """
    if execution.is_fill:
        return execution
    same_day = execution.key._replace(exec_id=execution.exec_ref_id)
    named = earlier.get(same_day)
    if named is not None and named.order_id == execution.order_id:
        return replace(execution, root=named.root)
    found = {
        other.root
        for other in earlier.values()
        if other.order_id == execution.order_id and other.key.venue == same_day.venue and other.key.exec_id == same_day.exec_id
    }
    return replace(execution, root=found.pop()) if len(found) == 1 else execution


def effective_fills(executions: Iterable[Execution]) -> list[Fill]:
    """Return the fills that count, in log order, of executions in log order: what was busted is out, what was corrected has its last terms.

    A correction after a bust brings the fill back, as it does in svc_oms. Repeated keys count once.
    """
    fills: dict[ExecutionKey, Fill] = {}
    busted: set[ExecutionKey] = set()
    seen: set[ExecutionKey] = set()
    for execution in executions:
        if execution.key in seen:
            continue
        seen.add(execution.key)
        root = execution.root
        known = fills.get(root)
        if execution.type is ExecutionType.TRADE_CANCEL:
            busted.add(root)
        elif known is None:
            fills[root] = fill_of(execution)
        else:
            busted.discard(root)
            fills[root] = known._replace(quantity=execution.quantity, price=execution.price)
    return [fill for root, fill in fills.items() if root not in busted]
