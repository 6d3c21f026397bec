"""The real server of custody on a UNIX socket, over a real database, with the logs that it follows scripted by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.identity import User
from kernel.paging import PageTokens
from svc_custody.main import bindings
from tests.integration.custody.world import Custodian
from tests.wire.serving import SECRET, RefusedError, headers, user
from tests.wire.serving import serving as serving_bindings
from trademesh.custody.v1 import custody_service_pb2 as pb

FIRM = "firm"


OPERATIONS, TRADER, COMPLIANCE = user("operations"), user("trader"), user("compliance", accounts=())
FIRM_OPERATIONS = user("operations", tenant=FIRM, accounts=())


class Custody:
    """A client of a running server."""

    def __init__(self, channel: grpc.aio.Channel, custodian: Custodian) -> None:
        self._channel = channel
        self.custodian = custodian
        self.initial_metadata: dict[str, Any] = {}

    async def call(
        self,
        method: str,
        request: Message,
        caller: User | None = OPERATIONS,
        *,
        peer: str = "edge",
        raw: bytes | None = None,
        secret: str = SECRET,
    ) -> Any:
        """Call an RPC of CustodyService; raise `RefusedError` for whatever is not OK."""
        rpc: Any = self._channel.unary_unary(f"/trademesh.custody.v1.CustodyService/{method}")
        call = rpc(request.SerializeToString() if raw is None else raw, metadata=headers(caller, peer, secret), timeout=10)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error) from error
        self.initial_metadata = dict(await call.initial_metadata())
        return getattr(pb, f"{method}Response").FromString(answer)


@asynccontextmanager
async def serving(custodian: Custodian, folder: Path, *, sandbox: bool) -> AsyncIterator[Custody]:
    """Serve custody until the block ends."""
    tokens = PageTokens(Secret("k" * 32))
    services = bindings(custodian.stores, custodian.work, SystemClock(), custodian.ids, tokens, FIRM, sandbox=sandbox)
    async with serving_bindings("svc-custody", folder / "grpc.sock", services) as channel:
        yield Custody(channel, custodian)
