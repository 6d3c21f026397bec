"""Replicas of the order service without their network, and a risk service that is a list of answers."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.rpc import error_details_pb2

from kernel.clock import SystemClock
from kernel.config import Dsn
from kernel.errors import TrademeshError
from kernel.events.postgres import PostgresEventStore
from kernel.identity import User
from kernel.ids import Uuid7Source
from kernel.lease import PostgresLeases
from kernel.postgres import Database
from kernel.server_context import CallContext
from svc_oms.clients import risk_unavailable
from svc_oms.codec.requests import OrderCommand
from svc_oms.domain import Action, decide
from svc_oms.domain.commands import RecordReport, RouteRequest, VenueReport
from svc_oms.servicer.control import OrderControlServicer
from svc_oms.servicer.creates import Created
from svc_oms.servicer.lanes import Lanes, lanes
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OrderReads
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import order_service_pb2
from trademesh.risk.v1 import limit_pb2, pre_trade_service_pb2

VENUE = "XSIM"
TENANT = "tenant-1"
USER = User("trader-1", TENANT, frozenset({"trader", "viewer"}), frozenset({"ACC-1", "ACC-2"}), 1 << 39)
STRANGER = User("trader-9", "tenant-9", frozenset({"trader", "viewer"}), frozenset({"ACC-1", "ACC-9"}), 1 << 39)

Result = pre_trade_service_pb2.OrderCheckResult
_numbers = itertools.count(1)


def approval(check: pre_trade_service_pb2.OrderCheck) -> Result:
    """Approve."""
    approved = pre_trade_service_pb2.OrderApproval(reserved_notional="1000", reference_price="100", venue=VENUE, tenant=TENANT)
    return Result(request_id=check.request_id, approval=approved)


def refusal(check: pre_trade_service_pb2.OrderCheck) -> Result:
    """Refuse for two limits."""
    breaches = [
        limit_pb2.LimitBreach(
            reason=error_reason_pb2.ERROR_REASON_MAX_QUANTITY_EXCEEDED, scope="account/ACC-1", limit="5", actual="10", text="too many"
        ),
        limit_pb2.LimitBreach(reason=error_reason_pb2.ERROR_REASON_MAX_NOTIONAL_EXCEEDED, scope="account/ACC-1", text="too much"),
    ]
    return Result(request_id=check.request_id, refusal=pre_trade_service_pb2.OrderRefusal(breaches=breaches, tenant=TENANT, venue=VENUE))


def off_tick(check: pre_trade_service_pb2.OrderCheck) -> Result:
    """Say that the price is off the tick."""
    violation = error_details_pb2.BadRequest.FieldViolation(field="limit_price", description="must be a multiple of 0.01", reason="tick")
    return Result(
        request_id=check.request_id,
        invalidity=pre_trade_service_pb2.OrderInvalidity(
            reason=error_reason_pb2.ERROR_REASON_PRICE_OFF_TICK,
            bad_request=error_details_pb2.BadRequest(field_violations=[violation]),
            text="off tick",
        ),
    )


def undecided(check: pre_trade_service_pb2.OrderCheck) -> Result:
    """Say that there is no fresh price."""
    return Result(
        request_id=check.request_id,
        undecided=pre_trade_service_pb2.OrderUndecided(reason=error_reason_pb2.ERROR_REASON_REFERENCE_PRICE_STALE, text="stale"),
    )


class FakeRisk:
    """Answers each check by `answer`, or not at all while `down`; `meanwhile` happens once, before it answers. Keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[pre_trade_service_pb2.OrderCheck], Result] = approval
        self.down = False
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None
        self.asked: list[pre_trade_service_pb2.OrderCheck] = []

    async def check(self, request: pre_trade_service_pb2.CheckOrdersRequest) -> Sequence[Result]:
        """See `PreTrade.check`."""
        orders = list(request.orders)
        self.asked.extend(orders)
        happen, self.meanwhile = self.meanwhile, None
        if happen is not None:
            await happen()
        if self.down:
            raise risk_unavailable("risk is down")
        return [self.answer(order) for order in orders]


class Replica:
    """One replica's stores and batches, on connections of its own."""

    def __init__(self, database: Database, log: PostgresEventStore, risk: FakeRisk) -> None:
        self.clock = SystemClock()
        self.ids = Uuid7Source(self.clock)
        self.database = database
        self.log = log
        self.store = OrderStore(database, log)
        self.reads = OrderReads(database)
        self.lanes: Lanes = lanes(self.store, self.reads, risk, self.clock)
        self.control = OrderControlServicer(self.store, self.reads, self.lanes.requests, self.clock, self.ids)

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: Dsn, risk: FakeRisk) -> AsyncIterator[Replica]:
        """Connect, and close at the end."""
        database = await Database.open(dsn)
        log = PostgresEventStore(database)
        replica = cls(database, log, risk)
        try:
            yield replica
        finally:
            await replica.lanes.close()
            await log.close()
            await database.close()

    def leases(self, *, ttl_seconds: float = 6.0) -> PostgresLeases:
        """Return leases of an owner of its own."""
        return PostgresLeases(self.database, self.clock, str(uuid.uuid4()), ttl_seconds=ttl_seconds, margin_seconds=ttl_seconds / 6)

    async def create(self, order: OrderCommand) -> Created:
        """Enter one order."""
        return await self.lanes.orders.submit("orders", order)

    async def create_all(self, orders: Sequence[OrderCommand]) -> list[Created | TrademeshError]:
        """Enter many orders as one batch."""
        return await self.lanes.orders.submit_many("orders", orders)

    async def venue(self, order_id: str, *reports: VenueReport) -> None:
        """Record what the venue says of an order, which is sent first if it was not."""
        async with self.store.unit() as unit:
            await unit.lock([order_id])
            unit.record(order_id, decide(unit.order(order_id), RouteRequest(Action.NEW, order_id, 1, self.clock.now())))
            for report in reports:
                unit.record(order_id, decide(unit.order(order_id), RecordReport(report, self.clock.now())))
            await unit.flush()

    async def cancel(self, order_id: str, user: User = USER, *, request_id: str | None = None, account_id: str = "ACC-1") -> Any:
        """Ask for a cancel, and return the response."""
        request = order_service_pb2.CancelOrderRequest(account_id=account_id, order_id=order_id, request_id=request_id or self.ids.new_id())
        return (await self.lanes.requests.submit(self.lanes.requests.cancel_change(request, user))).response


def order_request(**changes: Any) -> order_service_pb2.CreateOrderRequest:
    """Return a CreateOrder with a key of its own."""
    given: dict[str, Any] = {
        "account_id": "ACC-1",
        "client_order_id": f"c-{next(_numbers)}",
        "instrument_id": "AAPL",
        "side": 1,
        "type": 2,
        "time_in_force": 2,
        "quantity": "10",
        "limit_price": "100.5",
    }
    return order_service_pb2.CreateOrderRequest(**(given | changes))


def order(user: User = USER, **changes: Any) -> OrderCommand:
    """Return a command."""
    return OrderCommand(order_request(**changes), user)


def context(user: User | None = USER) -> CallContext:
    """Return the context of a call."""
    from kernel.identity import Identity

    return CallContext(Identity("edge", user, ""))
