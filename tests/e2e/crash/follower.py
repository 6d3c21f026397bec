"""A client outside that follows an account's streams through the edge, over as many connections as it takes, and keeps all it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import duration_pb2

from cli.access import LocalUsers
from kernel.errors import UnavailableError
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller
from mesh.local.outside import door
from mesh.local.seed_data import TENANT
from tests.e2e.crash.heard import Heard
from trademesh.oms.v1 import order_service_pb2
from trademesh.portfolio.v1 import portfolio_service_pb2

ORDERS = (
    "/trademesh.oms.v1.OrderService/StreamOrderEvents",
    order_service_pb2.StreamOrderEventsRequest,
    order_service_pb2.StreamOrderEventsResponse,
)
PORTFOLIO = (
    "/trademesh.portfolio.v1.PortfolioService/StreamPortfolio",
    portfolio_service_pb2.StreamPortfolioRequest,
    portfolio_service_pb2.StreamPortfolioResponse,
)
SILENCE_SECONDS_MAX = 8.0
"""Heartbeats come every second; a stream that says nothing for so long is dead, and the client opens it again."""
RECONNECT_SECONDS = 0.2
_BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
)


class Follower:
    """Follows one account from before its first order. An async context manager.

    Attributes:
        heard: what came.
        breaks: why connections ended.
        connections: how often it was opened.
    """

    def __init__(self, mesh: LocalMesh, stream: tuple[str, Any, Any], account_id: str) -> None:
        self._path, request_type, self._response_type = stream
        self._request = request_type(account_id=account_id, heartbeat_interval=duration_pb2.Duration(seconds=1))
        caller = Caller("crash-follower", TENANT, ("viewer",), (account_id,))
        self._tokens = LocalUsers(mesh.layout).tokens(caller)
        self._door = door(mesh.layout)
        self._live = asyncio.Event()
        self.shows_orders = stream is ORDERS
        self.heard = Heard(f"{account_id} {self._path.rpartition('/')[2]}", account_id)
        self.breaks: Counter[str] = Counter()
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        async with asyncio.timeout(30.0):
            await self._live.wait()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def failure(self) -> BaseException | None:
        """What ended it, if anything has."""
        return self._task.exception() if self._task.done() else None

    async def _follow(self) -> None:
        credentials = grpc.ssl_channel_credentials(await asyncio.to_thread(self._door.authority_file.read_bytes))
        async with grpc.aio.secure_channel(self._door.edge, credentials, options=_OPTIONS) as channel:
            while True:
                self.connections += 1
                await self._follow_once(channel)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _follow_once(self, channel: grpc.aio.Channel) -> None:
        method = channel.unary_stream(self._path, self._request.__class__.SerializeToString, self._response_type.FromString)
        call, last = None, 0
        try:
            token = await asyncio.to_thread(self._tokens.token)
            call = method(self._request, metadata=(("authorization", f"Bearer {token.text}"),))
            while True:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    self.breaks["the end"] += 1
                    return
                last = self.heard.note(message, last)
                self._request.resume_token = self.heard.resume_token
                if self.heard.live:
                    self._live.set()
        except TimeoutError:
            self.breaks["silence"] += 1
        except UnavailableError:
            self.breaks["no token"] += 1
        except grpc.aio.AioRpcError as error:
            self.breaks[error.code().name] += 1
            if error.code() not in _BROKEN:
                raise
        finally:
            if call is not None:
                call.cancel()
