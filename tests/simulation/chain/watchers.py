"""Clients that watch an account's orders over streams that break, and go on where they stopped."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import Any

from google.protobuf.duration_pb2 import Duration

from kernel.errors import TrademeshError
from tests.simulation.chain.history import History, Watched
from tests.simulation.chain.hosts import Host
from trademesh.oms.v1 import order_service_pb2

RETRY_SECONDS = 0.2
HANG_UP_SHARE = 0.05
"""How often a watcher hangs up after a message."""
FORGET_SHARE = 0.3
"""How often it then has forgotten where it was, and begins with a snapshot."""


class Watcher:
    """Somebody who watches one account for the whole run.

    Args:
        name: for the history.
        stub: of OrderService.
        account_id: the account.
        history: where everything seen is written down.
        host: where it lives.
        dice: decide when it hangs up.
    """

    def __init__(self, name: str, stub: Any, account_id: str, history: History, host: Host, dice: random.Random) -> None:
        self.account_id = account_id
        self.position = (0, 0)
        """Of the last event or snapshot seen: transaction and position."""
        self._name = name
        self._stub = stub
        self._history = history
        self._host = host
        self._dice = dice
        self._token = ""

    async def watch(self) -> None:
        """Open one stream after the other, for ever."""
        while True:
            try:
                await self._follow()
            except TrademeshError as error:
                if error.reason.value == "RESUME_TOKEN_INVALID":
                    raise
            await asyncio.sleep(RETRY_SECONDS * self._dice.uniform(0.5, 1.5))

    async def _follow(self) -> None:
        request = order_service_pb2.StreamOrderEventsRequest(
            account_id=self.account_id, resume_token=self._token, heartbeat_interval=Duration(seconds=1)
        )
        opening, ends_in = "resumed" if self._token else "fresh", self._dice.choice((3.0, 12.0, 60.0))
        async with aclosing(self._stub.StreamOrderEvents(request, timeout=ends_in)) as messages:
            async for message in messages:
                raw = message.SerializeToString(deterministic=True)
                self._history.watched.append(Watched(self._host.loop.time(), self._name, self.account_id, opening, raw))
                self._note(message)
                opening = ""
                if self._dice.random() < HANG_UP_SHARE:
                    if self._dice.random() < FORGET_SHARE:
                        self._token, self.position = "", (0, 0)
                    return

    def _note(self, message: order_service_pb2.StreamOrderEventsResponse) -> None:
        self._token = message.resume_token
        shown = message.event if message.HasField("event") else message.snapshot if message.snapshot.complete else None
        if shown is not None:
            self.position = (shown.log_position.tx, shown.log_position.position)
