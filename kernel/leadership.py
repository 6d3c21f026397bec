"""Background work that must run once: whoever holds the lease works, and stops when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from kernel.errors import (
    AbortedError,
    DeadlineExceededError,
    LeaseLostError,
    OutcomeUnknownError,
    ResourceExhaustedError,
    TrademeshError,
    UnavailableError,
)
from kernel.lease import TTL_SECONDS, LeaseKeeper
from kernel.ports import HeldLease, Leases

_logger = logging.getLogger(__name__)

TRANSIENT_ERRORS = (
    UnavailableError,
    ResourceExhaustedError,
    DeadlineExceededError,
    OutcomeUnknownError,
    AbortedError,
    LeaseLostError,
)
"""What goes away by itself; work that ends with one of these begins again."""

RETRY_SECONDS = 1.0
_CANCEL_AGAIN_SECONDS = 0.5


async def lead(
    leases: Leases,
    name: str,
    work: Callable[[LeaseKeeper], Awaitable[None]],
    *,
    retry_seconds: float = RETRY_SECONDS,
    renew_every_seconds: float = TTL_SECONDS / 3,
) -> None:
    """Run `work` whenever the lease is ours, until cancelled; the lease is given back then.

    Work that ends, fails for a passing reason or loses the lease begins again after `retry_seconds`. Whatever it writes under the lease
    checks `LeaseKeeper.current` in the same transaction.

    Raises:
        Exception: what work raised, if it does not go away by itself.
    """
    while True:
        lease: HeldLease | None = None
        try:
            lease = await leases.acquire(name)
        except TRANSIENT_ERRORS as error:
            _logger.warning("the lease %s cannot be asked for: %s", name, error)
        if lease is not None:
            try:
                await _while_held(LeaseKeeper(leases, lease, renew_every_seconds=renew_every_seconds), name, work)
            finally:
                await _give_back(leases, lease)
        await asyncio.sleep(retry_seconds)


async def _while_held(keeper: LeaseKeeper, name: str, work: Callable[[LeaseKeeper], Awaitable[None]]) -> None:
    working, keeping = asyncio.ensure_future(work(keeper)), asyncio.ensure_future(keeper.run())
    try:
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            _logger.warning("the lease %s was lost", name)
    finally:
        await _end({working, keeping})
    for task in (working, keeping):
        error = None if task.cancelled() else task.exception()
        if isinstance(error, TRANSIENT_ERRORS):
            _logger.warning("work under the lease %s begins again: %s", name, error)
        elif error is not None:
            raise error


async def _end(tasks: set[asyncio.Future[None]]) -> None:
    """Cancel until it is heard: a driver that swallows one cancellation must not keep the process from stopping."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_SECONDS)


async def _give_back(leases: Leases, lease: HeldLease) -> None:
    # Otherwise the next owner waits for the expiry; no more than that.
    with contextlib.suppress(TrademeshError):
        await leases.release(lease)
