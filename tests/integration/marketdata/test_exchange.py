"""The real service on the real exchange: processes, sockets, PostgreSQL, kill -9, bent lines; books are right or say that they are not."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from mesh.local.provision import ServiceDatabase
from tests.integration.exchange.test_process import ROOT, Process
from tests.simulation.exchange.itch_follower import Follower
from tests.wire.exchange.itch_client import fetch_snapshot
from trademesh.marketdata.v1 import market_data_pb2
from trademesh.marketdata.v1 import market_data_service_pb2 as pb

SECRET = "a-secret-of-this-test-run"
LIVE = market_data_pb2.BOOK_STATE_LIVE
NAMES = ("AAPL", "BTC-USD")
DEADLINE_SECONDS = 60.0
_PORTS = re.compile(r"itch_request=127\.0\.0\.1:(\d+) itch_snapshot=127\.0\.0\.1:(\d+)")
BENT = [
    {"op": "line.fault.add", "action": "drop", "line": "*", "skip": 5, "count": 3},
    {"op": "line.fault.add", "action": "lose", "skip": 12, "count": 1},
    {"op": "line.fault.add", "action": "reorder", "line": "A", "count": 40, "distance": 3},
    {"op": "line.fault.add", "action": "duplicate", "line": "B"},
    {"op": "line.fault.add", "action": "silence", "line": "A", "skip": 80, "count": 100},
]


def free_ports(kind: socket.SocketKind, count: int) -> list[int]:
    """Return ports that nobody has now."""
    sockets = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


async def eventually(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Return what a condition says once it is true."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (found := await condition()):
                await asyncio.sleep(0.02)
            return found
    except TimeoutError:
        raise AssertionError(f"in {DEADLINE_SECONDS} s there was not: {what}") from None


class Market:
    """An exchange process and a market data process."""

    def __init__(self, exchange: Process, database: ServiceDatabase, folder: Path) -> None:
        self.exchange = exchange
        self._database = database
        self._folder = folder
        self.lines = free_ports(socket.SOCK_DGRAM, 3)
        (self._snapshot_port,) = free_ports(socket.SOCK_STREAM, 1)
        exchange.environment |= {
            "TRADEMESH_EXCHANGE_ITCH_A": f"127.0.0.1:{self.lines[0]}",
            "TRADEMESH_EXCHANGE_ITCH_B": f"127.0.0.1:{self.lines[1]}",
            "TRADEMESH_EXCHANGE_ITCH_REQUEST_PORT": str(self.lines[2]),
            "TRADEMESH_EXCHANGE_ITCH_SNAPSHOT_PORT": str(self._snapshot_port),
            "TRADEMESH_EXCHANGE_CONTROL_SOCKET": str(folder / "control.sock"),
        }
        self._process: asyncio.subprocess.Process | None = None
        self._channel = grpc.aio.insecure_channel(f"unix:{folder / 'grpc.sock'}", options=(("grpc.use_local_subchannel_pool", 1),))

    async def start_service(self) -> None:
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
            "TRADEMESH_INSTANCE": "svc_marketdata-0",
            "TRADEMESH_SOCKET_PATH": str(self._folder / "grpc.sock"),
            "TRADEMESH_SIDECAR_SECRET": SECRET,
            "TRADEMESH_DATABASE_DSN": self._database.dsn.reveal(),
            "TRADEMESH_TOKEN_KEY": "k" * 32,
            "TRADEMESH_VENUE": "XSIM",
            "TRADEMESH_ITCH_A": f"127.0.0.1:{self.lines[0]}",
            "TRADEMESH_ITCH_B": f"127.0.0.1:{self.lines[1]}",
            "TRADEMESH_ITCH_REREQUEST": f"127.0.0.1:{self.lines[2]}",
            "TRADEMESH_ITCH_SNAPSHOT": f"127.0.0.1:{self._snapshot_port}",
            "TRADEMESH_ITCH_SOURCES": "127.0.0.1",
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "svc_marketdata", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def stop_service(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), DEADLINE_SECONDS)

    async def close(self) -> None:
        await self._channel.close()
        if self._process is not None:
            await self.stop_service(signal.SIGKILL)
        if self.exchange.process is not None and self.exchange.process.returncode is None:
            await self.exchange.stop(signal.SIGKILL)

    async def call(self, request: Message) -> Any:
        name = type(request).__name__.removesuffix("Request")
        user = User("ada", "north", frozenset({"viewer"}), frozenset(), int(time.time()) + 3600)
        metadata = (
            (SECRET_HEADER, SECRET),
            (PEER_HEADER, xfcc("edge", trust_domain="trademesh.local", namespace="trading")),
            (CLAIMS_HEADER, claims_header(user)),
        )
        method: Any = self._channel.unary_unary(f"/trademesh.marketdata.v1.MarketDataService/{name}")
        answer = await method(request.SerializeToString(), metadata=metadata, timeout=10, wait_for_ready=True)
        return getattr(pb, f"{name}Response").FromString(answer)

    async def control(self, **request: Any) -> dict[str, Any]:
        """Tell the exchange something."""
        reader, writer = await asyncio.open_unix_connection(self._folder / "control.sock")
        writer.write(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        assert answer["ok"], answer
        return answer

    async def truth(self) -> dict[str, tuple[Counter[int], Counter[int]]]:
        """The venue's books as it tells them itself, read by code that the service does not have: quantities by price."""
        follower = Follower()
        for message in (await fetch_snapshot(self._snapshot_port)).messages:
            follower.apply(message)
        books = {}
        for name in NAMES:
            bids, asks = Counter[int](), Counter[int]()
            for rest in follower.queue(name):
                (bids if rest.side == "B" else asks)[rest.price] += rest.shares
            books[name] = bids, asks
        return books

    async def shown(self, name: str) -> market_data_pb2.OrderBook:
        book: market_data_pb2.OrderBook = (await self.call(pb.GetOrderBookRequest(instrument_id=name, depth=50))).book
        return book

    async def is_live(self) -> bool:
        try:
            answer = await self.call(pb.ListInstrumentsRequest())
        except grpc.aio.AioRpcError as error:
            # Not up yet, or nothing heard yet; whatever else it says is a defect.
            assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}, error  # noqa: PT017 (a condition)
            return False
        return len(answer.instruments) == len(NAMES) and all(listed.state == LIVE for listed in answer.instruments)

    async def is_right(self) -> bool:
        """Whether every book is live and the venue's own. Exact only while nothing trades."""
        if not await self.is_live():
            return False
        lots = {listed.instrument_id: listed for listed in (await self.call(pb.ListInstrumentsRequest())).instruments}
        for name, sides in (await self.truth()).items():
            book, listed = await self.shown(name), lots[name]
            for levels, side in zip((book.bids, book.asks), sides, strict=True):
                best = sorted(side, reverse=levels is book.bids)[:50]
                want = [(price, side[price]) for price in best]
                have = [(_units(level.price, listed.price_scale), _lots(level.quantity, listed.lot_size)) for level in levels]
                if have != want:
                    return False
        return True


