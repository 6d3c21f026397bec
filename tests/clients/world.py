"""What the runners meet: a mesh, three roads to its edge, and four users of its issuer."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

from cli.tokens import Issuer
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller
from mesh.local.outside import door
from mesh.local.parts import ISSUER
from mesh.local.seed_data import OTHER_TENANT, TENANT
from sandbox.idp.clients import Client
from sandbox.idp.keys import KeySet, Schedule
from sandbox.idp.tokens import Issuer as Signer
from tests.clients.relay import Relay
from tests.clients.table import Facts, for_runner, scenarios
from tests.clients.toolchains import Toolchain
from trademesh.marketdata.v1 import market_data_service_pb2

USERS = {
    "trader": Caller("desk", TENANT, ("trader", "viewer"), ("ACC-1",)),
    "viewer": Caller("auditor", TENANT, ("viewer",), ("ACC-1",)),
    "stranger": Caller("stranger", OTHER_TENANT, ("trader", "viewer"), ("ACC-1",)),
}
ANSWER_DELAY_SECONDS = 1.0
"""Of the slow road: longer than the table's deadline on it, which in turn is longer than an order takes."""
LIFE_SECONDS = 1.5
"""Of a connection on the short road."""
RUN_SECONDS_MAX = 540.0
_PAGE_INSTRUMENTS = {"go": "NVDA", "java": "TSLA", "typescript": "SPY"}
_PAST_SECONDS = 3_600
_RESTS_AT = Decimal("0.98")


@dataclass(frozen=True)
class Outcome:
    """What became of one program.

    Attributes:
        code: its exit code.
        output: its standard output.
        errors: its standard error.
    """

    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class _Past:
    """The wall clock of an hour ago."""

    def now_ns(self) -> int:
        return time.time_ns() - _PAST_SECONDS * 1_000_000_000


class World:
    """A mesh as seen from outside.

    Args:
        mesh: a running one, with its issuer.
        folder: for the files that tell a runner what to do; they hold secrets.
    """

    def __init__(self, mesh: LocalMesh, folder: Path) -> None:
        self._mesh = mesh
        self._folder = folder
        self._entrance = door(mesh.layout)
        self._users = self._registered()

    def rows(self, language: str) -> list[dict[str, Any]]:
        """Return the table for one more run of a language."""
        return scenarios(Facts(f"{language}-{secrets.token_hex(4)}", self._resting_price(), _PAGE_INSTRUMENTS[language]))

    async def conformance(self, toolchain: Toolchain, rows: list[dict[str, Any]]) -> Outcome:
        """Play rows with a language's runner."""
        edge = self._entrance.edge
        task = self._folder / f"{toolchain.name}.json"
        async with Relay(edge, answer_delay_seconds=ANSWER_DELAY_SECONDS) as slow, Relay(edge, life_seconds=LIFE_SECONDS) as short:
            wanted = {
                "doors": {"edge": edge, "slow": slow.address, "short": short.address},
                "authority_file": str(self._entrance.authority_file),
                "issuer": self._entrance.issuer,
                "users": self._users,
                "scenarios": for_runner(rows),
            }
            task.touch(mode=0o600)
            task.write_text(json.dumps(wanted))
            return await _run(toolchain, (*toolchain.conformance, str(task)), {})

    async def example(self, toolchain: Toolchain) -> Outcome:
        """Run a language's example as the trader."""
        trader = self._users["trader"]
        environment = {
            "TRADEMESH_ENDPOINT": self._entrance.edge,
            "TRADEMESH_CA_FILE": str(self._entrance.authority_file),
            "TRADEMESH_ISSUER": self._entrance.issuer,
            "TRADEMESH_CLIENT_ID": trader["client_id"],
            "TRADEMESH_CLIENT_SECRET": trader["client_secret"],
            "TRADEMESH_ACCOUNT": "ACC-1",
        }
        return await _run(toolchain, toolchain.example, environment)

    def _registered(self) -> dict[str, dict[str, str]]:
        issuer = Issuer(self._entrance.issuer)
        users: dict[str, dict[str, str]] = {}
        for name, caller in USERS.items():
            metadata = {"client_name": name, "tenant": caller.tenant, "roles": list(caller.roles), "accounts": list(caller.accounts)}
            users[name] = asdict(issuer.register(self._entrance.registration_token, metadata))
        return {**users, "expired": {"token": self._expired(users["trader"]["client_id"])}}

    def _expired(self, client_id: str) -> str:
        """A token of the issuer's own making and key that ended long ago, so that its end alone is wrong with it."""
        past, trader = _Past(), USERS["trader"]
        keys = KeySet(self._mesh.layout.data(ISSUER) / "keys.json", Schedule(86_400, 900, 300), past)
        signer = Signer(keys, past, url=self._entrance.issuer, audience="trademesh", token_seconds=300)
        return signer.issue(Client(client_id, "trader", trader.tenant, trader.roles, trader.accounts, ""), trader.roles)

    def _resting_price(self) -> str:
        """A price for AAPL below what anybody offers, and within the collar."""
        request = market_data_service_pb2.BatchGetQuotesRequest(instrument_ids=["AAPL"])
        with self._mesh.operator(USERS["trader"]) as operator:
            path = "/trademesh.marketdata.v1.MarketDataService/BatchGetQuotes"
            answer = operator.call("svc_marketdata", path, request, market_data_service_pb2.BatchGetQuotesResponse, repeatable=True)
        (quote,) = answer.message.quotes
        return str((Decimal(quote.bid_price) * _RESTS_AT).quantize(Decimal("0.01"), rounding=ROUND_DOWN).normalize())


async def _run(toolchain: Toolchain, command: tuple[str, ...], environment: dict[str, str]) -> Outcome:
    async with _process(toolchain, command, environment) as process:
        output, errors = await asyncio.wait_for(process.communicate(), RUN_SECONDS_MAX)
        assert process.returncode is not None
        return Outcome(process.returncode, output.decode(), errors.decode())


@asynccontextmanager
async def _process(
    toolchain: Toolchain, command: tuple[str, ...], environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=toolchain.folder,
        env={**toolchain.surroundings(), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
