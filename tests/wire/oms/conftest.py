from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernel.clock import SystemClock
from kernel.config import Secret
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
from tests.wire.oms.caller import Caller
from tests.wire.oms.fake_risk import FakeRiskServer
from tests.wire.serving import SECRET, headers_file, private_folder, replica

VENUE_PASSWORD = "a secret of this test"


def always_open() -> str:
    listing: Any = document()
    listing["calendars"]["new-york"] = {"timezone": "UTC", "days": EVERY_DAY, "open": "00:00", "close": "24:00"}
    return json.dumps(listing)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Return a private directory with a short path."""
    with private_folder() as folder:
        yield folder


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
    return OmsConfig(
        instance=instance,
        socket_path=sockets / f"{instance}.sock",
        sidecar_secret=Secret(SECRET),
        database_dsn=migrated.dsn,
        token_key=Secret("k" * 40),
        risk_targets=(risk_server.target,),
        headers_file=headers_file(sockets, "svc-oms"),
    )


@contextlib.asynccontextmanager
async def running(config: OmsConfig, venues: tuple[Venue, ...] = ()) -> AsyncIterator[Caller]:
    """Run a whole replica in this process."""
    async with replica(config.socket_path, lambda stop: serve(config, venues, stop)) as (channel, stop):
        yield Caller(channel, stop)


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
