"""A user's stream of order events through the edge: followed all the while, resumed where it broke, and held to its numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from cli import rpcs
from tests.e2e.crash.client import call_failure
from trademesh.oms.v1 import order_service_pb2

SIGN_SECONDS_MAX = 2.0
"""A heartbeat comes every second while nothing else does."""

_RPC = rpcs.STREAM_ORDER_EVENTS
_END, _HEARTBEAT, _RESYNC, _SNAPSHOT = "end", "heartbeat", "resync", "snapshot"


class BrokenStreamError(Exception):
    """The stream ended, or gave no sign of life in time; `code` is gRPC's name."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Followed:
    """One account's stream.

    Args:
        channel: to the edge.
        bearer: returns the header with a valid token; may block.
        account_id: whose orders.

    Attributes:
        faults: what the stream has told wrongly: a number left out or told twice.
    """

    def __init__(self, channel: grpc.aio.Channel, bearer: Callable[[], tuple[str, str]], account_id: str) -> None:
        self._method: Any = channel.unary_stream(_RPC.path, _RPC.request_type.SerializeToString, _RPC.response_type.FromString)
        self._bearer, self._account_id = bearer, account_id
        self._token, self._last = "", 0
        self._reading: asyncio.Task[None] | None = None
        self._sign = asyncio.Event()
        self.faults: list[str] = []

    async def sign(self) -> None:
        """Return once the stream has said something, opened anew if it had ended.

        Raises:
            BrokenStreamError: it was refused, broke, or is silent.
        """
        if self._reading is None:
            header = await asyncio.to_thread(self._bearer)
            self._reading = asyncio.create_task(self._read(header))
        self._sign.clear()
        waiting = asyncio.create_task(self._sign.wait())
        try:
            await asyncio.wait((waiting, self._reading), timeout=SIGN_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._sign.is_set():
            return
        silent = not self._reading.done()
        broken = await self.close()
        if silent:
            raise BrokenStreamError("DEADLINE_EXCEEDED", f"the stream was silent for {SIGN_SECONDS_MAX:g} s")
        if broken is not None:
            raise broken

    async def close(self) -> BrokenStreamError | None:
        """End it; return how it had ended by itself, if it had."""
        reading, self._reading = self._reading, None
        if reading is None:
            return None
        reading.cancel()
        [ended] = await asyncio.gather(reading, return_exceptions=True)
        if isinstance(ended, BrokenStreamError):
            return ended
        if isinstance(ended, Exception):
            raise ended
        return None

    async def _read(self, header: tuple[str, str]) -> None:
        request = order_service_pb2.StreamOrderEventsRequest(
            account_id=self._account_id, resume_token=self._token, heartbeat_interval=Duration(seconds=1)
        )
        try:
            async for message in self._method(request, metadata=(header,)):
                if message.WhichOneof("payload") == _END:
                    # What the service ends in band is no fault: it says when to come again, and with what.
                    return
                self._note(message)
                self._sign.set()
        except grpc.aio.AioRpcError as error:
            failure = call_failure(error)
            raise BrokenStreamError(failure.code, failure.text) from error

    def _note(self, message: order_service_pb2.StreamOrderEventsResponse) -> None:
        kind = message.WhichOneof("payload")
        if kind == _HEARTBEAT:
            if message.heartbeat.last_sequence != self._last:
                self.faults.append(f"a heartbeat speaks of message {message.heartbeat.last_sequence} after {self._last}")
            return
        if message.sequence != self._last + 1 and not (kind in (_SNAPSHOT, _RESYNC) and message.sequence == 1):
            self.faults.append(f"{kind} {message.sequence} came after {self._last}")
        self._last, self._token = message.sequence, message.resume_token
