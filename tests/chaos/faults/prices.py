"""Market data falls silent, or comes late: orders are refused for want of a fresh price, and cancels pass."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from tests.chaos.fault import Fault
from tests.chaos.pulse import CANCEL, ORDER
from tests.chaos.scene import Scene

STALE = "REFERENCE_PRICE_STALE"
STALE_SECONDS_MAX = 10.0
"""A price is stale 2 s after the feed's last sign of life."""
LOOK_SECONDS = 0.05
REFUSED_SECONDS = 3.0
SLEEP_SECONDS, AWAKE_SECONDS = 1.6, 0.2


@asynccontextmanager
async def silent(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop all replicas of market data."""
    processes = scene.stop(*scene.replicas(target))
    try:
        yield
    finally:
        scene.resume(processes)


@asynccontextmanager
async def slow(scene: Scene, target: str) -> AsyncIterator[None]:
    """Let market data work for a moment at a time."""
    processes = [process for name in scene.replicas(target) for process in scene.processes(name)]
    task = asyncio.create_task(_doze(processes))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        scene.resume(processes)


async def _doze(processes: list[psutil.Process]) -> None:
    while True:
        for process in processes:
            process.suspend()
        await asyncio.sleep(SLEEP_SECONDS)
        for process in processes:
            process.resume()
        await asyncio.sleep(AWAKE_SECONDS)


async def gate_closes(scene: Scene, target: str) -> list[str]:
    """Orders are refused as stale, none passes from then on, and cancels do."""
    began = time.monotonic()
    while not any(STALE in beat.failure for beat in scene.pulse.since(ORDER, began)):
        if time.monotonic() > began + STALE_SECONDS_MAX:
            return [f"orders are not refused for want of a fresh price: {scene.pulse.failures(began)}"]
        await asyncio.sleep(LOOK_SECONDS)
    closed = time.monotonic()
    scene.note(f"the gate closed after {closed - began:.2f} s")
    await asyncio.sleep(REFUSED_SECONDS)
    orders, cancels = scene.pulse.since(ORDER, closed), scene.pulse.since(CANCEL, closed)
    findings = [f"an order was taken without a fresh price, {beat.began - closed:.2f} s later" for beat in orders if not beat.failure]
    findings += [f"an order was refused in other words: {beat.failure}" for beat in orders if beat.failure and STALE not in beat.failure]
    findings += [f"a cancel failed: {beat.failure}" for beat in cancels if beat.failure]
    return findings if cancels else [*findings, "no cancel was tried"]


FAULTS = (
    Fault(
        name="prices-silent",
        what="market data falls silent",
        expectation=f"orders are refused as {STALE} and nothing is persisted; every cancel passes",
        inject=silent,
        targets=("svc_marketdata",),
        objective_seconds=10.0,
        during=gate_closes,
        short=("svc_marketdata",),
    ),
    Fault(
        name="prices-slow",
        what="market data comes in bursts, 1.6 s apart",
        expectation="an order passes with a fresh price or is refused; every cancel passes",
        inject=slow,
        targets=("svc_marketdata",),
        objective_seconds=10.0,
        unnoticed=frozenset({CANCEL}),
        hold_seconds=8.0,
    ),
)
