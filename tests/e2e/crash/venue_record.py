"""The venue's own record of our orders, read from its journal: what an auditor believes before anything that we say ourselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from mesh.local.parts import MEMBER
from sandbox.exchange.engine import events
from sandbox.exchange.engine.codec import decode
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.vocabulary import Side
from sandbox.exchange.journal.records import Record, RecordReader

_HEAD = re.compile(rb"TRADEMESH-EXCHANGE 1 ([0-9A-Z]+)\n")
_EXEC_ID = re.compile(rb"\x0117=([^\x01]*)\x01")
_EXECUTION_REPORT = b"8"


@dataclass(frozen=True, slots=True)
class VenueFill:
    """One side of a trade."""

    exec_id: str
    trade_date: str
    quantity: Decimal
    price: Decimal


@dataclass(slots=True)
class VenueOrder:
    """An order as the venue has it. `client_order_ids` is its chain, `state` one of open, filled, canceled, expired."""

    client_order_ids: list[str]
    account_id: str
    instrument_id: str
    is_buy: bool
    quantity: Decimal
    limit_price: Decimal | None
    accepted_ns: int
    state: str = "open"
    fills: list[VenueFill] = field(default_factory=list)

    @property
    def filled_quantity(self) -> Decimal:
        """The sum of its fills."""
        return sum((fill.quantity for fill in self.fills), Decimal(0))


@dataclass(slots=True)
class VenueRecord:
    """All of it. `rejected` are refused new orders by ClOrdID with the reason's name; the others are lists of what must not be."""

    orders: dict[str, VenueOrder] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    taken_twice: list[str] = field(default_factory=list)
    duplicates_refused: list[str] = field(default_factory=list)
    exec_ids_reused: list[str] = field(default_factory=list)
    numbers_reused: list[int] = field(default_factory=list)


def read_venue_record(journal: Path) -> VenueRecord:
    """Fold the journal of a venue that has nothing under way. It must still have its first segment: no test writes 128 MiB."""
    return _Fold(journal).run()


class _Fold:
    def __init__(self, journal: Path) -> None:
        segments = sorted(path for path in journal.iterdir() if _HEAD.match(path.read_bytes()[:64]))
        assert len(segments) == 1, f"a journal of one segment is expected: {segments}"
        self._path = segments[0]
        head = _HEAD.match(self._path.read_bytes()[:64])
        assert head is not None
        self._start = head.end()
        self._incarnation = head[1].decode()
        self._record = VenueRecord()
        self._by_number: dict[int, VenueOrder] = {}
        self._grids: dict[str, tuple[Decimal, Decimal]] = {}
        self._trades: dict[int, tuple[str, list[tuple[VenueOrder, str]]]] = {}
        self._last_number = 0
        self._exec_ids: set[str] = set()

    def run(self) -> VenueRecord:
        data = self._path.read_bytes()
        for record in RecordReader(self._path, self._start, may_be_torn=True):
            for encoded in record.batch.events:
                event = decode(encoded)
                self._number(event)
                self._apply(event)
            for exec_id in _exec_ids(record, data):
                if exec_id in self._exec_ids:
                    self._record.exec_ids_reused.append(exec_id)
                self._exec_ids.add(exec_id)
        return self._record

    def _number(self, event: Event) -> None:
        if event.sequence <= self._last_number:
            self._record.numbers_reused.append(event.sequence)
        self._last_number = events.last_sequence(event)

    def _apply(self, event: Event) -> None:
        match event:
            case events.Listed():
                self._grids[event.instrument] = Decimal(event.tick), Decimal(event.lot)
            case events.Accepted() if event.owner == MEMBER:
                self._accept(event)
            case events.Rejected() if event.owner == MEMBER:
                self._reject(event)
            case events.Traded():
                self._trade(event)
            case events.TradeCorrected():
                self._correct(event)
            case events.Replaced() if event.order_id in self._by_number:
                order = self._by_number[event.order_id]
                tick, lot = self._grids[event.instrument]
                order.client_order_ids.append(event.client_order_id)
                order.quantity, order.limit_price = event.quantity * lot, event.price * tick
                self._fill_up(order)
            case events.Canceled() if event.order_id in self._by_number:
                self._by_number[event.order_id].state = "canceled"
            case events.Expired() if event.order_id in self._by_number:
                self._by_number[event.order_id].state = "expired"
            case _:
                pass

    def _accept(self, event: events.Accepted) -> None:
        tick, lot = self._grids[event.instrument]
        price = event.price * tick if event.price else None
        order = VenueOrder(
            [event.client_order_id], event.account, event.instrument, event.side is Side.BUY, event.quantity * lot, price, event.time_ns
        )
        self._by_number[event.sequence] = order
        if event.client_order_id in self._record.orders:
            self._record.taken_twice.append(event.client_order_id)
        self._record.orders[event.client_order_id] = order

    def _reject(self, event: events.Rejected) -> None:
        if event.reason == "DUPLICATE_ORDER":
            self._record.duplicates_refused.append(event.client_order_id)
        self._record.rejected[event.client_order_id] = event.reason

    def _trade(self, event: events.Traded) -> None:
        tick, lot = self._grids[event.instrument]
        sides = ((event.taker_id, event.taker_side is Side.BUY), (event.maker_id, event.taker_side is not Side.BUY))
        for number, bought in sides:
            order = self._by_number.get(number)
            if order is not None:
                exec_id = f"{self._incarnation}-{event.sequence if bought else event.sequence + 1}"
                order.fills.append(VenueFill(exec_id, event.trade_date, event.quantity * lot, event.price * tick))
                self._trades.setdefault(event.sequence, (event.instrument, []))[1].append((order, exec_id))
                self._fill_up(order)

    def _correct(self, event: events.TradeCorrected) -> None:
        instrument, sides = self._trades.get(event.match_id, ("", []))
        for order, exec_id in sides:
            tick, lot = self._grids[instrument]
            number, before = next((number, fill) for number, fill in enumerate(order.fills) if fill.exec_id == exec_id)
            after = [VenueFill(exec_id, before.trade_date, event.quantity * lot, event.price * tick)] if event.quantity else []
            order.fills[number : number + 1] = after
            if order.state == "filled" and order.filled_quantity < order.quantity:
                # What becomes of the quantity that came back is the next event's to say.
                order.state = "open"

    def _fill_up(self, order: VenueOrder) -> None:
        if order.filled_quantity >= order.quantity:
            order.state = "filled"


def _exec_ids(record: Record, data: bytes) -> Iterator[str]:
    """The ExecIDs of the reports that a record made; status answers have none."""
    offset = record.blobs_offset
    for _, _, length in record.batch.messages:
        kind, _, body = data[offset : offset + length].split(b"\x01", 2)
        offset += length
        found = _EXEC_ID.search(b"\x01" + body + b"\x01") if kind == _EXECUTION_REPORT else None
        if found is not None and found[1] != b"0":
            yield found[1].decode()
