from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from kernel.config import Secret
from kernel.identity import PEER_HEADER, SECRET_HEADER
from kernel.postgres import migrate
from mesh.local.provision import ServiceDatabase
from svc_oms.config import OmsConfig
from svc_oms.main import MIGRATIONS, serve
from tests.integration.oms.world import FakeRisk
from tests.wire.oms.caller import SIDECAR_SECRET, Caller
from tests.wire.oms.fake_risk import FakeRiskServer


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Return a private directory with a short path."""
    directory = Path(tempfile.mkdtemp(prefix="oms-"))
    directory.chmod(0o700)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def risk() -> FakeRisk:
    """Return what decides for the fake risk service."""
    return FakeRisk()


@pytest.fixture
async def risk_server(sockets: Path, risk: FakeRisk) -> AsyncIterator[FakeRiskServer]:
    """Return a risk service on a socket of its own."""
    server = FakeRiskServer(sockets / "risk.sock", risk)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def oms(service_database: ServiceDatabase, sockets: Path, risk_server: FakeRiskServer) -> AsyncIterator[Caller]:
    """Return a caller of a whole order service, which has no venue."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    headers = sockets / "headers.json"
    headers.write_text(json.dumps({"*": {PEER_HEADER: "URI=spiffe://trademesh.local/ns/trading/sa/svc-oms", SECRET_HEADER: "x" * 32}}))
    headers.chmod(0o600)
    config = OmsConfig(
        instance="svc_oms-0",
        socket_path=sockets / "oms.sock",
        sidecar_secret=Secret(SIDECAR_SECRET),
        database_dsn=service_database.dsn,
        token_key=Secret("k" * 40),
        risk_targets=(risk_server.target,),
        headers_file=headers,
    )
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, (), stop))
    async with grpc.aio.insecure_channel(f"unix:{config.socket_path}") as channel:
        caller = Caller(channel, stop)
        ready = asyncio.create_task(caller.wait_until_serving())
        await asyncio.wait([ready, serving], timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        await ready
        yield caller
    stop.set()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