def _units(price: str, scale: int) -> int:
    whole, _, fraction = price.partition(".")
    return int(whole + fraction.ljust(scale, "0"))


def _lots(quantity: str, lot: str) -> int:
    return _units(quantity, len(lot.partition(".")[2])) // _units(lot, len(lot.partition(".")[2]))


@asynccontextmanager
async def opened(database: ServiceDatabase, directory: Path) -> AsyncIterator[Market]:
    folder = Path(tempfile.mkdtemp(prefix="tmx-", dir="/tmp"))
    market = Market(Process(directory, flow_rate="200"), database, folder)
    try:
        yield market
    finally:
        await market.close()
        shutil.rmtree(folder)


@pytest.fixture
async def market(market_database: ServiceDatabase, tmp_path: Path) -> AsyncIterator[Market]:
    async with opened(market_database, tmp_path) as market:
        yield market


async def trades_of(market: Market) -> list[market_data_pb2.Trade]:
    found: list[market_data_pb2.Trade] = []
    for name in NAMES:
        token = ""
        while True:
            page = await market.call(pb.ListTradesRequest(instrument_id=name, page_size=500, page_token=token))
            found += page.trades
            token = page.next_page_token
            if not token:
                break
    return found


async def test_books_are_the_venues_over_kill_9_of_either_process_and_trades_stay(market: Market) -> None:
    await market.exchange.start()
    await market.start_service()
    await eventually(market.is_live, "live books")

    async def traded() -> bool:
        return len(await trades_of(market)) >= 20

    await eventually(traded, "trades on record")
    await market.control(op="flow.pause")
    await eventually(market.is_right, "the venue's books")
    session = (await market.shown(NAMES[0])).feed_session

    await market.exchange.stop(signal.SIGKILL)

    async def is_stale() -> bool:
        return (await market.shown(NAMES[0])).state == market_data_pb2.BOOK_STATE_STALE

    await eventually(is_stale, "stale books")
    before = {trade.match_number for trade in await trades_of(market)}
    await market.exchange.start()
    await eventually(market.is_live, "live books after the venue's death")
    await market.control(op="flow.pause")
    await eventually(market.is_right, "the venue's books after its death")
    assert (await market.shown(NAMES[0])).feed_session > session

    volume = (await market.call(pb.BatchGetQuotesRequest(instrument_ids=NAMES))).quotes
    await market.stop_service(signal.SIGKILL)
    await market.start_service()
    await eventually(market.is_right, "the venue's books after the service's death")
    after = [trade.match_number for trade in await trades_of(market)]
    assert before <= set(after)
    assert len(after) == len(set(after)), "each trade once"
    quotes = (await market.call(pb.BatchGetQuotesRequest(instrument_ids=NAMES))).quotes
    assert [quote.volume for quote in quotes] == [quote.volume for quote in volume]
    assert await market.stop_service() == 0


