"""The reference-price feed: lines of JSON for whoever needs last trades, prior closes and the touch (README.md has the schema).

Every line has `v` 1, `type` and `time` (RFC 3339, UTC). Prices and quantities are canonical decimal strings. What changed goes out
once per flush and instrument; a reader that does not keep up gets the latest state of each instrument when it does again.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from sandbox.exchange.engine.book import BookSide
from sandbox.exchange.engine.state import Market, VenueState

VERSION = 1
READERS_MAX = 64
_NANOSECONDS = 1_000_000_000


class Reader(Protocol):
    """A subscriber's connection."""

    @property
    def is_behind(self) -> bool:
        """Whether what was written earlier has not left yet."""

    def write(self, data: bytes) -> None:
        """Queue bytes for sending."""


def _time_text(time_ns: int) -> str:
    second, rest = divmod(time_ns, _NANOSECONDS)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def _line(kind: str, time_ns: int, **fields: Any) -> bytes:
    return json.dumps({"v": VERSION, "type": kind, "time": _time_text(time_ns), **fields}, separators=(",", ":")).encode() + b"\n"


class ReferenceFeed:
    """Turns state into lines and keeps, per reader, what it has not been told yet.

    Args:
        venue: the venue's name in the hello line.
        state: read only.
    """

    def __init__(self, venue: str, state: VenueState) -> None:
        self._venue = venue
        self._state = state
        self._behind: dict[Reader, set[str]] = {}
        self._last: dict[str, dict[str, dict[str, Any]]] = {}

    @property
    def reader_count(self) -> int:
        """How many subscribers there are."""
        return len(self._behind)

    def attach(self, reader: Reader, time_ns: int) -> None:
        """Add a subscriber and give it the whole picture: hello, every instrument's lines, snapshot_end."""
        lines = [_line("hello", time_ns, venue=self._venue, instruments=sorted(self._state.markets))]
        for symbol in self._state.markets:
            lines += self._lines(symbol, time_ns)
        lines.append(_line("snapshot_end", time_ns))
        self._behind[reader] = set()
        reader.write(b"".join(lines))

    def detach(self, reader: Reader) -> None:
        """Remove a subscriber."""
        self._behind.pop(reader, None)

    def heartbeat(self, time_ns: int) -> None:
        """Tell every reader that keeps up that the venue is alive."""
        line = _line("heartbeat", time_ns)
        for reader in self._behind:
            if not reader.is_behind:
                reader.write(line)

    def flush(self, dirty: Iterable[str], time_ns: int) -> None:
        """Send what changed on the `dirty` instruments, and what readers that were behind have missed."""
        changed = {symbol: fresh for symbol in dirty if (fresh := self._fresh(symbol, time_ns))}
        for reader, missed in self._behind.items():
            if reader.is_behind:
                missed.update(changed)
                continue
            lines = [line for symbol in missed for line in self._lines(symbol, time_ns)]
            lines += [line for symbol, fresh in changed.items() if symbol not in missed for line in fresh]
            missed.clear()
            if lines:
                reader.write(b"".join(lines))

    def _fresh(self, symbol: str, time_ns: int) -> list[bytes]:
        """The instrument's lines whose content differs from what was sent last."""
        market = self._state.markets[symbol]
        facts = _facts(market)
        known = self._last.get(symbol, {})
        self._last[symbol] = facts
        return [_line(kind, time_ns, **fields) for kind, fields in facts.items() if known.get(kind) != fields]

    def _lines(self, symbol: str, time_ns: int) -> list[bytes]:
        return [_line(kind, time_ns, **fields) for kind, fields in _facts(self._state.markets[symbol]).items()]


def _facts(market: Market) -> dict[str, dict[str, Any]]:
    """What the feed says of an instrument, by line type; a line is absent while there is nothing to say."""
    instrument = market.instrument
    prices, quantities = instrument.prices.text, instrument.quantities.text
    symbol = instrument.symbol
    facts: dict[str, dict[str, Any]] = {"status": {"instrument": symbol, "open": market.is_open, "trade_date": market.trade_date}}
    if market.close_price:
        facts["prior_close"] = {"instrument": symbol, "price": prices(market.close_price), "date": market.close_date}
    if market.last_price:
        facts["trade"] = {
            "instrument": symbol,
            "price": prices(market.last_price),
            "quantity": quantities(market.last_quantity),
            "trade_id": str(market.last_match_id),
            "trade_date": market.last_trade_date,
            "trade_time": _time_text(market.last_time_ns),
        }
    facts["bbo"] = {"instrument": symbol}
    for name, side in (("bid", market.book.bids), ("ask", market.book.asks)):
        facts["bbo"] |= _touch(name, side, market)
    return facts


def _touch(name: str, side: BookSide, market: Market) -> dict[str, Any]:
    best = side.best
    if best is None:
        return {name: None, f"{name}_quantity": None}
    return {name: market.instrument.prices.text(best.price), f"{name}_quantity": market.instrument.quantities.text(best.quantity)}
