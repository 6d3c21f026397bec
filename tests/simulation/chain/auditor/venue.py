"""The auditor's reading of the venue's journal: which of our orders it took, and what they traded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.simulation.chain.auditor.view import BUY
from tests.simulation.chain.history import VenueEvent
from tests.simulation.chain.loop import START
from tests.simulation.chain.venue import MEMBER

_ORDER_ID_LENGTH = 36
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class VenueOrder:
    """An order of ours at the venue: when it was taken, in units, and every change of its terms that the venue took."""

    order_id: str
    account_id: str
    instrument_id: str
    side: int
    terms: list[tuple[float, str, Decimal]] = field(default_factory=list)
    """When, under which ClOrdID, and the quantity in force from then on."""


@dataclass(slots=True)
class VenueFill:
    """One side of a trade that was ours, as last corrected."""

    exec_id: str
    trade_date: str
    order_id: str
    instrument_id: str
    account_id: str
    side: int
    quantity: Decimal
    price: Decimal


class VenueBook:
    """The venue's events folded, as far as we are concerned."""

    def __init__(self, events: Iterable[VenueEvent]) -> None:
        self.orders: dict[int, VenueOrder] = {}
        self.fills: dict[int, VenueFill] = {}
        self.rejected: list[tuple[float, str]] = []
        self._grids: dict[str, tuple[Decimal, Decimal]] = {}
        for event in events:
            reader = _READERS.get(event.kind)
            if reader is not None:
                reader(self, *event.fields)

    def listed(self, _sequence: int, _time: int, symbol: str, tick: str, lot: str, *_: Any) -> None:
        self._grids[symbol] = Decimal(tick), Decimal(lot)

    def accepted(
        self,
        sequence: int,
        time_ns: int,
        owner: str,
        account: str,
        client: str,
        symbol: str,
        side: str,
        _type: str,
        _tif: str,
        lots: int,
        _: int,
    ) -> None:
        if owner != MEMBER:
            return
        order = VenueOrder(client[:_ORDER_ID_LENGTH], account, symbol, int(side))
        order.terms.append((_moment(time_ns), client, self._grids[symbol][1] * lots))
        self.orders[sequence] = order

    def replaced(self, _sequence: int, time_ns: int, number: int, symbol: str, client: str, _tif: str, lots: int, *_: Any) -> None:
        order = self.orders.get(number)
        if order is not None:
            order.terms.append((_moment(time_ns), client, self._grids[symbol][1] * lots))

    def traded(
        self,
        sequence: int,
        _time: int,
        trade_date: str,
        symbol: str,
        ticks: int,
        lots: int,
        taker: int,
        maker: int,
        taker_side: str,
        *_: Any,
    ) -> None:
        tick, lot = self._grids[symbol]
        sides = {int(taker_side): taker, 3 - int(taker_side): maker}
        for side, number in sides.items():
            order = self.orders.get(number)
            if order is not None:
                # The buyer's execution has the trade's own number, the seller's the next one.
                execution = sequence + (side != BUY)
                date = trade_date.replace("-", "")
                self.fills[execution] = VenueFill(
                    str(execution), date, order.order_id, symbol, order.account_id, side, lot * lots, tick * ticks
                )

    def corrected(self, _sequence: int, _time: int, match: int, ticks: int, lots: int, *_: Any) -> None:
        for execution in (match, match + 1):
            fill = self.fills.get(execution)
            if fill is not None:
                tick, lot = self._grids[fill.instrument_id]
                fill.quantity, fill.price = lot * lots, tick * ticks

    def positions(self) -> dict[tuple[str, str], Decimal]:
        """Return what each account bought, less what it sold, by instrument."""
        found: dict[tuple[str, str], Decimal] = {}
        for fill in self.fills.values():
            key = fill.account_id, fill.instrument_id
            found[key] = found.get(key, Decimal(0)) + (fill.quantity if fill.side == BUY else -fill.quantity)
        return found


def _moment(time_ns: int) -> float:
    """The simulation's time of a moment on the venue's clock, which is right."""
    return time_ns / 1e9 - (START - _EPOCH).total_seconds()


_READERS: dict[str, Any] = {
    "L": VenueBook.listed,
    "A": VenueBook.accepted,
    "M": VenueBook.replaced,
    "T": VenueBook.traded,
    "G": VenueBook.corrected,
}
