"""The real server of custody on a UNIX socket, over a real database, with the logs that it follows scripted by the test."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.errors import Reason
from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from kernel.logs import LineWriter
from kernel.paging import PageTokens
from kernel.server_policy import ServiceBinding
from kernel.status import from_status
from kernel.telemetry import Telemetry, TelemetryConfig
from svc_custody.main import bindings
from tests.integration.custody.world import TENANT, Custodian
from trademesh.custody.v1 import custody_service_pb2 as pb

SECRET = "a-secret-of-this-test-run"
FIRM = "firm"


def user(*roles: str, tenant: str = TENANT, accounts: Sequence[str] = ("ACC-1",), principal: str = "olga") -> User:
    """Return a user of an hour."""
    return User(principal, tenant, frozenset(roles), frozenset(accounts), int(time.time()) + 3600)


OPERATIONS, TRADER, COMPLIANCE = user("operations"), user("trader"), user("compliance", accounts=())
FIRM_OPERATIONS = user("operations", tenant=FIRM, accounts=())


class RefusedError(Exception):
    """A call that ended with a status: its code, our reason, the fields that it names, and its details."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        status: status_pb2.Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what a call has
        ours = None if status is None else from_status(status)
        self.code = error.code()
        self.reason = None if ours is None else ours.reason
        self.fields = [] if ours is None else [violation.field for violation in ours.field_violations]
        self.preconditions = [] if status is None else _preconditions(status)
        super().__init__(self.code, self.reason, self.fields, error.details())

    @property
    def said(self) -> tuple[str, Reason | None]:
        """Return code and reason."""
        return self.code.name, self.reason


def _preconditions(status: status_pb2.Status) -> list[tuple[str, str]]:
    failure = error_details_pb2.PreconditionFailure()
    found = [failure.violations[0] for detail in status.details if detail.Unpack(failure)]
    return [(violation.type, violation.subject) for violation in found]


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
        metadata = [(SECRET_HEADER, secret), (PEER_HEADER, xfcc(peer, trust_domain="trademesh.local", namespace="trading"))]
        if caller is not None:
            metadata.append((CLAIMS_HEADER, claims_header(caller)))
        rpc: Any = self._channel.unary_unary(f"/trademesh.custody.v1.CustodyService/{method}")
        call = rpc(request.SerializeToString() if raw is None else raw, metadata=metadata, timeout=10)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error) from error
        self.initial_metadata = dict(await call.initial_metadata())
        return getattr(pb, f"{method}Response").FromString(answer)


def server_of(services: Sequence[ServiceBinding], socket_path: Path, name: str = "svc-custody") -> GrpcServer:
    """Return a server of bindings."""

    async def ready() -> bool:
        return True

    return GrpcServer(
        ServerConfig(
            service=name,
            instance=f"{name}-0",
            socket_path=socket_path,
            sidecar_secret=SECRET,
            drain_seconds=0.0,
            grace_seconds=2.0,
        ),
        services,
        ready=ready,
        telemetry=Telemetry(TelemetryConfig(name, f"{name}-0")),
        log_writer=LineWriter(io.BytesIO()),
        now=time.time,
    )


@asynccontextmanager
async def serving(custodian: Custodian, folder: Path, *, sandbox: bool) -> AsyncIterator[Custody]:
    """Serve custody until the block ends."""
    tokens = PageTokens(Secret("k" * 32))
    services = bindings(custodian.stores, custodian.work, SystemClock(), custodian.ids, tokens, FIRM, sandbox=sandbox)
    server = server_of(services, folder / "grpc.sock")
    channel = grpc.aio.insecure_channel(f"unix:{folder / 'grpc.sock'}", options=(("grpc.use_local_subchannel_pool", 1),))
    try:
        await server.start()
        yield Custody(channel, custodian)
    finally:
        await channel.close()
        await server.stop()


def key() -> str:
    """Return a fresh request id."""
    return str(uuid.uuid4())
