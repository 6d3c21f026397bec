"""Reference prices of svc_marketdata, a venue at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol

from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.values import parse_decimal
from svc_portfolio.domain.valuation import Quote
from trademesh.marketdata.v1 import reference_price_service_pb2

SILENCE_SECONDS_MAX = 5.0
"""A stream that says nothing for so long is taken as dead: while the feed lives, a message comes twice a second."""


class PriceUpdate(NamedTuple):
    """What changed, and whether the venue's feed is live."""

    quotes: Mapping[str, Quote]
    live: bool


class PriceSource(Protocol):
    """A source of prices."""

    def updates(self, venue: str) -> AsyncIterator[PriceUpdate]:
        """Yield updates of a venue, all that is known first, until the stream ends.

        Raises:
            TrademeshError: no stream, silence, or a message that makes no sense; begin again.
        """
        ...


class ReferencePrices:
    """`ReferencePriceService` as a source.

    Args:
        stream: its StreamReferencePrices.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def updates(self, venue: str) -> AsyncIterator[PriceUpdate]:
        """See `PriceSource.updates`."""
        request = reference_price_service_pb2.StreamReferencePricesRequest(venue=venue)
        async with aclosing(aiter(self._stream(request))) as messages:
            while True:
                try:
                    async with asyncio.timeout(SILENCE_SECONDS_MAX):
                        message = await anext(messages, None)
                except TimeoutError as error:
                    raise _unavailable(f"silent for {SILENCE_SECONDS_MAX} s") from error
                if message is None:
                    return
                yield PriceUpdate({price.instrument_id: _quote(price) for price in message.prices}, message.feed_live)


def _quote(price: reference_price_service_pb2.ReferencePrice) -> Quote:
    try:
        return Quote(
            _price(price, "bid"),
            _price(price, "ask"),
            _price(price, "last_trade"),
            _price(price, "prior_close"),
            price.venue_time.ToDatetime(tzinfo=UTC) if price.HasField("venue_time") else None,
            price.stale,
        )
    except (TrademeshError, ValueError, OverflowError) as error:
        raise _unavailable(f"the price of {price.instrument_id[:32]!r} is malformed") from error


def _price(price: reference_price_service_pb2.ReferencePrice, name: Literal["bid", "ask", "last_trade", "prior_close"]) -> Decimal | None:
    return parse_decimal(getattr(price, name), field=name) if price.HasField(name) else None


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"reference prices: {why}")
