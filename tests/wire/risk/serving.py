"""The real server of risk on a UNIX socket, over a real database, with a svc_oms that a test scripts."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.errors import Reason, UnavailableError
from kernel.identity import User
from kernel.paging import PageTokens
from svc_risk.clients.orders import ResolvedOrders
from svc_risk.domain.administration import KillSwitch
from svc_risk.main import Stores, bindings
from svc_risk.servicer.pre_trade import PreTradeServicer
from tests.wire.serving import RefusedError, headers, private_folder, user
from tests.wire.serving import serving as serving_bindings

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


TRADER, OFFICER, ADMIN = user("trader"), user("risk-officer", accounts=()), user("admin", accounts=())
FIRM_OFFICER, FIRM_ADMIN = user("risk-officer", tenant=FIRM, accounts=()), user("admin", tenant=FIRM, accounts=())


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
        path = f"/trademesh.{_MODULES[service]}.v1.{service}/{name}"
        method_call: Any = self._channel.unary_unary(path)
        call = method_call(request.SerializeToString() if raw is None else raw, metadata=headers(caller, peer), timeout=10)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error) from error
        self.initial_metadata = dict(await call.initial_metadata())
        return response.FromString(answer)


def _response_type(request: Message, name: str) -> type[Message]:
    module = importlib.import_module(type(request).__module__)
    found: type[Message] = getattr(module, f"{name}Response")
    return found


@asynccontextmanager
async def serving(stores: Stores) -> AsyncIterator[Risk]:
    """Serve risk until the block ends."""
    orders = ScriptedOrders()
    pre_trade = PreTradeServicer(stores.checks, SystemClock())
    services = bindings(stores, orders, pre_trade, PageTokens(Secret("k" * 32)), FIRM)
    with private_folder() as folder:
        try:
            async with serving_bindings("svc-risk", folder / "grpc.sock", services) as channel:
                yield Risk(channel, orders, stores)
        finally:
            await pre_trade.close()
