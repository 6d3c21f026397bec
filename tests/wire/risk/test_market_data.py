"""Risk's reader of reference prices on the real market data server, through the client that the mesh has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path

import pytest

from kernel.clock import SystemClock
from kernel.errors import UnavailableError
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.identity import PEER_HEADER, SECRET_HEADER, xfcc
from kernel.postgres import Database
from svc_risk.clients.market_data import MarketDataFeed
from svc_risk.clients.price_feed import Alive, Latest, PriceLine
from tests.integration.marketdata.conftest import database, market_database
from tests.wire.marketdata.serving import SECRET, VENUE, World, serving
from trademesh.marketdata.v1.reference_price_service_pb2_grpc import ReferencePriceServiceStub

__all__ = ["database", "market_database"]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """Return a running market data server."""
    async with serving(database) as world:
        yield world


def channel(world: World, folder: Path, peer: str = "svc-risk") -> MeshChannel:
    headers = folder / "headers.json"
    headers.write_text(
        json.dumps({"*": {SECRET_HEADER: SECRET, PEER_HEADER: xfcc(peer, trust_domain="trademesh.local", namespace="trading")}})
    )
    headers.chmod(0o600)
    return MeshChannel(ClientConfig(dependency="svc-marketdata", targets=(world.target,), headers_file=headers))


async def until(lines: AsyncIterator[PriceLine], wanted: type[object], *, alive: bool) -> list[PriceLine]:
    """Read until a line of a kind that is, or is not, a sign of life."""
    read = []
    async for line in lines:
        read.append(line)
        if isinstance(line.fact, wanted) and (line.silent_seconds is not None) is alive:
            return read
    raise AssertionError("the feed ended")


async def test_prices_liveness_and_staleness_arrive(world: World, tmp_path: Path) -> None:
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.script.add("AAPL", 2, "S", 10, 10_200)
    world.send()
    async with channel(world, tmp_path) as mesh:
        feed = MarketDataFeed(ReferencePriceServiceStub(mesh).StreamReferencePrices, VENUE, SystemClock())
        async with aclosing(feed.lines()) as lines:  # type: ignore[type-var]  # an asynchronous generator
            read = await until(lines, Alive, alive=True)
            quotes = {line.fact.instrument_id: line.fact.quote for line in read if isinstance(line.fact, Latest)}
            assert sorted(quotes) == ["AAPL", "BTC-USD", "MSFT"]
            assert (quotes["AAPL"].bid, quotes["AAPL"].ask, quotes["AAPL"].stale) == (Decimal(100), Decimal(102), False)
            assert read[-1].silent_seconds is not None
            assert read[-1].silent_seconds < 1
            world.alive = False
            dead = await until(lines, Alive, alive=False)
            stale = [line.fact.quote.stale for line in dead if isinstance(line.fact, Latest)]
            if not stale:
                (price,) = (await until(lines, Latest, alive=False))[-1:]
                assert isinstance(price.fact, Latest)
                stale = [price.fact.quote.stale]
            assert all(stale)
            world.alive = True
            await until(lines, Alive, alive=True)


async def test_a_peer_that_is_not_allowed_is_told_so_and_may_try_again(world: World, tmp_path: Path) -> None:
    async with channel(world, tmp_path, peer="svc-oms") as mesh:
        feed = MarketDataFeed(ReferencePriceServiceStub(mesh).StreamReferencePrices, VENUE, SystemClock())
        with pytest.raises(UnavailableError, match="PEER_NOT_ALLOWED"):
            async for _ in feed.lines():
                pass
