"""OrderService, put together from its parts: entry, requests, queries and the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from google.protobuf.message import Message

from kernel.ports import Clock
from kernel.server_context import CallContext
from kernel.streams import EnvelopeStream, ResumeTokens, heartbeat_seconds
from svc_oms.servicer.changes import Changed
from svc_oms.servicer.creates import foreign_account
from svc_oms.servicer.entry import OrderDesk, deadline_of
from svc_oms.servicer.feed import OrderFeed, OrderSource
from svc_oms.servicer.queries import OrderQueries
from svc_oms.servicer.requests import OrderRequests
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OrderReads
from trademesh.oms.v1 import order_service_pb2

R = TypeVar("R", bound=Message)


class OrderServicer:
    """OrderService. The desk and the queries serve their RPCs themselves; requests and the stream are served here."""

    def __init__(
        self,
        desk: OrderDesk,
        requests: OrderRequests,
        queries: OrderQueries,
        feed: OrderFeed,
        store: OrderStore,
        reads: OrderReads,
        resume_tokens: ResumeTokens,
        clock: Clock,
    ) -> None:
        self.CreateOrder = desk.create_order
        self.BatchCreateOrders = desk.batch_create_orders
        self.EnterOrders = desk.enter_orders
        self.GetOrder = queries.get_order
        self.LookupOrder = queries.lookup_order
        self.ListOrders = queries.list_orders
        self.ListExecutions = queries.list_executions
        self._requests = requests
        self._feed = feed
        self._store = store
        self._reads = reads
        self._resume_tokens = resume_tokens
        self._clock = clock

    async def CancelOrder(  # noqa: N802 (the contract's name)
        self, request: order_service_pb2.CancelOrderRequest, context: CallContext
    ) -> order_service_pb2.CancelOrderResponse:
        """Ask for a cancel; see the contract."""
        change = self._requests.cancel_change(request, context.user)
        changed = await self._requests.submit(change, deadline=deadline_of(context, self._clock))
        return _answer(order_service_pb2.CancelOrderResponse, changed, context)

    async def ReplaceOrder(  # noqa: N802 (the contract's name)
        self, request: order_service_pb2.ReplaceOrderRequest, context: CallContext
    ) -> order_service_pb2.ReplaceOrderResponse:
        """Ask for new terms; see the contract."""
        changed = await self._requests.replace(request, context.user, deadline=deadline_of(context, self._clock))
        return _answer(order_service_pb2.ReplaceOrderResponse, changed, context)

    async def CancelAllOrders(  # noqa: N802 (the contract's name)
        self, request: order_service_pb2.CancelAllOrdersRequest, context: CallContext
    ) -> order_service_pb2.CancelAllOrdersResponse:
        """Ask for many cancels; see the contract."""
        changed = await self._requests.cancel_all(request, context.user)
        return _answer(order_service_pb2.CancelAllOrdersResponse, changed, context)

    async def StreamOrderEvents(  # noqa: N802 (the contract's name)
        self, request: order_service_pb2.StreamOrderEventsRequest, context: CallContext
    ) -> AsyncIterator[order_service_pb2.StreamOrderEventsResponse]:
        """Stream what happens to an account's orders; see the contract."""
        user = context.user
        user.require_account(request.account_id)
        tenant = await self._reads.tenant_of(request.account_id)
        if tenant is not None and tenant != user.tenant:
            raise foreign_account(request.account_id)
        source = OrderSource(self._feed, self._reads, self._store.log, request.account_id, user.tenant, request.instrument_id)
        stream = EnvelopeStream(
            order_service_pb2.StreamOrderEventsResponse,
            source,
            context,
            self._resume_tokens,
            self._clock,
            filters=(request.account_id, request.instrument_id),
            heartbeat_seconds=heartbeat_seconds(request.heartbeat_interval),
        )
        async with aclosing(stream.run(request.resume_token)) as messages:
            async for message in messages:
                yield message


def _answer(response_type: type[R], changed: Changed, context: CallContext) -> R:
    if changed.replayed:
        context.mark_replayed()
    assert isinstance(changed.response, response_type)
    return changed.response
