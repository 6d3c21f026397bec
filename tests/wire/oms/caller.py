"""A client of the order service that plays its sidecar."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from kernel.identity import User
from tests.integration.oms.world import USER
from tests.wire.serving import headers as headers_of
from trademesh.oms.v1 import order_service_pb2
from trademesh.oms.v1.order_control_service_pb2_grpc import OrderControlServiceStub
from trademesh.oms.v1.order_service_pb2_grpc import OrderServiceStub
from trademesh.type.v1.event_log_service_pb2_grpc import EventLogServiceStub


def headers(user: User | None = USER, peer: str = "edge") -> list[tuple[str, str]]:
    """Return what the sidecar attaches for a user that came through a peer."""
    return headers_of(user, peer)


def details(error: grpc.aio.AioRpcError) -> tuple[str, list[str]]:
    """Return an error's reason and the fields that it blames.

    Raises:
        AssertionError: it carries no ErrorInfo of ours.
    """
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert isinstance(raw, bytes), f"no details: {error}"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(raw).details:
        for target in (info, bad):
            if detail.TypeName() == target.DESCRIPTOR.full_name:
                detail.Unpack(target)
    assert info.domain == "trademesh"
    return info.reason, [violation.field for violation in bad.field_violations]


class Caller:
    """Stubs of one order service, and the calls that tests make most."""

    def __init__(self, channel: grpc.aio.Channel, stop: asyncio.Event) -> None:
        self.channel = channel
        self.stop = stop
        self.orders: Any = OrderServiceStub(channel)
        self.control: Any = OrderControlServiceStub(channel)
        self.log: Any = EventLogServiceStub(channel)

    async def create(self, request: order_service_pb2.CreateOrderRequest, user: User = USER) -> Any:
        """Place an order."""
        return await self.orders.CreateOrder(request, metadata=headers(user), timeout=10)

    async def cancel(self, order_id: str, request_id: str | None = None) -> Any:
        """Cancel an order."""
        request = order_service_pb2.CancelOrderRequest(account_id="ACC-1", order_id=order_id, request_id=request_id or str(uuid.uuid4()))
        return await self.orders.CancelOrder(request, metadata=headers(), timeout=10)

    async def raw(self, method: str, data: bytes, user: User | None = USER) -> bytes:
        """Send bytes as a request."""
        call: Any = self.channel.unary_unary(f"/trademesh.oms.v1.OrderService/{method}")
        answer: bytes = await call(data, metadata=headers(user), timeout=10)
        return answer
