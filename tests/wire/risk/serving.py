"""The real server of risk on a UNIX socket, over a real database, with a svc_oms that a test scripts."""

from __future__ import annotations

import asyncio
import importlib
import io
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from kernel.logs import LineWriter
from kernel.paging import PageTokens
from kernel.status import from_status
from kernel.telemetry import Telemetry, TelemetryConfig
from svc_risk.clients.orders import ResolvedOrders
from svc_risk.domain.administration import KillSwitch
from svc_risk.main import Stores, bindings
from svc_risk.servicer.pre_trade import PreTradeServicer

SECRET = "a-secret-of-this-test-run"
FIRM = "firm"
_MODULES = {"PreTradeService": "risk", "RiskService": "risk", "ReferenceDataService": "risk", "EventLogService": "type"}


class ScriptedOrders:
    """svc_oms as risk tells it of kill switches."""

    def __init__(self) -> None:
        self.reachable = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.told: list[tuple[str, str, int]] = []

    async def resolve(self, orders: Sequence[tuple[str, str]]) -> ResolvedOrders:
        raise AssertionError("no orphans here")

    async def apply(self, switches: Sequence[KillSwitch]) -> None:
        if not self.reachable:
            raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "svc_oms is away")
        self.told += [(switch.scope_id, switch.status.name, switch.version) for switch in switches]
        await self.answers.wait()


def user(*roles: str, tenant: str = "north", accounts: Sequence[str] = ("ACC-1",), principal: str = "ada") -> User:
    """Return a user of an hour."""
    return User(principal, tenant, frozenset(roles), frozenset(accounts), int(time.time()) + 3600)


TRADER, OFFICER, ADMIN = user("trader"), user("risk-officer", accounts=()), user("admin", accounts=())
FIRM_OFFICER, FIRM_ADMIN = user("risk-officer", tenant=FIRM, accounts=()), user("admin", tenant=FIRM, accounts=())


class RefusedError(Exception):
    """A call that ended with a status: its code, our reason, and the fields that it names."""

    def __init__(self, code: grpc.StatusCode, error: TrademeshError | None) -> None:
        super().__init__(code, error)
        self.code = code
        self.reason = None if error is None else error.reason
        self.fields = [] if error is None else [violation.field for violation in error.field_violations]


class Risk:
    """A client of a running server."""

    def __init__(self, channel: grpc.aio.Channel, orders: ScriptedOrders, stores: Stores) -> None:
        self._channel = channel
        self.orders = orders
        self.stores = stores
        self.initial_metadata: dict[str, Any] = {}

    async def call(self, method: str, request: Message, caller: User | None = None, *, peer: str = "edge", raw: bytes | None = None) -> Any:
        """Call `Service/Method`; raise `RefusedError` for whatever is not OK."""
        service, _, name = method.partition("/")
        response = _response_type(request, name)
        metadata = [(SECRET_HEADER, SECRET), (PEER_HEADER, xfcc(peer, trust_domain="trademesh.local", namespace="trading"))]
        if caller is not None:
            metadata.append((CLAIMS_HEADER, claims_header(caller)))
        path = f"/trademesh.{_MODULES[service]}.v1.{service}/{name}"
        method_call: Any = self._channel.unary_unary(path)
        call = method_call(request.SerializeToString() if raw is None else raw, metadata=metadata, timeout=10)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error.code(), _domain_error(error)) from error
        self.initial_metadata = dict(await call.initial_metadata())
        return response.FromString(answer)


def _domain_error(error: grpc.aio.AioRpcError) -> TrademeshError | None:
    status: status_pb2.Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what a call has
    return None if status is None else from_status(status)


def _response_type(request: Message, name: str) -> type[Message]:
    module = importlib.import_module(type(request).__module__)
    found: type[Message] = getattr(module, f"{name}Response")
    return found


@asynccontextmanager
async def serving(stores: Stores) -> AsyncIterator[Risk]:
    """Serve risk until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="tmr-", dir="/tmp"))
    clock, orders = SystemClock(), ScriptedOrders()
    pre_trade = PreTradeServicer(stores.checks, clock)

    async def ready() -> bool:
        return True

    server = GrpcServer(
        ServerConfig(
            service="svc-risk",
            instance="svc_risk-0",
            socket_path=folder / "grpc.sock",
            sidecar_secret=SECRET,
            drain_seconds=0.0,
            grace_seconds=2.0,
        ),
        bindings(stores, orders, pre_trade, PageTokens(Secret("k" * 32)), FIRM),
        ready=ready,
        telemetry=Telemetry(TelemetryConfig("svc-risk", "svc_risk-0")),
        log_writer=LineWriter(io.BytesIO()),
        now=time.time,
    )
    channel = grpc.aio.insecure_channel(f"unix:{folder / 'grpc.sock'}", options=(("grpc.use_local_subchannel_pool", 1),))
    try:
        await server.start()
        yield Risk(channel, orders, stores)
    finally:
        await channel.close()
        await server.stop()
        await pre_trade.close()
        shutil.rmtree(folder)


def key() -> str:
    """Return a fresh request id."""
    return str(uuid.uuid4())
