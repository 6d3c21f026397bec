"""Follows reference prices into this replica's marks. Every replica does for itself: marks are no facts, and are kept nowhere."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any, cast

from kernel.errors import TrademeshError
from kernel.ports import Clock
from kernel.telemetry import Sample
from svc_portfolio.clients.marks import MarkBook
from svc_portfolio.clients.prices import PriceSource

RETRY_SECONDS = 0.5

_logger = logging.getLogger(__name__)


class PriceFollower:
    """Follows one venue."""

    def __init__(self, venue: str, source: PriceSource, marks: MarkBook, clock: Clock, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._venue = venue
        self._source = source
        self._marks = marks
        self._clock = clock
        self._retry_seconds = retry_seconds
        self.failures = 0

    async def run(self) -> None:
        """Follow until cancelled. While nothing comes, the venue's marks go stale by themselves."""
        away = False
        while True:
            try:
                async with aclosing(cast("Any", self._source.updates(self._venue))) as updates:
                    async for update in updates:
                        self._marks.take(self._venue, update.quotes, live=update.live, now=self._clock.monotonic())
                        away = False
            except TrademeshError as error:
                self.failures += 1
                if not away:
                    _logger.warning("prices of %s: %s; asking again until they come", self._venue, error)
                away = True
            await asyncio.sleep(self._retry_seconds)

    def samples(self) -> list[Sample]:
        """Return the follower's metrics."""
        labels = (("venue", self._venue),)
        live = self._marks.live(self._venue, self._clock.monotonic())
        return [Sample("mark_feed_live", live, labels), Sample("mark_feed_failures_total", self.failures, labels)]
