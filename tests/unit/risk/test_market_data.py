"""Reference prices from the market data service: what counts as a sign of life, and for what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from kernel.clock import ManualClock
from kernel.config import ConfigError, load
from kernel.errors import PermissionDeniedError, Reason, TrademeshError, UnavailableError
from svc_risk.clients.market_data import MarketDataFeed
from svc_risk.clients.price_feed import Alive, Latest, PriceLine
from svc_risk.config import FeedAddress, MarketDataAddress, RiskConfig, price_feed
from svc_risk.consumer.prices import Quotes
from svc_risk.domain.reference_price import Quote
from trademesh.marketdata.v1 import reference_price_service_pb2 as pb

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
FULL = Quote(Decimal("99.98"), Decimal("100.01"), Decimal(98), Decimal(97), date(2026, 2, 27), stale=False)
ENVIRONMENT = {
    "TRADEMESH_INSTANCE": "svc_risk-0", "TRADEMESH_SOCKET_PATH": "/run/x.sock", "TRADEMESH_SIDECAR_SECRET": "s" * 16,
    "TRADEMESH_DATABASE_DSN": "postgresql://risk@localhost/db", "TRADEMESH_TOKEN_KEY": "k" * 32, "TRADEMESH_FIRM_TENANT": "firm",
    "TRADEMESH_OMS_TARGETS": "unix:/run/oms.sock",
}  # fmt: skip


def time(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def price(name: str = "AAPL", **changes: Any) -> pb.ReferencePrice:
    fields: dict[str, Any] = {"bid": "99.98", "ask": "100.01", "last_trade": "98", "prior_close": "97", "prior_close_date": "2026-02-27"}
    return pb.ReferencePrice(instrument_id=name, **fields | changes)


def said(*prices: pb.ReferencePrice, complete: bool = True, live: bool = True, silent: float = 0.0) -> pb.StreamReferencePricesResponse:
    heard = time(NOW - timedelta(seconds=silent))
    return pb.StreamReferencePricesResponse(prices=prices, complete=complete, feed_live=live, feed_time=heard, server_time=time(NOW))


async def lines_of(*messages: pb.StreamReferencePricesResponse, error: TrademeshError | None = None) -> list[PriceLine]:
    asked: list[pb.StreamReferencePricesRequest] = []

    async def stream(request: pb.StreamReferencePricesRequest) -> AsyncIterator[pb.StreamReferencePricesResponse]:
        asked.append(request)
        for message in messages:
            yield message
        if error is not None:
            raise error

    found = []
    with pytest.raises(UnavailableError, match="price feed"):
        async for line in MarketDataFeed(stream, "XSIM", ManualClock()).lines():
            found.append(line)
    assert [request.venue for request in asked] == ["XSIM"]
    return found


async def test_a_message_tells_its_prices_and_then_its_sign_of_life() -> None:
    empty = pb.ReferencePrice(instrument_id="BTC-USD", stale=True)
    lines = await lines_of(said(price(), empty, silent=0.3))
    assert [line.fact for line in lines] == [
        Latest("AAPL", FULL), Latest("BTC-USD", Quote(None, None, None, None, None, stale=True)), Alive(),
    ]  # fmt: skip
    assert [line.silent_seconds for line in lines] == [None, None, pytest.approx(0.3)]


@pytest.mark.parametrize("message", [said(price(), live=False), said(price(), complete=False)])
async def test_a_dead_feed_or_a_picture_in_part_is_no_sign_of_life(message: pb.StreamReferencePricesResponse) -> None:
    quotes = Quotes()
    for line in await lines_of(message):
        quotes.take(line)
    assert quotes.unwritten() == ({"AAPL": FULL}, None)


async def test_life_is_as_old_as_the_service_had_not_heard_of_the_venue() -> None:
    quotes = Quotes()
    for line in await lines_of(said(price(), silent=1.5)):
        quotes.take(line)
    assert quotes.unwritten()[1] == pytest.approx(ManualClock().monotonic() - 1.5)


async def test_a_stale_instrument_is_stale_here_too_and_recovers() -> None:
    quotes = Quotes()
    for line in await lines_of(said(price(stale=True)), said(price())):
        quotes.take(line)
        if isinstance(line.fact, Alive):
            continue
        assert quotes.known["AAPL"].stale is line.fact.quote.stale  # type: ignore[union-attr]  # only Latest and Alive come
    assert quotes.known["AAPL"] == FULL


@pytest.mark.parametrize(
    "bad",
    [
        said(price(bid="NaN")),
        said(price(ask="0")),
        said(price(name="aapl")),
        said(price(prior_close_date="someday")),
        pb.StreamReferencePricesResponse(complete=True, feed_live=True),
    ],
)
async def test_a_message_that_makes_no_sense_ends_the_stream(bad: pb.StreamReferencePricesResponse) -> None:
    assert await lines_of(bad) == []


async def test_a_refusal_is_tried_again_like_any_failure() -> None:
    assert await lines_of(error=PermissionDeniedError(Reason.PEER_NOT_ALLOWED, "not you")) == []


def configured(**more: str) -> FeedAddress | MarketDataAddress | None:
    return price_feed(load(RiskConfig, ENVIRONMENT | {f"TRADEMESH_{key}": text for key, text in more.items()}))


def test_one_source_of_prices_is_configured_or_none() -> None:
    assert configured() is None
    both = configured(MARKETDATA_TARGETS="unix:/a, unix:/b", PRICE_FEED_VENUE="XSIM")
    assert both == MarketDataAddress(("unix:/a", "unix:/b"), "XSIM")
    assert configured(PRICE_FEED_HOST="127.0.0.1", PRICE_FEED_PORT="5", PRICE_FEED_VENUE="XSIM") == FeedAddress("127.0.0.1", 5, "XSIM")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"MARKETDATA_TARGETS": "unix:/a"}, "PRICE_FEED_VENUE"),
        ({"MARKETDATA_TARGETS": "unix:/a", "PRICE_FEED_VENUE": "XSIM", "PRICE_FEED_HOST": "127.0.0.1"}, "PRICE_FEED_HOST"),
        ({"PRICE_FEED_VENUE": "XSIM"}, "PRICE_FEED_HOST"),
    ],
)
def test_two_sources_or_half_of_one_are_refused(keys: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configured(**keys)
