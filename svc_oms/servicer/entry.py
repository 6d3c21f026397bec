"""Order entry: one order, many orders, and the stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from kernel.batcher import Batcher
from kernel.errors import FieldViolation, InvalidArgumentError, Reason
from kernel.ports import LOG_START, Clock
from kernel.server_context import CallContext
from kernel.status import to_status
from kernel.wire import Serialized
from svc_oms.codec.answers import batch_response, create_response
from svc_oms.codec.requests import OrderCommand
from svc_oms.servicer.changes import Change, Changed
from svc_oms.servicer.creates import Created
from svc_oms.servicer.entry_stream import EntryStream, Response
from svc_oms.servicer.requests import OrderRequests
from trademesh.oms.v1 import order_service_pb2

ORDERS_LANE = "orders"
CONTROL_LANE = "control"
BATCH_ORDERS_MAX = 500


Orders = Batcher[OrderCommand, Created]
Changes = Batcher[Change, Changed]


class OrderDesk:
    """CreateOrder, BatchCreateOrders and EnterOrders."""

    def __init__(self, orders: Orders, requests: OrderRequests, clock: Clock) -> None:
        self._orders = orders
        self._requests = requests
        self._clock = clock

    async def create_order(self, request: order_service_pb2.CreateOrderRequest, context: CallContext) -> Serialized:
        """Serve CreateOrder: a serialized `CreateOrderResponse`."""
        command = OrderCommand(request, context.user)
        created = await self._orders.submit(ORDERS_LANE, command, deadline=deadline_of(context, self._clock))
        if created.replayed:
            context.mark_replayed()
        return create_response(created.snapshot, created.position)

    async def batch_create_orders(self, request: order_service_pb2.BatchCreateOrdersRequest, context: CallContext) -> Serialized:
        """Serve BatchCreateOrders, with a serialized `BatchCreateOrdersResponse`: each order stands for itself, and one that is malformed
        fails alone.
        """
        count = len(request.requests)
        if not 1 <= count <= BATCH_ORDERS_MAX:
            raise _bad_count(count)
        context.batch_size = count
        user = context.user
        commands = [OrderCommand(item, user) for item in request.requests]
        outcomes = await self._orders.submit_many(ORDERS_LANE, commands, deadline=deadline_of(context, self._clock))
        position = max((outcome.position for outcome in outcomes if isinstance(outcome, Created)), default=LOG_START)
        return batch_response([outcome.snapshot if isinstance(outcome, Created) else to_status(outcome) for outcome in outcomes], position)

    def enter_orders(self, requests: AsyncIterator[Any], context: CallContext) -> AsyncGenerator[Response, None]:
        """Serve EnterOrders."""
        return EntryStream(self._orders, self._requests, context, self._clock).serve(requests)


def deadline_of(context: CallContext, clock: Clock) -> float | None:
    """Return the call's deadline on the injected clock, None where it has none."""
    remaining = context.remaining_seconds()
    return None if remaining == float("inf") else clock.monotonic() + remaining


def _bad_count(count: int) -> InvalidArgumentError:
    text = f"must be 1 to {BATCH_ORDERS_MAX} orders, not {count}"
    rule = "repeated.min_items" if count == 0 else "repeated.max_items"
    return InvalidArgumentError(Reason.FIELD_INVALID, f"requests: {text}", field_violations=[FieldViolation("requests", rule, text)])
