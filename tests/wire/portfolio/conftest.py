"""A whole portfolio service for each test that asks for one, and the neighbours that it calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kernel.config import Secret
from kernel.event_records import to_position
from kernel.identity import User
from kernel.ports import LogPosition
from kernel.postgres import migrate
from mesh.local.provision import ServiceDatabase
from svc_portfolio.config import PortfolioConfig
from svc_portfolio.domain.executions import Execution
from svc_portfolio.main import serve
from svc_portfolio.store import MIGRATIONS
from tests.contract.portfolio.events import OrderLog, account, instrument
from tests.wire.portfolio.neighbours import ScriptedLog, ScriptedPrices
from tests.wire.serving import SECRET, headers_file, private_folder, replica, user
from tests.wire.serving import headers as headers_of
from trademesh.portfolio.v1.portfolio_service_pb2_grpc import PortfolioServiceStub
from trademesh.type.v1 import log_position_pb2
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

PATIENCE_SECONDS = 15

VIEWER = user("viewer")


def headers(caller: User | None = VIEWER, peer: str = "edge") -> list[tuple[str, str]]:
    """Return what the sidecar attaches for a user that came through a peer."""
    return headers_of(caller, peer)


class World:
    """Portfolio's neighbours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.oms = ScriptedLog("svc-oms", folder)
        self.risk = ScriptedLog("svc-risk", folder)
        self.prices = ScriptedPrices(folder)
        self._orders = OrderLog()

    async def execute(self, *executions: Execution) -> log_position_pb2.LogPosition:
        """Let svc_oms record executions; return where."""
        return to_position(await self.oms.add(*(self._orders.event(item) for item in executions)))

    async def refer(self) -> None:
        """Let svc_risk know two accounts and two instruments."""
        await self.risk.add(account(1, "ACC-1"), account(2, "ACC-2", "south"), instrument(3, "AAPL"), instrument(4, "MSFT", "EUR"))


class Caller:
    """Stubs of one replica."""

    def __init__(self, channel: grpc.aio.Channel, world: World) -> None:
        self.channel = channel
        self.world = world
        self.stub: Any = PortfolioServiceStub(channel)
        self.log: Any = EventLogServiceStub(channel)

    async def call(self, method: str, request: Any, caller: User | None = VIEWER, peer: str = "edge") -> Any:
        """Call an RPC."""
        return await getattr(self.stub, method)(request, metadata=headers(caller, peer), timeout=10)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Return a private directory with a short path."""
    with private_folder() as folder:
        yield folder


@pytest.fixture
async def world(sockets: Path) -> AsyncIterator[World]:
    """Return running neighbours that know accounts and instruments."""
    world = World(sockets)
    servers = [world.oms.server, world.risk.server, world.prices.server]
    for server in servers:
        await server.start()
    await world.refer()
    yield world
    for server in servers:
        await server.stop()


@pytest.fixture
async def migrated(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a schema with portfolio's tables."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


def config_of(instance: str, migrated: ServiceDatabase, world: World) -> PortfolioConfig:
    """Return the configuration of a replica."""
    return PortfolioConfig(
        instance=instance,
        socket_path=world.folder / f"{instance}.sock",
        sidecar_secret=Secret(SECRET),
        database_dsn=migrated.dsn,
        token_key=Secret("k" * 40),
        oms_targets=(world.oms.server.target,),
        risk_targets=(world.risk.server.target,),
        marketdata_targets=(world.prices.server.target,),
        price_venues=("XSIM",),
        headers_file=headers_file(world.folder, "svc-portfolio"),
    )


@contextlib.asynccontextmanager
async def running(config: PortfolioConfig, world: World) -> AsyncIterator[Caller]:
    """Run a whole replica in this process."""
    async with replica(config.socket_path, lambda stop: serve(config, stop)) as (channel, _):
        yield Caller(channel, world)


@pytest.fixture
async def portfolio(migrated: ServiceDatabase, world: World) -> AsyncIterator[Caller]:
    """Return a caller of a whole portfolio service."""
    async with running(config_of("svc_portfolio-0", migrated, world), world) as caller:
        yield caller


def place(position: LogPosition) -> log_position_pb2.LogPosition:
    """Return a position on the wire."""
    return to_position(position)
