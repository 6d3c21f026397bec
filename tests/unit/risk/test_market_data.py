"""Reference prices from the market data service: what counts as a sign of life, and for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from kernel.clock import ManualClock
from kernel.config import ConfigError, load
from kernel.errors import PermissionDeniedError, Reason, TrademeshError, UnavailableError
from svc_risk.clients.market_data import MarketDataFeed, PriceUpdate
from svc_risk.config import RiskConfig, check
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


async def updates_of(*messages: pb.StreamReferencePricesResponse, error: TrademeshError | None = None) -> list[PriceUpdate]:
    asked: list[pb.StreamReferencePricesRequest] = []

    async def stream(request: pb.StreamReferencePricesRequest) -> AsyncIterator[pb.StreamReferencePricesResponse]:
        asked.append(request)
        for message in messages:
            yield message
        if error is not None:
            raise error

    found = []
    with pytest.raises(UnavailableError, match="price feed"):
        async for update in MarketDataFeed(stream, "XSIM", ManualClock()).updates():
            found.append(update)
    assert [request.venue for request in asked] == ["XSIM"]
    return found


async def test_a_message_tells_its_prices_and_the_venue_s_life() -> None:
    empty = pb.ReferencePrice(instrument_id="BTC-USD", stale=True)
    (update,) = await updates_of(said(price(), empty, silent=0.3))
    assert update.quotes == {"AAPL": FULL, "BTC-USD": Quote(None, None, None, None, None, stale=True)}
    assert (update.sent_at, update.arrived_at) == (NOW, ManualClock().monotonic())
    assert update.silent_seconds == pytest.approx(0.3)


async def test_without_news_a_message_is_a_sign_of_life() -> None:
    assert [(update.quotes, update.silent_seconds) for update in await updates_of(said())] == [({}, 0.0)]


@pytest.mark.parametrize("message", [said(price(), live=False), said(price(), complete=False)])
async def test_a_dead_feed_or_a_picture_in_part_is_no_sign_of_life(message: pb.StreamReferencePricesResponse) -> None:
    quotes = Quotes()
    for update in await updates_of(message):
        quotes.take(update)
    assert quotes.unwritten() == ({"AAPL": FULL}, None)


async def test_life_is_as_old_as_the_service_had_not_heard_of_the_venue() -> None:
    quotes = Quotes()
    for update in await updates_of(said(price(), silent=1.5)):
        quotes.take(update)
    assert quotes.unwritten()[1] == pytest.approx(ManualClock().monotonic() - 1.5)


async def test_a_venue_heard_in_the_service_s_future_was_heard_now() -> None:
    assert [update.silent_seconds for update in await updates_of(said(silent=-0.2))] == [0.0]


async def test_a_stale_instrument_is_stale_here_too_and_recovers() -> None:
    quotes = Quotes()
    stale = []
    for update in await updates_of(said(price(stale=True)), said(price())):
        quotes.take(update)
        stale.append(quotes.known["AAPL"].stale)
    assert stale == [True, False]
    assert quotes.known["AAPL"] == FULL


@pytest.mark.parametrize(
    "bad",
    [
        said(price(bid="NaN")),
        said(price(bid="-1")),
        said(price(ask="0")),
        said(price(last_trade="1,5")),
        said(price(prior_close="")),
        said(price(name="aapl")),
        said(price(name='a"b')),
        said(price(prior_close_date="someday")),
        said(price(), price("MSFT", ask="Infinity")),
        pb.StreamReferencePricesResponse(complete=True, feed_live=True),
        pb.StreamReferencePricesResponse(complete=True, feed_live=True, server_time=time(NOW)),
        pb.StreamReferencePricesResponse(server_time=Timestamp(seconds=1 << 60)),
        pb.StreamReferencePricesResponse(server_time=Timestamp(seconds=-(1 << 60))),
    ],
)
async def test_a_message_that_makes_no_sense_ends_the_stream(bad: pb.StreamReferencePricesResponse) -> None:
    assert await updates_of(said(price()), bad, said(price(bid="50"))) == await updates_of(said(price()))


async def test_a_refusal_is_tried_again_like_any_failure() -> None:
    assert await updates_of(error=PermissionDeniedError(Reason.PEER_NOT_ALLOWED, "not you")) == []


async def test_a_stream_that_falls_silent_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc_risk.clients.market_data.SILENCE_SECONDS_MAX", 0.01)
    closed = asyncio.Event()

    async def stream(_: pb.StreamReferencePricesRequest) -> AsyncIterator[pb.StreamReferencePricesResponse]:
        try:
            yield said(price())
            await asyncio.Event().wait()
        finally:
            closed.set()

    found = []
    with pytest.raises(UnavailableError, match="silent"):
        async for update in MarketDataFeed(stream, "XSIM", ManualClock()).updates():
            found.append(update)
    assert len(found) == 1
    assert closed.is_set()


def configured(**more: str) -> RiskConfig:
    return check(load(RiskConfig, ENVIRONMENT | {f"TRADEMESH_{key}": text for key, text in more.items()}))


def test_prices_come_from_the_market_data_service_or_from_nowhere() -> None:
    config = configured()
    assert (config.marketdata_targets, config.price_venue) == ((), None)
    config = configured(MARKETDATA_TARGETS="unix:/a, unix:/b", PRICE_VENUE="XSIM")
    assert (config.marketdata_targets, config.price_venue) == (("unix:/a", "unix:/b"), "XSIM")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"MARKETDATA_TARGETS": "unix:/a"}, "TRADEMESH_PRICE_VENUE: is required"),
        ({"PRICE_VENUE": "XSIM"}, "TRADEMESH_MARKETDATA_TARGETS: is required"),
        ({"MARKETDATA_TARGETS": "unix:/a", "PRICE_VENUE": "sim"}, "TRADEMESH_PRICE_VENUE"),
    ],
)
def test_half_a_source_of_prices_is_refused(keys: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configured(**keys)
