"""The real server of market data on a UNIX socket, over a real database, with a feed that a test speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.identity import User
from kernel.paging import PageTokens
from kernel.postgres import Database
from kernel.streams import ResumeTokens
from svc_marketdata.consumer.recorder import TradeRecorder
from svc_marketdata.domain import Venue
from svc_marketdata.itch.follower import FeedFollower
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.reading import snapshot_reader
from svc_marketdata.main import bindings
from svc_marketdata.servicer.feed import MarketFeed
from svc_marketdata.store.trades import TradeStore
from tests.unit.marketdata.scripted import ScriptedVenue
from tests.wire.serving import USER_SECONDS, RefusedError, headers, insecure, private_folder, server_of
from tests.wire.serving import user as user_of
from trademesh.marketdata.v1 import market_data_service_pb2 as pb
from trademesh.marketdata.v1 import reference_price_service_pb2 as prices_pb

VENUE = "XSIM"
NAMES = ("AAPL", "BTC-USD", "MSFT")
MARKET_DATA = "/trademesh.marketdata.v1.MarketDataService/"
PRICES = "/trademesh.marketdata.v1.ReferencePriceService/StreamReferencePrices"


def user(*roles: str, seconds: int = USER_SECONDS) -> User:
    """Return a user without accounts."""
    return user_of(*roles, accounts=(), seconds=seconds)


VIEWER = user("viewer")


class World:
    """A running server, the venue that speaks to it, and a client."""

    def __init__(self, database: Database, channel: grpc.aio.Channel, target: str) -> None:
        self._channel = channel
        self.target = target
        clock = SystemClock()
        self._clock = clock
        self.script = ScriptedVenue()
        self.script.open(*NAMES)
        self.sent = 0
        self.trades = TradeStore(database, VENUE)
        self.recorder = TradeRecorder(self.trades, gather_seconds=0.0)
        self.venue, self.liveness = Venue(), Liveness()
        self.follower = FeedFollower(self.venue, self.liveness, lambda request: None)
        self.feed = MarketFeed(VENUE, self.venue, self.liveness, lambda: self.follower.is_recovering, self.recorder, clock)
        self.recorder.found = self.feed.tell_busts
        self.alive = True

    async def speak(self) -> None:
        """Heartbeat, as the exchange does while it lives."""
        while True:
            if self.alive:
                self.follower.receive("A", self.script.heartbeat(), self._clock.monotonic(), arrived_at=self._clock.monotonic())
            self.follower.tick(self._clock.monotonic())
            self.feed.notify()
            await asyncio.sleep(0.05)

    def send(self) -> None:
        """Send what the script has said since the last time."""
        now = self._clock.monotonic()
        first, self.sent = self.sent + 1, len(self.script.messages)
        for start in range(first, self.sent + 1, 50):
            self.follower.receive("A", self.script.packet(start, min(start + 49, self.sent)), now, arrived_at=now)
        if first == 1:
            self.settle()
        self.feed.notify()

    def lose(self) -> None:
        """What the script has said since the last time arrives on no line, and a snapshot takes its place."""
        self.sent = len(self.script.messages)
        now = self._clock.monotonic()
        self.follower.receive("A", self.script.heartbeat(), now, arrived_at=now)
        for attempt in range(1, 10):
            self.follower.tick(now + attempt * 0.06)
        assert self.follower.needs_snapshot, "nobody answers requests"
        self.settle()
        self.feed.notify()

    def settle(self) -> None:
        """Fetch a snapshot."""
        self.follower.begin_snapshot()
        reader = snapshot_reader(self.script.session, self.script.next_sequence)
        reader.load(self.script.snapshot(*NAMES))
        assert self.follower.merge(reader, self.script.next_sequence, self._clock.monotonic())

    async def call(self, request: Message, caller: User | None = VIEWER, *, peer: str = "edge") -> Any:
        """Call the method that the request is of; raise `RefusedError` for whatever is not OK."""
        name = type(request).__name__.removesuffix("Request")
        method: Any = self._channel.unary_unary(f"{MARKET_DATA}{name}")
        try:
            answer = await method(request.SerializeToString(), metadata=headers(caller, peer), timeout=10)
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error) from error
        return getattr(pb, f"{name}Response").FromString(answer)

    def stream(self, request: Message, caller: User | None = VIEWER, *, peer: str = "edge", timeout: float = 10) -> Stream:
        """Open a stream."""
        is_prices = isinstance(request, prices_pb.StreamReferencePricesRequest)
        response: Any = prices_pb.StreamReferencePricesResponse if is_prices else pb.StreamMarketDataResponse
        method: Any = self._channel.unary_stream(PRICES if is_prices else f"{MARKET_DATA}StreamMarketData")
        call = method(request.SerializeToString(), metadata=headers(caller, peer), timeout=timeout)
        return Stream(call, response)


class Stream:
    """A stream that a test reads message by message."""

    def __init__(self, call: Any, response: Any) -> None:
        self._call = call
        self._response = response

    async def read(self) -> Any:
        """Return the next message."""
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error) from error
        assert data is not grpc.aio.EOF, "the stream has ended"
        return self._response.FromString(data)

    async def until(self, wanted: Any) -> list[Any]:
        """Read until a message is what is wanted; return all that were read."""
        read = []
        async with asyncio.timeout(10):
            while True:
                read.append(await self.read())
                if wanted(read[-1]):
                    return read

    def cancel(self) -> None:
        self._call.cancel()


def market_request(*channels: pb.MarketDataChannel.ValueType, names: Sequence[str] = ("AAPL",), **more: Any) -> pb.StreamMarketDataRequest:
    return pb.StreamMarketDataRequest(instrument_ids=names, channels=channels, **more)


@asynccontextmanager
async def serving(database: Database) -> AsyncIterator[World]:
    """Serve market data until the block ends."""
    key = Secret("k" * 32)
    with private_folder() as folder:
        socket = folder / "grpc.sock"
        channel = insecure(f"unix:{socket}")
        world = World(database, channel, f"unix:{socket}")
        services = bindings(world.feed, world.trades, PageTokens(key), ResumeTokens(key), SystemClock())
        server = server_of("svc-marketdata", socket, services)
        tasks = [asyncio.create_task(world.recorder.run()), asyncio.create_task(world.speak())]
        try:
            await server.start()
            world.send()
            yield world
        finally:
            await channel.close()
            await server.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
