"""Follows a venue's reference prices and writes what they are, in the one replica that holds the feed's lease.

Updates are gathered for a fifth of a second and written together: decisions need the latest price, not every price, and a tenth of the two
seconds in which a heartbeat is fresh is little.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.lease import LeaseKeeper
from svc_risk.clients.market_data import PriceFeed, PriceUpdate
from svc_risk.domain.reference_price import Quote
from svc_risk.store.prices import PriceStore

FLUSH_SECONDS = 0.2
LATE_SECONDS_MAX = 5.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Quotes:
    """What a feed has said since the connection began, and what of it is not written yet.

    A receiver that slept reads old updates as if they had just arrived. The sender's clock tells them apart without being trusted: an
    update's delay is its arrival less its sending, and the least delay seen is what the two clocks differ by. Whatever an update is later
    than that, it is older than its arrival.
    """

    known: dict[str, Quote] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    alive_at: float | None = None
    _least_delay: float | None = None

    def take(self, update: PriceUpdate) -> None:
        """Take one update.

        Raises:
            UnavailableError: it is so late that the connection must be a backlog, or a clock has jumped; a new connection knows better.
        """
        delay = update.arrived_at - (update.sent_at - _EPOCH).total_seconds()
        if self._least_delay is None or delay < self._least_delay:
            self._least_delay = delay
        late = delay - self._least_delay
        if late > LATE_SECONDS_MAX:
            raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"the price feed: a message is {late:.1f} s late; connecting again")
        if update.silent_seconds is not None:
            heard_at = update.arrived_at - late - update.silent_seconds
            self.alive_at = heard_at if self.alive_at is None else max(self.alive_at, heard_at)
        for instrument_id, quote in update.quotes.items():
            # Also one that says nothing: an earlier connection's price must not outlive it.
            if self.known.get(instrument_id) != quote:
                self.known[instrument_id] = quote
                self.changed.add(instrument_id)

    def unwritten(self) -> tuple[dict[str, Quote], float | None]:
        """Return what is to be written, and forget that it is."""
        changed, alive_at = {name: self.known[name] for name in self.changed}, self.alive_at
        self.changed, self.alive_at = set(), None
        return changed, alive_at


class PriceFollower:
    """Follows one feed."""

    def __init__(self, feed: PriceFeed, store: PriceStore, *, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._feed = feed
        self._store = store
        self._flush_seconds = flush_seconds

    async def run(self, keeper: LeaseKeeper) -> None:
        """Follow the feed until it ends.

        Raises:
            TrademeshError: the feed ended or PostgreSQL did not answer, or the lease is lost; begin again. Prices go stale meanwhile.
        """
        await self._store.begin()
        quotes = Quotes()
        reading = asyncio.ensure_future(self._read(quotes))
        try:
            while True:
                await asyncio.wait({reading}, timeout=self._flush_seconds)
                changed, alive_at = quotes.unwritten()
                if changed or alive_at is not None:
                    await self._store.write(keeper.current, changed, alive_at)
                if reading.done():
                    reading.result()
                    return
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, TrademeshError):
                await reading

    async def _read(self, quotes: Quotes) -> None:
        async for update in self._feed.updates():
            quotes.take(update)
