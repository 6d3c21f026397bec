from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.identity import PEER_HEADER, SECRET_HEADER
from kernel.postgres import migrate
from mesh.local.provision import ServiceDatabase
from sandbox.exchange.exchange import Exchange, ExchangeSettings
from sandbox.exchange.instruments import parse_instruments
from sandbox.exchange.members import Credentials
from sandbox.exchange.server import ExchangeServer
from svc_oms.config import OmsConfig, Venue
from svc_oms.main import MIGRATIONS, serve
from tests.integration.oms.world import FakeRisk
from tests.unit.exchange.venues import EVERY_DAY, document
from tests.wire.oms.caller import SIDECAR_SECRET, Caller
from tests.wire.oms.fake_risk import FakeRiskServer

VENUE_PASSWORD = "a secret of this test"


def always_open() -> str:
    listing: Any = document()
    listing["calendars"]["new-york"] = {"timezone": "UTC", "days": EVERY_DAY, "open": "00:00", "close": "24:00"}
    return json.dumps(listing)


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
async def migrated(service_database: ServiceDatabase) -> ServiceDatabase:
    """Return a schema with the order service's tables."""
    await migrate(service_database.owner_dsn, service_database.role, MIGRATIONS)
    return service_database


def config_of(instance: str, migrated: ServiceDatabase, sockets: Path, risk_server: FakeRiskServer) -> OmsConfig:
    """Return the configuration of a replica."""
    headers = sockets / "headers.json"
    headers.write_text(json.dumps({"*": {PEER_HEADER: "URI=spiffe://trademesh.local/ns/trading/sa/svc-oms", SECRET_HEADER: "x" * 32}}))
    headers.chmod(0o600)
    return OmsConfig(
        instance=instance,
        socket_path=sockets / f"{instance}.sock",
        sidecar_secret=Secret(SIDECAR_SECRET),
        database_dsn=migrated.dsn,
        token_key=Secret("k" * 40),
        risk_targets=(risk_server.target,),
        headers_file=headers,
    )


@contextlib.asynccontextmanager
async def running(config: OmsConfig, venues: tuple[Venue, ...] = ()) -> AsyncIterator[Caller]:
    """Run a whole replica in this process."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, venues, stop))
    try:
        async with grpc.aio.insecure_channel(f"unix:{config.socket_path}") as channel:
            caller = Caller(channel, stop)
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
async def oms(migrated: ServiceDatabase, sockets: Path, risk_server: FakeRiskServer) -> AsyncIterator[Caller]:
    """Return a caller of a whole order service, which has no venue."""
    async with running(config_of("svc_oms-0", migrated, sockets, risk_server)) as caller:
        yield caller


@dataclass
class SandboxVenue:
    """A sandbox exchange that can be stopped and started on its journal and port."""

    directory: Path
    port: int = 0
    server: ExchangeServer | None = None

    async def start(self) -> None:
        """Serve, on the same port as before."""
        credentials = {name: Credentials(name, name.lower(), VENUE_PASSWORD) for name in ("TRADEMESH", "BETA")}
        settings = ExchangeSettings("XSIM", parse_instruments(always_open()), credentials, self.directory / "journal")
        self.server = ExchangeServer(Exchange(settings, SystemClock()), flow_rate=0)
        self.port = await self.server.start("127.0.0.1", self.port, None)

    async def stop(self) -> None:
        """Stop, as a venue does over night."""
        if self.server is not None:
            await self.server.close()
            self.server = None

    def control(self, **line: object) -> dict[str, object]:
        """Give the operator's order."""
        assert self.server is not None
        answer: dict[str, object] = json.loads(self.server.control.handle(json.dumps(line)))
        assert answer["ok"], answer
        return answer

    @property
    def session(self) -> Venue:
        """Our session there."""
        return Venue("XSIM", "127.0.0.1", self.port, "TRADEMESH", "XSIM", "trademesh", VENUE_PASSWORD, heartbeat_seconds=1)


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[SandboxVenue]:
    """Return a running sandbox exchange that never closes."""
    sandbox = SandboxVenue(tmp_path)
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


@pytest.fixture
async def trading(migrated: ServiceDatabase, sockets: Path, risk_server: FakeRiskServer, venue: SandboxVenue) -> AsyncIterator[Caller]:
    """Return a caller of a whole order service that trades at the sandbox exchange."""
    async with running(config_of("svc_oms-0", migrated, sockets, risk_server), (venue.session,)) as caller:
        yield caller
