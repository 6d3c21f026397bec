import json
from typing import Any

from sandbox.exchange.engine.commands import AdvanceTime
from sandbox.exchange.feed import ReferenceFeed
from tests.unit.exchange.venues import BUY, MONDAY_NS, SELL, engine, new


class Reader:
    def __init__(self) -> None:
        self.is_behind = False
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.data.splitlines()]
        self.data = b""
        return lines


def test_snapshot_then_what_changes() -> None:
    venue = engine()
    venue.execute(AdvanceTime(MONDAY_NS))
    feed, reader = ReferenceFeed("XSIM", venue.state), Reader()
    feed.attach(reader, MONDAY_NS)
    lines = reader.lines()
    assert {line["v"] for line in lines} == {1}
    assert [line["type"] for line in lines] == ["hello", "status", "prior_close", "bbo", "status", "prior_close", "bbo", "snapshot_end"]
    assert lines[0] == {
        "v": 1, "type": "hello", "time": "2026-01-05T15:00:00.000Z", "venue": "XSIM", "instruments": ["AAPL", "BTC-USD"],
    }  # fmt: skip
    assert lines[2]["price"] == "100"
    assert lines[2]["date"] == "2026-01-02"
    feed.flush(["AAPL"], MONDAY_NS)
    reader.lines()
    venue.execute(new("a", SELL, 50, account="ACC-2"))
    venue.execute(new("b", BUY, 20))
    feed.flush(["AAPL"], MONDAY_NS)
    trade, bbo = reader.lines()
    assert (trade["type"], trade["instrument"], trade["price"], trade["quantity"], trade["trade_date"]) == (
        "trade", "AAPL", "100", "20", "2026-01-05",
    )  # fmt: skip
    assert (bbo["bid"], bbo["bid_quantity"], bbo["ask"], bbo["ask_quantity"]) == (None, None, "100", "30")
    feed.flush(["AAPL"], MONDAY_NS)
    assert reader.lines() == []


def test_a_slow_reader_gets_the_latest_of_each_instrument_and_nobody_else_waits() -> None:
    venue = engine()
    venue.execute(AdvanceTime(MONDAY_NS))
    feed, slow, fast = ReferenceFeed("XSIM", venue.state), Reader(), Reader()
    feed.attach(slow, MONDAY_NS)
    feed.attach(fast, MONDAY_NS)
    feed.flush(["AAPL", "BTC-USD"], MONDAY_NS)
    slow.lines(), fast.lines()
    slow.is_behind = True
    for number, price in enumerate((9_990, 9_995, 9_999)):
        venue.execute(new(f"a{number}", BUY, 10, price))
        feed.flush(["AAPL"], MONDAY_NS)
        feed.heartbeat(MONDAY_NS)
    assert [line["bid"] for line in fast.lines() if line["type"] == "bbo"] == ["99.9", "99.95", "99.99"]
    assert slow.lines() == []
    slow.is_behind = False
    feed.flush([], MONDAY_NS)
    assert [line["bid"] for line in slow.lines() if line["type"] == "bbo"] == ["99.99"]
    feed.detach(slow)
    assert feed.reader_count == 1
