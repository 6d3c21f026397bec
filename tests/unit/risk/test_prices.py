"""Reference prices: which one, and whether it is fresh."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from kernel.clock import ManualClock
from kernel.errors import UnavailableError
from svc_risk.clients.market_data import PriceUpdate
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


def update(sent: float, arrived: float, *, silent: float | None = 0.0, **quotes: Quote) -> PriceUpdate:
    return PriceUpdate(quotes, NOW + timedelta(seconds=sent), arrived, silent)


def test_updates_gather_and_are_written_once() -> None:
    quotes = Quotes()
    quotes.take(update(0, 10, AAPL=FULL._replace(bid=None), MSFT=FULL))
    quotes.take(update(0.1, 10.1, AAPL=FULL))
    changed, alive_at = quotes.unwritten()
    assert changed == {"AAPL": FULL, "MSFT": FULL}
    assert alive_at == pytest.approx(10.1)
    quotes.take(update(0.3, 10.3, AAPL=FULL))
    changed, alive_at = quotes.unwritten()
    assert changed == {}
    assert alive_at == pytest.approx(10.3)
    assert quotes.unwritten() == ({}, None)


def test_prices_without_a_sign_of_life_are_written_and_keep_nothing_alive() -> None:
    quotes = Quotes()
    quotes.take(update(0, 10, silent=None, AAPL=FULL))
    assert quotes.unwritten() == ({"AAPL": FULL}, None)


def test_an_instrument_without_a_price_is_news_to_whoever_knew_one_before_the_connection() -> None:
    nothing = Quote(None, None, None, None, None, stale=False)
    quotes = Quotes()
    quotes.take(update(0, 10, AAPL=nothing))
    assert quotes.unwritten()[0] == {"AAPL": nothing}


def test_a_backlog_is_as_old_as_its_messages_not_as_their_arrival() -> None:
    quotes = Quotes()
    quotes.take(update(0, 10))
    # The receiver slept for three seconds, then reads what had been waiting.
    quotes.take(update(0.5, 13.5))
    assert quotes.unwritten()[1] == pytest.approx(10.5)
    quotes.take(update(3.5, 13.5, silent=0.25))
    assert quotes.unwritten()[1] == pytest.approx(13.25)


def test_a_message_that_is_far_too_late_ends_the_connection() -> None:
    quotes = Quotes()
    quotes.take(update(0, 10))
    with pytest.raises(UnavailableError, match="late"):
        quotes.take(update(0.5, 10.6 + LATE_SECONDS_MAX, AAPL=FULL))
    assert quotes.unwritten() == ({}, 10.0)


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
