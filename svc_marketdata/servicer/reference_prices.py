"""ReferencePriceService: what risk and portfolio value orders and positions with, the latest of each instrument."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kernel.errors import FieldViolation, InvalidArgumentError, Reason, UnavailableError
from kernel.ports import Clock
from kernel.server_context import CallContext
from svc_marketdata.codec.messages import reference_message, timestamp
from svc_marketdata.servicer.feed import MarketFeed, Round
from trademesh.marketdata.v1 import reference_price_service_pb2 as pb

SIGN_SECONDS = 0.4
"""Between messages while nothing changes: at least two a second."""

PRICES_MAX = 500
_END_SECONDS = 0.5


class _Reader:
    """One reader: the instruments whose latest price it has not been told."""

    def __init__(self, instrument_ids: frozenset[str]) -> None:
        self._ids = instrument_ids
        self._untold: dict[str, None] = {}
        self._woken = asyncio.Event()

    def take(self, changes: Round) -> None:
        """See `Listener.take`."""
        for market in changes.quoted:
            self.add(market.instrument.instrument_id)

    def lose_tape(self) -> None:
        """See `Listener.lose_tape`: prices are states, and need no trades before them."""

    def add(self, instrument_id: str) -> None:
        """Note that an instrument has a price to tell."""
        if not self._ids or instrument_id in self._ids:
            self._untold[instrument_id] = None
            self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Return when there is something to tell, or after the time."""
        if not self._untold:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()

    def wake(self) -> None:
        """Let `wait` return early."""
        self._woken.set()

    def page(self) -> list[str]:
        """Return instruments to tell now, longest untold first, and forget them."""
        names = list(self._untold)[:PRICES_MAX]
        for name in names:
            del self._untold[name]
        return names

    @property
    def has_more(self) -> bool:
        """Return whether something is still untold."""
        return bool(self._untold)


class ReferencePriceServicer:
    """Streams reference prices to other services."""

    def __init__(self, feed: MarketFeed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock

    async def StreamReferencePrices(  # noqa: N802 (the contract's name)
        self, request: pb.StreamReferencePricesRequest, context: CallContext
    ) -> AsyncIterator[pb.StreamReferencePricesResponse]:
        """Stream the latest prices; see the contract.

        Raises:
            InvalidArgumentError: FIELD_INVALID, another venue than the one received here.
            UnavailableError: SHUTTING_DOWN.
        """
        if request.venue != self._feed.name:
            violation = FieldViolation("venue", "venue.received", f"is not {self._feed.name}, whose feed is received here")
            raise InvalidArgumentError(Reason.FIELD_INVALID, f"venue {violation.description}", field_violations=(violation,))
        reader = _Reader(frozenset(request.instrument_ids))
        self._feed.enter(reader)
        drain = asyncio.create_task(_wake_on_drain(reader, context))
        try:
            for market in self._feed.venue:
                reader.add(market.instrument.instrument_id)
            complete = False
            while context.remaining_seconds() > _END_SECONDS:
                if context.draining is not None and context.draining.is_set():
                    raise UnavailableError(Reason.SHUTTING_DOWN, "the service is draining; ask another replica", retry_after_seconds=0.25)
                message = self._message(reader)
                complete = complete or (len(self._feed.venue) > 0 and not reader.has_more)
                message.complete = complete
                yield message
                await reader.wait(SIGN_SECONDS)
        finally:
            drain.cancel()
            self._feed.leave(reader)

    def _message(self, reader: _Reader) -> pb.StreamReferencePricesResponse:
        # What the sockets have brought and no round has shown yet is still the truth: prices are read now, not as they were noted.
        message = pb.StreamReferencePricesResponse(
            feed_live=self._feed.is_live, feed_time=timestamp(self._feed.heard_time_ns), server_time=timestamp(self._clock.now_ns())
        )
        for name in reader.page():
            market = self._feed.venue.market(name)
            if market is None:
                message.prices.add(instrument_id=name, stale=True)
            else:
                message.prices.append(reference_message(market, self._feed.state(market)))
        return message


async def _wake_on_drain(reader: _Reader, context: CallContext) -> None:
    if context.draining is not None:
        await context.draining.wait()
        reader.wake()
