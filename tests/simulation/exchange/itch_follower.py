"""A receiver that shares no code with the publisher: it reads ITCH by the specification's offsets and builds books by hand."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Rest(NamedTuple):
    """A booked order as a receiver knows it."""

    reference: int
    side: str
    shares: int
    price: int


class Print(NamedTuple):
    """A trade on the tape."""

    stock: str
    shares: int
    price: int


def number(message: bytes, offset: int, size: int) -> int:
    """An unsigned integer of a message."""
    return int.from_bytes(message[offset : offset + size], "big")


def text(message: bytes, offset: int, size: int) -> str:
    """A space-padded text of a message."""
    return message[offset : offset + size].decode("ascii").rstrip()


@dataclass
class Follower:
    """What is known from messages alone. Prices in units, quantities in lots."""

    stocks: dict[int, str] = field(default_factory=dict)
    orders: dict[int, list[Any]] = field(default_factory=dict)
    trades: dict[int, Print] = field(default_factory=dict)
    last_trades: dict[str, tuple[int, int, int, int, int]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    days: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    definitions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    types: Counter[str] = field(default_factory=Counter)

    def clear_books(self) -> None:
        """Another session or a snapshot: what was known of the books is void; the tape stays."""
        self.orders.clear()
        self.stocks.clear()

    def apply(self, message: bytes) -> None:
        """Take one message."""
        kind, locate = chr(message[0]), number(message, 1, 2)
        self.types[kind] += 1
        wide = 8 if kind in "aexup" else 4
        match kind.upper() if wide == 8 else kind:
            case "R":
                self.stocks[locate] = text(message, 11, 8)
            case "d":
                offsets = ((60, 1), (61, 4), (65, 1), (66, 8), (74, 8))
                self.definitions[self.stocks[locate]] = tuple(number(message, *place) for place in offsets)
            case "y":
                self.days[self.stocks[locate]] = (number(message, 19, 4), number(message, 23, 4), number(message, 27, 4))
            case "H":
                self.states[self.stocks[locate]] = text(message, 19, 1)
            case "l":
                shares, price, match_number = number(message, 19, 8), number(message, 27, 4), number(message, 31, 8)
                traded = (shares, price, match_number, number(message, 39, 4), number(message, 43, 8))
                self.last_trades[self.stocks[locate]] = traded
            case "A":
                assert text(message, 20 + wide, 8) == self.stocks[locate]
                self._add(number(message, 11, 8), chr(message[19]), number(message, 20, wide), number(message, 28 + wide, 4), locate)
            case "E":
                order = self._reduce(number(message, 11, 8), number(message, 19, wide))
                shares, match_number = number(message, 19, wide), number(message, 19 + wide, 8)
                assert match_number not in self.trades
                self.trades[match_number] = Print(self.stocks[locate], shares, order[2])
            case "X":
                self._reduce(number(message, 11, 8), number(message, 19, wide))
            case "D":
                del self.orders[number(message, 11, 8)]
            case "U":
                old = self.orders.pop(number(message, 11, 8))
                shares, price = number(message, 27, wide), number(message, 27 + wide, 4)
                self._add(number(message, 19, 8), old[0], shares, price, locate)
            case "P":
                match_number = number(message, 32 + wide, 8)
                assert match_number not in self.trades, "a correction comes after its bust"
                self.trades[match_number] = Print(self.stocks[locate], number(message, 20, wide), number(message, 28 + wide, 4))
            case "B":
                # Of a session before, perhaps.
                self.trades.pop(number(message, 11, 8), None)
            case "S" | "Q":
                pass
            case _:
                raise AssertionError(f"the venue does not send {kind}")

    def _add(self, reference: int, side: str, shares: int, price: int, locate: int) -> None:
        assert reference not in self.orders
        assert side in "BS"
        assert shares > 0
        self.orders[reference] = [side, shares, price, locate]

    def _reduce(self, reference: int, shares: int) -> list[Any]:
        assert shares > 0
        order = self.orders[reference]
        rest = order[1] - shares
        assert rest >= 0
        order[1] = rest
        if rest == 0:
            del self.orders[reference]
        return order

    def queue(self, stock: str) -> list[Rest]:
        """The book: bids from the best price, then asks, each price from the front of its queue."""
        known = [
            Rest(reference, side, shares, price)
            for reference, (side, shares, price, locate) in self.orders.items()
            if self.stocks[locate] == stock
        ]
        bids = sorted((rest for rest in known if rest.side == "B"), key=lambda rest: -rest.price)
        asks = sorted((rest for rest in known if rest.side == "S"), key=lambda rest: rest.price)
        return [*bids, *asks]
