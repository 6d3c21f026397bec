"""Reads: one order, pages of orders, pages of executions. Every one is as new as the database, and at least as new as `min_position`."""

from __future__ import annotations

from kernel.event_records import from_position
from kernel.identity import User
from kernel.ids import order_id as derived_order_id
from kernel.paging import PageTokens, page_size
from kernel.server_context import CallContext
from svc_oms.servicer.changes import no_such_order
from svc_oms.servicer.creates import foreign_account
from svc_oms.store.reads import OrderReads, PageRow
from trademesh.oms.v1 import execution_pb2, order_pb2, order_service_pb2
from trademesh.type.v1 import log_position_pb2

PAGE_SIZE_MAX = 500
_NEWEST = 2**63 - 1


class OrderQueries:
    """GetOrder, LookupOrder, ListOrders and ListExecutions."""

    def __init__(self, reads: OrderReads, tokens: PageTokens) -> None:
        self._reads = reads
        self._tokens = tokens

    async def get_order(self, request: order_service_pb2.GetOrderRequest, context: CallContext) -> order_service_pb2.GetOrderResponse:
        """Serve GetOrder."""
        context.user.require_account(request.account_id)
        if request.HasField("min_position"):
            await self._wait_for(request.min_position)
        return order_service_pb2.GetOrderResponse(order=await self._order(request.account_id, request.order_id.lower(), context.user))

    async def lookup_order(
        self, request: order_service_pb2.LookupOrderRequest, context: CallContext
    ) -> order_service_pb2.LookupOrderResponse:
        """Serve LookupOrder: the order's id follows from the account and the client's key."""
        context.user.require_account(request.account_id)
        order_id = derived_order_id(request.account_id, request.client_order_id)
        return order_service_pb2.LookupOrderResponse(order=await self._order(request.account_id, order_id, context.user))

    async def list_orders(self, request: order_service_pb2.ListOrdersRequest, context: CallContext) -> order_service_pb2.ListOrdersResponse:
        """Serve ListOrders."""
        await self._enter(request.account_id, context.user)
        states = sorted(set(request.states))
        filters = (request.account_id, request.instrument_id, ",".join(map(str, states)), str(request.open_only))
        before = self._before("orders", filters, request.page_token)
        if request.HasField("min_position"):
            await self._wait_for(request.min_position)
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        rows = await self._reads.page(
            request.account_id,
            before=before,
            instrument_id=request.instrument_id,
            states=states,
            open_only=request.open_only,
            limit=size + 1,
        )
        return order_service_pb2.ListOrdersResponse(
            orders=[order_pb2.Order.FromString(row.message) for row in rows[:size]],
            next_page_token=self._next("orders", filters, rows, size),
        )

    async def list_executions(
        self, request: order_service_pb2.ListExecutionsRequest, context: CallContext
    ) -> order_service_pb2.ListExecutionsResponse:
        """Serve ListExecutions."""
        await self._enter(request.account_id, context.user)
        order_id = request.order_id.lower()
        filters = (request.account_id, order_id, request.instrument_id)
        before = self._before("executions", filters, request.page_token)
        if request.HasField("min_position"):
            await self._wait_for(request.min_position)
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        rows = await self._reads.executions(
            request.account_id, before=before, instrument_id=request.instrument_id, order_id=order_id, limit=size + 1
        )
        return order_service_pb2.ListExecutionsResponse(
            executions=[execution_pb2.Execution.FromString(row.message) for row in rows[:size]],
            next_page_token=self._next("executions", filters, rows, size),
        )

    async def _order(self, account_id: str, order_id: str, user: User) -> order_pb2.Order:
        row = await self._reads.order(order_id)
        if row is None or row.account_id != account_id:
            raise no_such_order(order_id)
        # An abandoned order has no tenant: nobody ever proved whose it would have been.
        if row.tenant and row.tenant != user.tenant:
            raise foreign_account(account_id)
        return order_pb2.Order.FromString(row.snapshot)

    async def _enter(self, account_id: str, user: User) -> None:
        user.require_account(account_id)
        tenant = await self._reads.tenant_of(account_id)
        if tenant is not None and tenant != user.tenant:
            raise foreign_account(account_id)

    async def _wait_for(self, position: log_position_pb2.LogPosition) -> None:
        await self._reads.wait_for(from_position(position))

    def _before(self, name: str, filters: tuple[str, ...], token: str) -> int:
        key = self._tokens.read(name, filters, token)
        return _NEWEST if key is None else int(key)

    def _next(self, name: str, filters: tuple[str, ...], rows: list[PageRow], size: int) -> str:
        return self._tokens.issue(name, filters, str(rows[size - 1].sequence)) if len(rows) > size else ""