async def test_bent_lines_end_in_the_venues_books(market: Market) -> None:
    script = market.exchange.directory / "script.jsonl"
    script.write_text("".join(f"{json.dumps(line)}\n" for line in BENT))
    market.exchange.environment["TRADEMESH_EXCHANGE_SCRIPT_FILE"] = str(script)
    await market.start_service()
    await market.exchange.start()

    async def is_bent() -> bool:
        rules = (await market.control(op="line.fault.list"))["rules"]
        return all(rule["used"] >= rule["skip"] + min(rule["count"], 50) for rule in rules)

    await eventually(is_bent, "packets lost, repeated and out of order")
    await market.control(op="flow.pause")
    await eventually(market.is_right, "the venue's books")


def test_wrong_configuration_is_named_key_by_key() -> None:
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "TRADEMESH_INSTANCE": "svc_marketdata-0",
        "TRADEMESH_SOCKET_PATH": "/tmp/none", "TRADEMESH_SIDECAR_SECRET": SECRET, "TRADEMESH_DATABASE_DSN": "postgresql://x@h/d",
        "TRADEMESH_TOKEN_KEY": "k" * 32, "TRADEMESH_VENUE": "XSIM", "TRADEMESH_ITCH_A": "127.0.0.1:70000",
        "TRADEMESH_ITCH_B": "127.0.0.999:5", "TRADEMESH_ITCH_REREQUEST": "127.0.0.1:5", "TRADEMESH_ITCH_SNAPSHOT": "127.0.0.1:0",
        "TRADEMESH_ITCH_SOURCES": "300.0.0.1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "svc_marketdata"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    for key in ("ITCH_A", "ITCH_B", "ITCH_SNAPSHOT", "ITCH_SOURCES"):
        assert f"TRADEMESH_{key}" in done.stderr
    assert "ITCH_REREQUEST" not in done.stderr
