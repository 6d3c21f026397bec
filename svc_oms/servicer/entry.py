"""Order entry: one order, many orders, and the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kernel.batcher import Batcher
from kernel.errors import FieldViolation, InvalidArgumentError, Reason, TrademeshError
from kernel.event_records import to_position
from kernel.identity import User
from kernel.ports import LOG_START, Clock, LogPosition
from kernel.server_context import CallContext
from kernel.status import to_status
from kernel.validation import check
from svc_oms.codec.requests import NewOrder, new_order
from svc_oms.servicer.changes import Change, Changed
from svc_oms.servicer.creates import Created
from svc_oms.servicer.entry_stream import EntryStream
from svc_oms.servicer.requests import OrderRequests
from trademesh.oms.v1 import order_service_pb2

ORDERS_LANE = "orders"
CONTROL_LANE = "control"
BATCH_ORDERS_MAX = 500

REPLAYED_HEADER = "idempotency-replayed"

Orders = Batcher[NewOrder, Created]
Changes = Batcher[Change, Changed]


class OrderDesk:
    """CreateOrder, BatchCreateOrders and EnterOrders."""

    def __init__(self, orders: Orders, requests: OrderRequests, clock: Clock) -> None:
        self._orders = orders
        self._requests = requests
        self._clock = clock

    async def create_order(
        self, request: order_service_pb2.CreateOrderRequest, context: CallContext
    ) -> order_service_pb2.CreateOrderResponse:
        """Serve CreateOrder."""
        order = self._admitted(request, context.user)
        created = await self._orders.submit(ORDERS_LANE, order, deadline=deadline_of(context, self._clock))
        if created.replayed:
            context.set_initial_metadata(REPLAYED_HEADER, "true")
        return order_service_pb2.CreateOrderResponse(order=created.order, log_position=to_position(created.position))

    async def batch_create_orders(
        self, request: order_service_pb2.BatchCreateOrdersRequest, context: CallContext
    ) -> order_service_pb2.BatchCreateOrdersResponse:
        """Serve BatchCreateOrders: each order stands for itself, and one that is malformed fails alone."""
        count = len(request.requests)
        if not 1 <= count <= BATCH_ORDERS_MAX:
            raise _bad_count(count)
        context.batch_size = count
        admitted: list[NewOrder] = []
        results: list[order_service_pb2.BatchCreateOrdersResult | None] = []
        for item in request.requests:
            try:
                check(item)
                admitted.append(self._admitted(item, context.user))
                results.append(None)
            except TrademeshError as error:
                results.append(order_service_pb2.BatchCreateOrdersResult(error=to_status(error)))
        position = LOG_START
        if admitted:
            outcomes = iter(await self._orders.submit_many(ORDERS_LANE, admitted, deadline=deadline_of(context, self._clock)))
            for index, result in enumerate(results):
                if result is None:
                    results[index], reached = _result(next(outcomes))
                    position = max(position, reached)
        return order_service_pb2.BatchCreateOrdersResponse(
            results=[result for result in results if result is not None], log_position=to_position(position)
        )

    async def enter_orders(
        self, requests: AsyncIterator[Any], context: CallContext
    ) -> AsyncIterator[order_service_pb2.EnterOrdersResponse]:
        """Serve EnterOrders."""
        stream = EntryStream(self._orders, self._requests, self._admitted, context, self._clock)
        async for response in stream.serve(requests):
            yield response

    def _admitted(self, request: order_service_pb2.CreateOrderRequest, user: User) -> NewOrder:
        user.require_account(request.account_id)
        return new_order(request, user)


def deadline_of(context: CallContext, clock: Clock) -> float | None:
    """Return the call's deadline on the injected clock, None where it has none."""
    remaining = context.remaining_seconds()
    return None if remaining == float("inf") else clock.monotonic() + remaining


def _result(outcome: Created | TrademeshError) -> tuple[order_service_pb2.BatchCreateOrdersResult, LogPosition]:
    if isinstance(outcome, TrademeshError):
        return order_service_pb2.BatchCreateOrdersResult(error=to_status(outcome)), LOG_START
    return order_service_pb2.BatchCreateOrdersResult(order=outcome.order), outcome.position


def _bad_count(count: int) -> InvalidArgumentError:
    text = f"must be 1 to {BATCH_ORDERS_MAX} orders, not {count}"
    rule = "repeated.min_items" if count == 0 else "repeated.max_items"
    return InvalidArgumentError(Reason.FIELD_INVALID, f"requests: {text}", field_violations=[FieldViolation("requests", rule, text)])
