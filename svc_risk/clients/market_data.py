"""The market data service's reference prices (`marketdata.v1.ReferencePriceService`).

A message is a sign of the venue's life only if it says that the venue's feed is live, and then one that is as old as the service had not
heard of the venue when it wrote it. Until every known instrument has been told none is: prices of an earlier connection must not come to
life again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.errors import TrademeshError
from kernel.ports import Clock
from kernel.values import check_instrument_id, parse_price
from svc_risk.clients.price_feed import SILENCE_SECONDS_MAX, Alive, Latest, PriceLine, unavailable
from svc_risk.domain.reference_price import Quote
from trademesh.marketdata.v1 import reference_price_service_pb2 as pb

StreamPrices = Callable[[pb.StreamReferencePricesRequest], Any]
"""The stub's method: an asynchronous generator of responses that raises kernel errors."""


class MarketDataFeed:
    """The feed over gRPC (`PriceFeed`).

    Args:
        stream: `ReferencePriceServiceStub(channel).StreamReferencePrices` of a `MeshChannel`.
        venue: whose prices to follow.
        clock: stamps arrivals.
    """

    def __init__(self, stream: StreamPrices, venue: str, clock: Clock) -> None:
        self._stream = stream
        self._venue = venue
        self._clock = clock

    async def lines(self) -> AsyncIterator[PriceLine]:
        """See `PriceFeed.lines`."""
        async with aclosing(self._stream(pb.StreamReferencePricesRequest(venue=self._venue))) as messages:
            while True:
                message = await _next(messages)
                for line in _lines(message, self._clock.monotonic()):
                    yield line


async def _next(messages: Any) -> pb.StreamReferencePricesResponse:
    try:
        async with asyncio.timeout(SILENCE_SECONDS_MAX):
            message: pb.StreamReferencePricesResponse = await anext(messages)
    except TimeoutError as error:
        raise unavailable(f"silent for {SILENCE_SECONDS_MAX} s") from error
    except StopAsyncIteration as error:
        raise unavailable("the stream ended") from error
    except TrademeshError as error:
        # Whatever the reason, a refusal too: it goes away when somebody mends it, and prices are stale until then.
        raise unavailable(f"{error.reason.value}: {error}") from error
    return message


def _lines(message: pb.StreamReferencePricesResponse, arrived_at: float) -> list[PriceLine]:
    """The prices, and after them the sign of life, which counts for all that was told."""
    try:
        sent_at = _moment(message.server_time)
        prices = [PriceLine(_latest(price), sent_at, arrived_at, None) for price in message.prices]
        if not (message.feed_live and message.complete):
            return [*prices, PriceLine(Alive(), sent_at, arrived_at, None)]
        silent_seconds = max((sent_at - _moment(message.feed_time)).total_seconds(), 0.0)
    except (ValueError, TrademeshError) as error:
        raise unavailable("a message is malformed") from error
    return [*prices, PriceLine(Alive(), sent_at, arrived_at, silent_seconds)]


def _moment(time: Timestamp) -> datetime:
    if not time.seconds:
        raise ValueError("a time is missing")
    return time.ToDatetime(tzinfo=UTC)


def _latest(price: pb.ReferencePrice) -> Latest:
    def decimal(field: str) -> Decimal | None:
        return parse_price(getattr(price, field), field=field) if price.HasField(field) else None  # type: ignore[arg-type]  # of the four below

    closed = date.fromisoformat(price.prior_close_date) if price.prior_close_date else None
    quote = Quote(decimal("bid"), decimal("ask"), decimal("last_trade"), decimal("prior_close"), closed, stale=price.stale)
    return Latest(check_instrument_id(price.instrument_id), quote)
