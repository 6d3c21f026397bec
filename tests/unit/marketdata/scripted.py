"""A venue that says what a test tells it to: ITCH messages, and the naive truth of its books beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from kernel.itch import messages as m
from kernel.itch import venue as v
from kernel.itch.codec import ItchMessage, encode
from kernel.itch.moldudp64 import encode_heartbeat, encode_packet

SESSION = "2601050001"
DAY = 20260105
MIDNIGHT_NS = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp()) * 1_000_000_000
SCALE = 2
LOCATES = {"AAPL": 1, "MSFT": 2, "BTC-USD": 3}


@dataclass
class ScriptedVenue:
    """Every method appends a message to `messages`; message number 1 is the first."""

    session: str = SESSION
    messages: list[bytes] = field(default_factory=list)
    orders: dict[int, tuple[str, str, int, int]] = field(default_factory=dict)
    trades: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    clock_ns: int = 36_000_000_000_000

    def say(self, message: ItchMessage) -> None:
        self.messages.append(encode(message))

    def _head(self, name: str) -> tuple[int, int, int]:
        self.clock_ns += 1_000
        return LOCATES[name], 0, self.clock_ns

    def open(self, *names: str) -> None:
        """List instruments, with prices in cents and lots of 1 (of 0.00000001 for crypto), a close of 100.00, and open them."""
        for name in names:
            for message in self.frame(name):
                self.say(message)

    def frame(self, name: str) -> list[ItchMessage]:
        kind, lot_scale = ("C", 8) if "-" in name else ("E", 0)
        return [
            v.InstrumentDefinition(*self._head(name), name, name, kind, "USD", SCALE, 1, lot_scale, 1, 10**12),
            v.TradingDay(*self._head(name), name, DAY, DAY - 3, 10_000),
            m.StockTradingAction(*self._head(name), name, "H" if name in self.closed else "T", "", ""),
        ]

    def close(self, name: str) -> None:
        self.closed.add(name)
        self.say(m.StockTradingAction(*self._head(name), name, "H", "", ""))

    def add(self, name: str, reference: int, side: str, shares: int, price: int) -> None:
        self.orders[reference] = name, side, shares, price
        self.say(m.AddOrder(*self._head(name), reference, side, shares, name, price))

    def execute(self, reference: int, shares: int, match: int) -> None:
        name, side, rest, price = self.orders.pop(reference)
        if rest > shares:
            self.orders[reference] = name, side, rest - shares, price
        self.trades[match] = name, shares, price
        self.say(m.OrderExecuted(*self._head(name), reference, shares, match))

    def cancel(self, reference: int, shares: int) -> None:
        name, side, rest, price = self.orders[reference]
        self.orders[reference] = name, side, rest - shares, price
        self.say(m.OrderCancel(*self._head(name), reference, shares))

    def delete(self, reference: int) -> None:
        name = self.orders.pop(reference)[0]
        self.say(m.OrderDelete(*self._head(name), reference))

    def replace(self, reference: int, new_reference: int, shares: int, price: int) -> None:
        name, side, _, _ = self.orders.pop(reference)
        self.orders[new_reference] = name, side, shares, price
        self.say(m.OrderReplace(*self._head(name), reference, new_reference, shares, price))

    def bust(self, match: int) -> None:
        name = self.trades.pop(match)[0]
        self.say(m.BrokenTrade(*self._head(name), match))

    def correct(self, match: int, shares: int, price: int) -> None:
        """A bust, and the trade as it is now under the same number."""
        name = self.trades[match][0]
        self.bust(match)
        self.trades[match] = name, shares, price
        self.say(m.Trade(*self._head(name), 0, "B", shares, name, price, match))

    def levels(self, name: str, side: str) -> list[tuple[int, int, int]]:
        """The naive truth: (price, quantity, orders), best first."""
        found: dict[int, tuple[int, int]] = {}
        for instrument, order_side, shares, price in self.orders.values():
            if (instrument, order_side) == (name, side):
                quantity, count = found.get(price, (0, 0))
                found[price] = quantity + shares, count + 1
        return [(price, *found[price]) for price in sorted(found, reverse=side == "B")]

    def snapshot(self, *names: str) -> tuple[bytes, ...]:
        """The state of all books, as a snapshot server tells it."""
        told: list[ItchMessage] = [message for name in names for message in self.frame(name)]
        for reference, (name, side, shares, price) in self.orders.items():
            told.append(m.AddOrder(*self._head(name), reference, side, shares, name, price))
        return tuple(map(encode, told))

    @property
    def next_sequence(self) -> int:
        return len(self.messages) + 1

    def packet(self, first: int, last: int) -> bytes:
        """The datagram with messages `first` to `last`."""
        return encode_packet(self.session, first, self.messages[first - 1 : last])

    def heartbeat(self) -> bytes:
        return encode_heartbeat(self.session, self.next_sequence)
