"""The real server of market data on a UNIX socket, over a real database, with a feed that a test speaks."""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.errors import Reason
from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from kernel.logs import LineWriter
from kernel.paging import PageTokens
from kernel.postgres import Database
from kernel.status import from_status
from kernel.streams import ResumeTokens
from kernel.telemetry import Telemetry, TelemetryConfig
from svc_marketdata.consumer.recorder import TradeRecorder
from svc_marketdata.domain import Venue
from svc_marketdata.itch.follower import FeedFollower
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.reading import snapshot_reader
from svc_marketdata.main import bindings
from svc_marketdata.servicer.feed import MarketFeed
from svc_marketdata.store.trades import TradeStore
from tests.unit.marketdata.scripted import ScriptedVenue
from trademesh.marketdata.v1 import market_data_service_pb2 as pb
from trademesh.marketdata.v1 import reference_price_service_pb2 as prices_pb

SECRET = "a-secret-of-this-test-run"
VENUE = "XSIM"
NAMES = ("AAPL", "BTC-USD", "MSFT")
MARKET_DATA = "/trademesh.marketdata.v1.MarketDataService/"
PRICES = "/trademesh.marketdata.v1.ReferencePriceService/StreamReferencePrices"


def user(*roles: str, expires_in: float = 3600) -> User:
    return User("ada", "north", frozenset(roles), frozenset(), int(time.time() + expires_in))


VIEWER = user("viewer")


class RefusedError(Exception):
    """A call that ended with a status: its code and our reason."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what a call has
        self.code = error.code()
        known = None if status is None else from_status(status)
        self.reason: Reason | None = None if known is None else known.reason
        super().__init__(self.code, self.reason)


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

    def _metadata(self, caller: User | None, peer: str) -> list[tuple[str, str]]:
        metadata = [(SECRET_HEADER, SECRET), (PEER_HEADER, xfcc(peer, trust_domain="trademesh.local", namespace="trading"))]
        return metadata if caller is None else [*metadata, (CLAIMS_HEADER, claims_header(caller))]

    async def call(self, request: Message, caller: User | None = VIEWER, *, peer: str = "edge") -> Any:
        """Call the method that the request is of; raise `RefusedError` for whatever is not OK."""
        name = type(request).__name__.removesuffix("Request")
        method: Any = self._channel.unary_unary(f"{MARKET_DATA}{name}")
        try:
            answer = await method(request.SerializeToString(), metadata=self._metadata(caller, peer), timeout=10)
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error) from error
        return getattr(pb, f"{name}Response").FromString(answer)

    def stream(self, request: Message, caller: User | None = VIEWER, *, peer: str = "edge", timeout: float = 10) -> Stream:
        """Open a stream."""
        is_prices = isinstance(request, prices_pb.StreamReferencePricesRequest)
        response: Any = prices_pb.StreamReferencePricesResponse if is_prices else pb.StreamMarketDataResponse
        method: Any = self._channel.unary_stream(PRICES if is_prices else f"{MARKET_DATA}StreamMarketData")
        call = method(request.SerializeToString(), metadata=self._metadata(caller, peer), timeout=timeout)
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
    folder = Path(tempfile.mkdtemp(prefix="tmd-", dir="/tmp"))
    channel = grpc.aio.insecure_channel(f"unix:{folder / 'grpc.sock'}", options=(("grpc.use_local_subchannel_pool", 1),))
    world = World(database, channel, f"unix:{folder / 'grpc.sock'}")
    key = Secret("k" * 32)

    async def ready() -> bool:
        return True

    server = GrpcServer(
        ServerConfig(
            service="svc-marketdata", instance="svc_marketdata-0", socket_path=folder / "grpc.sock", sidecar_secret=SECRET,
            drain_seconds=0.0, grace_seconds=2.0,
        ),
        bindings(world.feed, world.trades, PageTokens(key), ResumeTokens(key), SystemClock()),
        ready=ready,
        telemetry=Telemetry(TelemetryConfig("svc-marketdata", "svc_marketdata-0")),
        log_writer=LineWriter(io.BytesIO()),
        now=time.time,
    )  # fmt: skip
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
        shutil.rmtree(folder)
