"""A whole replica of reporting on a UNIX socket, that follows three logs on sockets of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from kernel.config import Secret
from mesh.local.provision import ServiceDatabase
from svc_reporting.config import ReportingConfig
from svc_reporting.domain.report import SOURCES
from svc_reporting.main import serve
from tests.integration.reporting.conftest import reporting_database
from tests.integration.reporting.world import World, trading_day
from tests.wire.reporting.caller import SECRET, Caller
from tests.wire.reporting.fake_logs import FakeLogServer

__all__ = ["reporting_database"]


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Return a private directory with a short path."""
    directory = Path(tempfile.mkdtemp(prefix="rep-"))
    directory.chmod(0o700)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


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
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, stop))
    try:
        async with grpc.aio.insecure_channel(f"unix:{config.socket_path}") as channel:
            caller = Caller(channel)
            ready = asyncio.create_task(caller.wait_until_serving())
            await asyncio.wait([ready, serving], timeout=20, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            await ready
            yield caller
    finally:
        stop.set()
        await serving
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)


@pytest.fixture
async def reporting(reporting_database: ServiceDatabase, sockets: Path, targets: dict[str, str]) -> AsyncIterator[Caller]:
    """Return a caller of a whole replica."""
    async with running(config_of("svc_reporting-0", reporting_database, sockets, targets)) as caller:
        yield caller
