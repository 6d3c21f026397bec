"""Reference prices as svc_marketdata streams them, and what a follower makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest

from kernel.clock import SystemClock
from kernel.errors import Reason, UnavailableError
from svc_portfolio.clients.marks import MarkBook
from svc_portfolio.clients.prices import PriceUpdate, ReferencePrices
from svc_portfolio.consumer.prices import PriceFollower
from svc_portfolio.domain.valuation import Quote
from tests.unit.portfolio.make import facts
from trademesh.marketdata.v1 import reference_price_service_pb2 as pb


def stream(*messages: pb.StreamReferencePricesResponse) -> Callable[[Any], AsyncIterator[Any]]:
    """Return a stub's method that answers so."""

    async def answer(request: pb.StreamReferencePricesRequest) -> AsyncIterator[Any]:
        assert (request.venue, list(request.instrument_ids)) == ("XSIM", [])
        for message in messages:
            yield message

    return answer


async def updates(*messages: pb.StreamReferencePricesResponse) -> list[PriceUpdate]:
    return [update async for update in ReferencePrices(stream(*messages)).updates("XSIM")]


async def test_prices_are_read_as_they_are_told() -> None:
    price = pb.ReferencePrice(instrument_id="AAPL", bid="10.5", prior_close="9", stale=True)
    price.venue_time.FromSeconds(5)
    (first, second) = await updates(
        pb.StreamReferencePricesResponse(prices=[price], feed_live=True), pb.StreamReferencePricesResponse(feed_live=False)
    )
    quote = first.quotes["AAPL"]
    assert facts(quote.bid, quote.ask, quote.last_trade, quote.prior_close) == (Decimal("10.5"), None, None, Decimal(9))
    assert (quote.stale, first.live, quote.venue_time and quote.venue_time.timestamp()) == (True, True, 5)
    assert second == PriceUpdate({}, live=False)


def _broken(**fields: Any) -> pb.ReferencePrice:
    return pb.ReferencePrice(instrument_id="AAPL", **fields)


@pytest.mark.parametrize("fields", [{"bid": "1e5"}, {"last_trade": ""}, {"ask": "-0"}])
async def test_a_price_that_makes_no_sense_ends_the_stream(fields: dict[str, str]) -> None:
    with pytest.raises(UnavailableError, match="AAPL"):
        await updates(pb.StreamReferencePricesResponse(prices=[_broken(**fields)]))


async def test_a_time_that_makes_no_sense_ends_the_stream() -> None:
    price = _broken(bid="1")
    price.venue_time.seconds = 1 << 50
    with pytest.raises(UnavailableError, match="AAPL"):
        await updates(pb.StreamReferencePricesResponse(prices=[price]))


async def test_silence_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc_portfolio.clients.prices.SILENCE_SECONDS_MAX", 0.01)

    async def silent(_: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    with pytest.raises(UnavailableError, match="silent"):
        await anext(aiter(ReferencePrices(silent).updates("XSIM")))


class Source:
    """A source that fails, then speaks, then is silent."""

    def __init__(self, told: Iterable[PriceUpdate]) -> None:
        self._told = list(told)
        self.calls = 0
        self.spoken = asyncio.Event()

    async def updates(self, venue: str) -> AsyncIterator[PriceUpdate]:
        """See `PriceSource.updates`."""
        self.calls += 1
        if self.calls == 1:
            raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "away")
        for update in self._told:
            yield update
        self.spoken.set()
        await asyncio.Event().wait()


async def test_a_follower_asks_again_and_marks() -> None:
    marks, clock = MarkBook(), SystemClock()
    source = Source([PriceUpdate({"AAPL": Quote(None, None, Decimal(5), None, None, stale=False)}, live=True)])
    follower = PriceFollower("XSIM", source, marks, clock, retry_seconds=0.0)
    running = asyncio.create_task(follower.run())
    async with asyncio.timeout(10):
        await source.spoken.wait()
    mark = marks.mark("XSIM", "AAPL", clock.monotonic())
    assert mark is not None
    assert facts(mark.price, mark.stale) == (5, False)
    assert [sample.value for sample in follower.samples()] == [True, 1]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
