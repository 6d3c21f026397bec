"""A client of reporting that plays its sidecar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import grpc
from google.longrunning import operations_proto_pb2 as operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.rpc import status_pb2

from kernel.errors import TrademeshError
from kernel.identity import User
from kernel.status import DETAILS_KEY, from_status
from tests.wire.serving import headers as headers_of
from tests.wire.serving import user as user_of
from trademesh.reporting.v1.reporting_service_pb2_grpc import ReportingServiceStub
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub


def user(*roles: str, principal: str = "carol", tenant: str = "north", accounts: Sequence[str] = ("ACC-1", "ACC-2")) -> User:
    """Return a user of an hour."""
    return user_of(*roles, principal=principal, tenant=tenant, accounts=accounts)


COMPLIANCE = user("compliance")


def headers(caller: User | None = COMPLIANCE, peer: str = "edge") -> list[tuple[str, str]]:
    """Return what the sidecar attaches for a user that came through a peer."""
    return headers_of(caller, peer)


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
