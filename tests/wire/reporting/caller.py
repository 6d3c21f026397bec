"""A client of reporting that plays its sidecar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import grpc
from google.longrunning import operations_proto_pb2 as operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kernel.errors import TrademeshError
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from kernel.status import DETAILS_KEY, from_status
from trademesh.reporting.v1.reporting_service_pb2_grpc import ReportingServiceStub
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub

SECRET = "s" * 32


def user(*roles: str, principal: str = "carol", tenant: str = "north", accounts: Sequence[str] = ("ACC-1", "ACC-2")) -> User:
    """Return a user of an hour."""
    return User(principal, tenant, frozenset(roles), frozenset(accounts), int(time.time()) + 3_600)


COMPLIANCE = user("compliance")


def headers(caller: User | None = COMPLIANCE, peer: str = "edge") -> list[tuple[str, str]]:
    """Return what the sidecar attaches for a user that came through a peer."""
    attached = [(SECRET_HEADER, SECRET), (PEER_HEADER, xfcc(peer, trust_domain="trademesh.local", namespace="trading"))]
    return attached if caller is None else [*attached, (CLAIMS_HEADER, claims_header(caller))]


def refusal(error: grpc.aio.AioRpcError) -> TrademeshError:
    """Return the error that a call ended with.

    Raises:
        AssertionError: it carries none of ours.
    """
    raw = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    assert isinstance(raw, bytes), f"no details: {error}"
    found = from_status(status_pb2.Status.FromString(raw))
    assert found is not None
    return found


class Caller:
    """Stubs of one replica."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.reports: Any = ReportingServiceStub(channel)
        self.operations: Any = OperationsStub(channel)  # type: ignore[no-untyped-call]  # Google's code has no types
        self.log: Any = EventLogServiceStub(channel)

    async def wait_until_serving(self) -> None:
        """Return once health says SERVING; bound it with a timeout."""
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        async for answer in health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return

    async def done(self, name: str, caller: User = COMPLIANCE) -> operations_pb2.Operation:
        """Wait for an operation until it is done, by deadline."""
        deadline = time.monotonic() + 20
        while True:
            request = operations_pb2.WaitOperationRequest(name=name)
            request.timeout.FromSeconds(5)
            operation: operations_pb2.Operation = await self.operations.WaitOperation(request, metadata=headers(caller), timeout=10)
            if operation.done:
                return operation
            assert time.monotonic() < deadline, "the operation is never done"
