"""A whole replica of reporting on a UNIX socket, that follows three logs on sockets of their own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kernel.config import Secret
from mesh.local.provision import ServiceDatabase
from svc_reporting.config import ReportingConfig
from svc_reporting.domain.report import SOURCES
from svc_reporting.main import serve
from tests.integration.reporting.conftest import reporting_database
from tests.integration.reporting.world import World, trading_day
from tests.wire.reporting.caller import Caller
from tests.wire.reporting.fake_logs import FakeLogServer
from tests.wire.serving import SECRET, private_folder, replica

__all__ = ["reporting_database"]


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Return a private directory with a short path."""
    with private_folder() as folder:
        yield folder


@pytest.fixture
def world() -> World:
    """Return a day of trading; a test may let it go on."""
    return trading_day()


@pytest.fixture
async def targets(sockets: Path, world: World) -> AsyncIterator[dict[str, str]]:
    """Return where each source's log is served."""
    servers = {source: FakeLogServer(sockets / f"{source}.sock", world.source(source)) for source in SOURCES}
    for server in servers.values():
        await server.start()
    yield {source: server.target for source, server in servers.items()}
    for server in servers.values():
        await server.stop()


def config_of(instance: str, database: ServiceDatabase, sockets: Path, targets: dict[str, str]) -> ReportingConfig:
    """Return the configuration of a replica."""
    return ReportingConfig(
        instance=instance,
        socket_path=sockets / f"{instance}.sock",
        sidecar_secret=Secret(SECRET),
        database_dsn=database.dsn,
        token_key=Secret("k" * 40),
        oms_targets=(targets["oms"],),
        risk_targets=(targets["risk"],),
        custody_targets=(targets["custody"],),
    )


@contextlib.asynccontextmanager
async def running(config: ReportingConfig) -> AsyncIterator[Caller]:
    """Run a whole replica in this process."""
    async with replica(config.socket_path, lambda stop: serve(config, stop)) as (channel, _):
        yield Caller(channel)


@pytest.fixture
async def reporting(reporting_database: ServiceDatabase, sockets: Path, targets: dict[str, str]) -> AsyncIterator[Caller]:
    """Return a caller of a whole replica."""
    async with running(config_of("svc_reporting-0", reporting_database, sockets, targets)) as caller:
        yield caller
