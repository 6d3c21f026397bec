"""Writes trades down, in batches: while one is being written, the next one gathers. The feed never waits for the disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from kernel.errors import TrademeshError
from kernel.telemetry import Sample
from svc_marketdata.domain import Bust, RecordedTrade

BATCH_TRADES_MAX = 1_000
WAITING_TRADES_MAX = 200_000
"""What may wait while PostgreSQL is away; beyond it the oldest are given up, and counted."""

GATHER_SECONDS = 0.05
RETRY_SECONDS = 0.5
FINISH_SECONDS = 2.0

_logger = logging.getLogger(__name__)


class TradeWriter(Protocol):
    """Where trades stay."""

    async def write(self, trades: Sequence[RecordedTrade], busts: Sequence[Bust]) -> list[RecordedTrade]:
        """See `TradeStore.write`."""
        ...


class TradeRecorder:
    """What is still to be written.

    Args:
        store: where trades stay.
        found: is told of all trades that were busted.
    """

    def __init__(
        self, store: TradeWriter, *, gather_seconds: float = GATHER_SECONDS, retry_seconds: float = RETRY_SECONDS,
        waiting_trades_max: int = WAITING_TRADES_MAX,
    ) -> None:  # fmt: skip
        self._store = store
        self._gather_seconds = gather_seconds
        self._retry_seconds = retry_seconds
        self._waiting_max = waiting_trades_max
        self._waiting: deque[RecordedTrade | Bust] = deque()
        self._woken = asyncio.Event()
        self.found: Callable[[Sequence[RecordedTrade]], None] = lambda trades: None
        self.recorded = 0
        self.given_up = 0
        self.failures = 0

    def take(self, told: Sequence[RecordedTrade | Bust]) -> None:
        """See `TradeSink.take`."""
        self._waiting += told
        excess = len(self._waiting) - self._waiting_max
        if excess > 0:
            if not self.given_up:
                _logger.critical("trades are given up: PostgreSQL has not taken any for too long")
            self.given_up += excess
            for _ in range(excess):
                self._waiting.popleft()
        self._woken.set()

    @property
    def waiting(self) -> int:
        """Return how many trades and busts are still to be written."""
        return len(self._waiting)

    async def run(self) -> None:
        """Write whatever waits, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_TRADES_MAX))]
                try:
                    await self._write(batch)
                except asyncio.CancelledError:
                    self._waiting.extendleft(reversed(batch))
                    raise
            await asyncio.sleep(self._gather_seconds)

    async def finish(self) -> None:
        """Write what still waits once `run` has ended, for at most two seconds: the process is stopping."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while self._waiting:
                    await self._write([self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_TRADES_MAX))])

    def samples(self) -> list[Sample]:
        """Return the recorder's metrics; `trades_given_up_total` above 0 is an alarm."""
        return [
            Sample("trades_waiting", len(self._waiting)),
            Sample("trades_recorded_total", self.recorded),
            Sample("trades_given_up_total", self.given_up),
            Sample("trades_write_failures_total", self.failures),
        ]

    async def _write(self, batch: Sequence[RecordedTrade | Bust]) -> None:
        told = [item for item in batch if isinstance(item, RecordedTrade)]
        busts = [item for item in batch if isinstance(item, Bust)]
        while True:
            try:
                broken = await self._store.write(told, busts)
            except TrademeshError as error:
                self.failures += 1
                _logger.warning("trades could not be written: %s", error)
                await asyncio.sleep(self._retry_seconds)
            else:
                break
        self.recorded += len(batch)
        if broken:
            self.found(broken)
