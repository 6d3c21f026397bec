"""What the runners meet: a mesh, roads of all kinds to its edge, and users of its issuer."""

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
from kernel.clock import SystemClock
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller
from mesh.local.outside import door
from mesh.local.parts import ISSUER
from mesh.local.seed_data import OTHER_TENANT, TENANT
from sandbox.idp.clients import Client
from sandbox.idp.keys import Clock, KeySet, Schedule
from sandbox.idp.tokens import Issuer as Signer
from tests.clients.relay import Relay
from tests.clients.standins import AbsentIssuer, Credentials, ForgetfulEdge
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
WAITING_USERS = ("patient", "watcher")
"""Traders whose issuer is away at first."""
_PAGE_INSTRUMENTS = {"go": "NVDA", "java": "TSLA", "typescript": "SPY"}
_PAST_SECONDS = 3_600
_TOKEN_SECONDS = 900
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
        self._credentials = Credentials.make(self._entrance.authority_file, folder)
        self._users = self._registered()
        self._users["expired"] = {"token": self._token("trader", _Past())}

    def rows(self, language: str) -> list[dict[str, Any]]:
        """Return the table for one more run of a language."""
        return scenarios(Facts(f"{language}-{secrets.token_hex(4)}", self._resting_price(), _PAGE_INSTRUMENTS[language]))

    async def conformance(self, toolchain: Toolchain, rows: list[dict[str, Any]]) -> Outcome:
        """Play rows with a language's runner."""
        edge, issuer, held = self._entrance.edge, self._entrance.issuer, self._credentials
        task = self._folder / f"{toolchain.name}.json"
        async with (
            Relay(edge, answer_delay_seconds=ANSWER_DELAY_SECONDS) as slow,
            Relay(edge, life_seconds=LIFE_SECONDS) as short,
            ForgetfulEdge(edge, held, later_token=self._token("trader", _Past())) as lapsed,
            ForgetfulEdge(edge, held, later_token=self._token("stranger", SystemClock())) as foreign,
            AbsentIssuer(issuer, token=self._token("trader", SystemClock())) as absent,
        ):
            roads: dict[str, Relay | ForgetfulEdge] = {"slow": slow, "short": short, "lapsed": lapsed, "foreign": foreign}
            waiting = {name: {"client_id": name, "client_secret": "any", "issuer": absent.url} for name in WAITING_USERS}
            wanted = {
                "doors": {"edge": edge} | {name: road.address for name, road in roads.items()},
                "authority_file": str(held.trusted),
                "users": self._users | waiting,
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
            credentials = issuer.register(self._entrance.registration_token, metadata)
            users[name] = {**asdict(credentials), "issuer": self._entrance.issuer}
        return users

    def _token(self, name: str, clock: Clock) -> str:
        """A token of the issuer's own making and key; one from the past has ended long ago, so that its end alone is wrong with it."""
        who = USERS[name]
        keys = KeySet(self._mesh.layout.data(ISSUER) / "keys.json", Schedule(86_400, 900, 300), clock)
        signer = Signer(keys, clock, url=self._entrance.issuer, audience="trademesh", token_seconds=_TOKEN_SECONDS)
        return signer.issue(Client(self._users[name]["client_id"], name, who.tenant, who.roles, who.accounts, ""), who.roles)

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
        talking = asyncio.ensure_future(process.communicate())
        if not (await asyncio.wait({talking}, timeout=RUN_SECONDS_MAX))[0]:
            # What it has reported so far counts.
            process.kill()
        output, errors = await talking
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
