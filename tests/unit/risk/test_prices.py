"""Reference prices: which one, and whether it is fresh."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from kernel.clock import ManualClock
from kernel.errors import UnavailableError
from svc_risk.clients.price_feed import Alive, JsonLinesFeed, PriceFact, PriceLine, PriorClose, Touch, Trade
from svc_risk.consumer.prices import LATE_SECONDS_MAX, Quotes
from svc_risk.domain.reference_price import PriceSource, Quote, reference_price
from svc_risk.store.prices import DatabaseTime

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
FULL = Quote(Decimal("99.98"), Decimal("100.01"), Decimal(98), Decimal(97), date(2026, 2, 27), stale=False)


@pytest.mark.parametrize(
    ("quote", "price", "source"),
    [
        (FULL, "99.995", PriceSource.MID),
        (FULL._replace(bid=None), "98", PriceSource.LAST_TRADE),
        (FULL._replace(ask=None), "98", PriceSource.LAST_TRADE),
        (FULL._replace(bid=Decimal(101)), "98", PriceSource.LAST_TRADE),  # crossed: not a market to believe
        (FULL._replace(bid=None, last_trade=None), "97", PriceSource.PRIOR_CLOSE),
    ],
)
def test_the_best_price_there_is(quote: Quote, price: str, source: PriceSource) -> None:
    assert reference_price(quote, NOW, NOW) == (Decimal(price), source, True)


@pytest.mark.parametrize(
    ("quote", "heartbeat", "fresh"),
    [
        (FULL, NOW - timedelta(seconds=2), True),
        (FULL, NOW - timedelta(seconds=2, microseconds=1), False),
        (FULL, None, False),
        (FULL._replace(stale=True), NOW, False),
        (Quote(None, None, None, Decimal(97), date(2026, 2, 23), stale=False), NOW, True),
        (Quote(None, None, None, Decimal(97), date(2026, 2, 22), stale=False), NOW, False),
        (Quote(None, None, None, Decimal(97), date(2026, 3, 12), stale=False), NOW, False),
    ],
)
def test_a_price_is_fresh_while_its_feed_lives(quote: Quote, heartbeat: datetime | None, fresh: bool) -> None:
    found = reference_price(quote, heartbeat, NOW)
    assert found is not None
    assert found.fresh is fresh


@pytest.mark.parametrize(
    "quote", [Quote(None, None, None, None, None, stale=False), FULL._replace(bid=None, last_trade=None, prior_close_date=None)]
)
def test_without_any_price_or_with_an_undated_close_there_is_none(quote: Quote) -> None:
    assert reference_price(quote, NOW, NOW) is None


def line(fact: PriceFact, sent: float, arrived: float) -> PriceLine:
    return PriceLine(fact, NOW + timedelta(seconds=sent), arrived)


def test_lines_gather_into_quotes_and_are_written_once() -> None:
    quotes = Quotes()
    quotes.take(line(PriorClose("AAPL", Decimal(97), date(2026, 2, 27)), 0, 10))
    quotes.take(line(Trade("AAPL", Decimal(98)), 0.1, 10.1))
    quotes.take(line(Touch("AAPL", Decimal(99), None), 0.2, 10.2))
    changed, alive_at = quotes.unwritten()
    assert changed == {"AAPL": Quote(Decimal(99), None, Decimal(98), Decimal(97), date(2026, 2, 27), stale=False)}
    assert alive_at == pytest.approx(10.2)
    quotes.take(line(Touch("AAPL", Decimal(99), None), 0.3, 10.3))
    changed, alive_at = quotes.unwritten()
    assert changed == {}
    assert alive_at == pytest.approx(10.3)
    assert quotes.unwritten() == ({}, None)


def test_a_backlog_is_as_old_as_its_lines_not_as_their_arrival() -> None:
    quotes = Quotes()
    quotes.take(line(Alive(), 0, 10))
    # The receiver slept for three seconds, then reads what had been waiting.
    quotes.take(line(Alive(), 0.5, 13.5))
    assert quotes.unwritten()[1] == pytest.approx(10.5)
    quotes.take(line(Alive(), 3.5, 13.5))
    assert quotes.unwritten()[1] == pytest.approx(13.5)


def test_a_line_that_is_far_too_late_ends_the_connection() -> None:
    quotes = Quotes()
    quotes.take(line(Alive(), 0, 10))
    with pytest.raises(UnavailableError):
        quotes.take(line(Alive(), 0.5, 10.6 + LATE_SECONDS_MAX))


def test_the_database_s_time_is_never_overestimated() -> None:
    clock = ManualClock()
    time = DatabaseTime(clock)
    true_offset = NOW - clock.now()
    answer = clock.now() + true_offset
    clock.advance(0.25)  # the answer travels
    time.learn(answer)
    arrived = clock.monotonic()
    clock.advance(1)
    assert time.not_after(arrived) == answer
    assert time.not_after(clock.monotonic()) == clock.now() + true_offset - timedelta(seconds=0.25)


class OneLine(JsonLinesFeed):
    """A feed whose connection holds given lines and then ends."""

    def __init__(self, *lines: bytes) -> None:
        super().__init__("127.0.0.1", 1, "XSIM", ManualClock())
        self.sent = lines

    async def lines(self) -> AsyncIterator[PriceLine]:
        import asyncio

        reader = asyncio.StreamReader()
        for text in self.sent:
            reader.feed_data(text + b"\n")
        reader.feed_eof()
        async for found in self._read(reader):
            yield found


HELLO = b'{"v":1,"type":"hello","time":"2026-03-02T15:00:00.000Z","venue":"XSIM","instruments":["AAPL"]}'


async def facts_of(*lines: bytes) -> list[PriceFact]:
    found: list[PriceFact] = []
    with pytest.raises(UnavailableError, match="connection ended"):
        async for item in OneLine(HELLO, *lines).lines():
            found.append(item.fact)
    return found


async def test_the_lines_of_the_sandbox_s_feed_are_read() -> None:
    time = b'"time":"2026-03-02T15:00:00.125Z"'
    assert await facts_of(
        b'{"v":1,"type":"prior_close",' + time + b',"instrument":"AAPL","price":"97.5","date":"2026-02-27"}',
        b'{"v":1,"type":"trade",' + time + b',"instrument":"AAPL","price":"98","quantity":"1","trade_id":"7"}',
        b'{"v":1,"type":"bbo",' + time + b',"instrument":"AAPL","bid":"97.99","bid_quantity":"1","ask":null,"ask_quantity":null}',
        b'{"v":1,"type":"status",' + time + b',"instrument":"AAPL","open":true,"trade_date":"2026-03-02"}',
        b'{"v":1,"type":"snapshot_end",' + time + b"}",
        b'{"v":1,"type":"something-new",' + time + b"}",
        b'{"v":1,"type":"heartbeat",' + time + b"}",
    ) == [
        PriorClose("AAPL", Decimal("97.5"), date(2026, 2, 27)),
        Trade("AAPL", Decimal(98)),
        Touch("AAPL", Decimal("97.99"), None),
        Alive(),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        b"not json",
        b"[]",
        b'{"v":2,"type":"heartbeat","time":"2026-03-02T15:00:00Z"}',
        b'{"v":1,"type":"heartbeat"}',
        b'{"v":1,"type":"heartbeat","time":"yesterday"}',
        b'{"v":1,"type":"trade","time":"2026-03-02T15:00:00Z","instrument":"AAPL","price":"NaN"}',
        b'{"v":1,"type":"trade","time":"2026-03-02T15:00:00Z","instrument":"AAPL","price":"0"}',
        b'{"v":1,"type":"trade","time":"2026-03-02T15:00:00Z","instrument":"AAPL","price":1.5}',
        b'{"v":1,"type":"trade","time":"2026-03-02T15:00:00Z","instrument":"a\\"b","price":"1"}',
        b'{"v":1,"type":"bbo","time":"2026-03-02T15:00:00Z","instrument":"AAPL","bid":"-1","ask":null}',
        b'{"v":1,"type":"prior_close","time":"2026-03-02T15:00:00Z","instrument":"AAPL","price":"1","date":"someday"}',
    ],
)
async def test_a_line_that_makes_no_sense_ends_the_connection(bad: bytes) -> None:
    with pytest.raises(UnavailableError, match="price feed"):
        async for _ in OneLine(HELLO, bad).lines():
            pass


@pytest.mark.parametrize("first", [HELLO.replace(b"XSIM", b"XNYS"), b'{"v":1,"type":"heartbeat","time":"2026-03-02T15:00:00Z"}'])
async def test_the_feed_of_another_venue_is_refused(first: bytes) -> None:
    with pytest.raises(UnavailableError, match="not the feed of XSIM"):
        async for _ in OneLine(first).lines():
            pass
