"""Risk's reader of reference prices on the real market data server, through the client that the mesh has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path

import pytest

from kernel.clock import SystemClock
from kernel.errors import UnavailableError
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.postgres import Database
from svc_risk.clients.market_data import MarketDataFeed, PriceUpdate
from svc_risk.domain.reference_price import Quote
from tests.integration.marketdata.conftest import database, market_database
from tests.wire.marketdata.serving import VENUE, World, serving
from tests.wire.serving import headers_file
from trademesh.marketdata.v1.reference_price_service_pb2_grpc import ReferencePriceServiceStub

__all__ = ["database", "market_database"]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """Return a running market data server."""
    async with serving(database) as world:
        yield world


def channel(world: World, folder: Path, peer: str = "svc-risk") -> MeshChannel:
    config = ClientConfig(dependency="svc-marketdata", targets=(world.target,), headers_file=headers_file(folder, peer))
    return MeshChannel(config)


async def until(updates: AsyncIterator[PriceUpdate], wanted: Callable[[PriceUpdate], bool]) -> dict[str, Quote]:
    """Read until an update is what is wanted; return the latest quotes of all that were read."""
    quotes: dict[str, Quote] = {}
    async for update in updates:
        quotes |= update.quotes
        if wanted(update):
            return quotes
    raise AssertionError("the feed ended")


def is_alive(update: PriceUpdate) -> bool:
    """Whether the venue was heard within the last second."""
    return update.silent_seconds is not None and update.silent_seconds < 1


def feed_of(mesh: MeshChannel, venue: str = VENUE) -> MarketDataFeed:
    return MarketDataFeed(ReferencePriceServiceStub(mesh).StreamReferencePrices, venue, SystemClock())


async def test_prices_liveness_and_staleness_arrive(world: World, tmp_path: Path) -> None:
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.script.add("AAPL", 2, "S", 10, 10_200)
    world.send()
    async with channel(world, tmp_path) as mesh, aclosing(feed_of(mesh).updates()) as updates:  # type: ignore[type-var]  # a generator
        quotes = await until(updates, is_alive)
        assert sorted(quotes) == ["AAPL", "BTC-USD", "MSFT"]
        assert (quotes["AAPL"].bid, quotes["AAPL"].ask, quotes["AAPL"].stale) == (Decimal(100), Decimal(102), False)
        world.alive = False
        quotes = await until(updates, lambda update: update.silent_seconds is None and bool(update.quotes))
        assert all(quote.stale for quote in quotes.values())
        world.alive = True
        await until(updates, is_alive)


async def test_a_peer_that_is_not_allowed_is_told_so_and_may_try_again(world: World, tmp_path: Path) -> None:
    async with channel(world, tmp_path, peer="svc-oms") as mesh:
        with pytest.raises(UnavailableError, match="PEER_NOT_ALLOWED"):
            await until(feed_of(mesh).updates(), is_alive)


async def test_another_venue_than_the_one_received_there_has_no_prices(world: World, tmp_path: Path) -> None:
    async with channel(world, tmp_path) as mesh:
        with pytest.raises(UnavailableError, match=f"FIELD_INVALID.*{VENUE}"):
            await until(feed_of(mesh, "XNYS").updates(), lambda _: True)
