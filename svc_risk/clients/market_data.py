"""The market data service's reference prices (`marketdata.v1.ReferencePriceService`).

A message is a sign of the venue's life only if it says that the venue's feed is live, and then one that is as old as the service had not
heard of the venue when it wrote it. Until every known instrument has been told none is: prices of an earlier connection must not come to
life again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.ports import Clock
from kernel.values import check_instrument_id, parse_price
from svc_risk.domain.reference_price import Quote
from trademesh.marketdata.v1 import reference_price_service_pb2 as pb

SILENCE_SECONDS_MAX = 5.0
"""A stream that says nothing for so long is taken as dead; a message comes at least twice a second."""

StreamPrices = Callable[[pb.StreamReferencePricesRequest], Any]
"""The stub's method: an asynchronous generator of responses that raises kernel errors."""


class PriceUpdate(NamedTuple):
    """One message of a feed.

    Attributes:
        quotes: all that there is to say of an instrument, in place of whatever was said before; by instrument.
        sent_at: when the sender wrote it, by the sender's clock.
        arrived_at: when it arrived, by the receiver's monotonic clock.
        silent_seconds: for how long the venue had not been heard when it was written. None where it is no sign of the venue's life.
    """

    quotes: Mapping[str, Quote]
    sent_at: datetime
    arrived_at: float
    silent_seconds: float | None


class PriceFeed(Protocol):
    """A source of reference prices."""

    def updates(self) -> AsyncIterator[PriceUpdate]:
        """Connect and yield updates until the connection ends, which raises.

        Raises:
            UnavailableError: no connection, silence, or a message that makes no sense.
        """
        ...


class MarketDataFeed:
    """The prices of one venue over gRPC (`PriceFeed`).

    Args:
        stream: `ReferencePriceServiceStub(channel).StreamReferencePrices` of a `MeshChannel`.
        venue: whose prices to follow.
        clock: stamps arrivals.
    """

    def __init__(self, stream: StreamPrices, venue: str, clock: Clock) -> None:
        self._stream = stream
        self._venue = venue
        self._clock = clock

    async def updates(self) -> AsyncIterator[PriceUpdate]:
        """See `PriceFeed.updates`."""
        async with aclosing(self._stream(pb.StreamReferencePricesRequest(venue=self._venue))) as messages:
            while True:
                message = await _next(messages)
                yield _update(message, self._clock.monotonic())


async def _next(messages: Any) -> pb.StreamReferencePricesResponse:
    try:
        async with asyncio.timeout(SILENCE_SECONDS_MAX):
            message: pb.StreamReferencePricesResponse = await anext(messages)
    except TimeoutError as error:
        raise _unavailable(f"silent for {SILENCE_SECONDS_MAX} s") from error
    except StopAsyncIteration as error:
        raise _unavailable("the stream ended") from error
    except TrademeshError as error:
        # Whatever the reason, a refusal too: it goes away when somebody mends it, and prices are stale until then.
        raise _unavailable(f"{error.reason.value}: {error}") from error
    return message


def _update(message: pb.StreamReferencePricesResponse, arrived_at: float) -> PriceUpdate:
    try:
        sent_at = _moment(message.server_time)
        quotes = {check_instrument_id(price.instrument_id): _quote(price) for price in message.prices}
        silent_seconds = None
        if message.feed_live and message.complete:
            silent_seconds = max((sent_at - _moment(message.feed_time)).total_seconds(), 0.0)
    except (ValueError, OverflowError, TrademeshError) as error:
        raise _unavailable("a message is malformed") from error
    return PriceUpdate(quotes, sent_at, arrived_at, silent_seconds)


def _moment(time: Timestamp) -> datetime:
    if not time.seconds:
        raise ValueError("a time is missing")
    return time.ToDatetime(tzinfo=UTC)


def _quote(price: pb.ReferencePrice) -> Quote:
    def decimal(field: str) -> Decimal | None:
        return parse_price(getattr(price, field), field=field) if price.HasField(field) else None  # type: ignore[arg-type]  # of the four below

    closed = date.fromisoformat(price.prior_close_date) if price.prior_close_date else None
    return Quote(decimal("bid"), decimal("ask"), decimal("last_trade"), decimal("prior_close"), closed, stale=price.stale)


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"the price feed: {why}")
