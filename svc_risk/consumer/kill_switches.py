"""Tells svc_oms of kill switches that it could not be told when they changed, until it has them."""

from __future__ import annotations

import asyncio

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from kernel.errors import TrademeshError
from kernel.lease import LeaseKeeper
from svc_risk.clients.orders import SWITCHES_MAX, OrderControl
from svc_risk.domain.administration import KillSwitch
from svc_risk.domain.vocabulary import KillSwitchScope
from svc_risk.store.administration import AdministrationStore

LEASE = "kill-switches"
PAUSE_SECONDS = 1.0
_ATTEMPTS_MAX = 5


class KillSwitchTeller:
    """The background half of activation and release. Telling twice is harmless: svc_oms knows switches by version.

    It costs though: each telling cancels what is open. So a switch is told from the second look at it on; at the first one, the call that
    has changed it is likely to be telling it.
    """

    def __init__(self, store: AdministrationStore, orders: OrderControl, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._store = store
        self._orders = orders
        self._pause_seconds = pause_seconds
        self._seen: frozenset[tuple[KillSwitchScope, str, int]] = frozenset()

    async def run(self, keeper: LeaseKeeper) -> None:
        """Tell what is pending, again and again.

        Raises:
            TrademeshError: svc_oms or PostgreSQL did not answer several times; begin again.
        """
        while True:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(_ATTEMPTS_MAX),
                wait=wait_exponential_jitter(multiplier=0.1, max=2.0),
                retry=retry_if_exception_type(TrademeshError),
                reraise=True,
            ):
                with attempt:
                    await self.tell_pending()
            await asyncio.sleep(self._pause_seconds)

    async def tell_pending(self) -> int:
        """Tell svc_oms of all that is still pending since the last look, and return how many switches it confirmed.

        Raises:
            TrademeshError: svc_oms or PostgreSQL did not answer; what is pending stays so.
        """
        pending = {_identity(switch): switch for switch in await self._store.pending_kill_switches(SWITCHES_MAX)}
        switches = [switch for identity, switch in pending.items() if identity in self._seen]
        self._seen = frozenset(pending)
        if switches:
            await self._orders.apply(switches)
        for switch in switches:
            await self._store.confirm(switch)
        return len(switches)


def _identity(switch: KillSwitch) -> tuple[KillSwitchScope, str, int]:
    return switch.scope, switch.scope_id, switch.version
