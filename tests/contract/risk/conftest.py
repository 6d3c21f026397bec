"""Two replicas of risk's stores on one database: PostgreSQL, and the double that simulations run on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.identity import Identity, User
from kernel.ids import Uuid7Source
from kernel.paging import PageTokens
from kernel.ports import LOG_START, LogPosition
from kernel.postgres import Database
from kernel.server_context import CallContext
from svc_risk.clients.orders import ResolvedOrder, ResolvedOrders
from svc_risk.domain.administration import KillSwitch
from svc_risk.domain.reference_price import Quote
from svc_risk.domain.vocabulary import OrderState
from svc_risk.main import Stores, open_stores
from svc_risk.servicer.access import Access
from svc_risk.servicer.reference_data import ReferenceDataServicer
from svc_risk.servicer.risk import RiskServicer
from svc_risk.store import MIGRATIONS
from svc_risk.store.prices import PriceStore
from tests.contract.replicas import two_databases
from tests.fakes.postgres.risk_statements import risk_server
from tests.integration.risk.world import DEFAULT_LIMITS, TENANT, VENUE
from trademesh.risk.v1 import reference_data_pb2, reference_data_service_pb2, risk_service_pb2

OFFICER = User("olga", TENANT, frozenset({"admin", "risk-officer"}), frozenset(), 1 << 39)


class Orders:
    """svc_oms as it answers risk; by default it knows no order and gives up what it is asked for."""

    def __init__(self) -> None:
        self.states: dict[str, OrderState] = {}
        self.position = LOG_START
        self.told: list[KillSwitch] = []

    async def resolve(self, orders: Sequence[tuple[str, str]]) -> ResolvedOrders:
        """See `OrderControl.resolve`."""
        found = [ResolvedOrder(order_id, self.states.get(order_id, OrderState.ABANDONED)) for order_id, _ in orders]
        return ResolvedOrders(tuple(found), self.position)

    async def apply(self, switches: Sequence[KillSwitch]) -> None:
        """See `OrderControl.apply`."""
        self.told += switches

    async def folded(self) -> LogPosition:
        """Where the consumer of order events stands."""
        return LOG_START


class Replica:
    """One replica: its stores, and what administrators call."""

    def __init__(self, database: Database, orders: Orders) -> None:
        self.clock = SystemClock()
        self.ids = Uuid7Source(self.clock)
        self.orders = orders
        self.stores: Stores = open_stores(database, self.clock, self.ids.new_id())
        access, tokens = Access(TENANT), PageTokens(Secret("a key of this suite, and a long one"))
        self.risk = RiskServicer(self.stores.administration, self.stores.reads, access, tokens, orders, _Folded(orders))
        self.reference = ReferenceDataServicer(self.stores.administration, self.stores.reads, access, tokens)

    async def ask(self, rpc: Any, request: Any) -> Any:
        """Call as the officer, with a key of its own where the request takes one and has none."""
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            request.request_id = self.ids.new_id()
        return await rpc(request, CallContext(Identity("edge", OFFICER, "")))

    async def limit(self, scope: int, scope_id: str, limit_type: int, value: str) -> None:
        """Set a limit."""
        request = risk_service_pb2.UpdateLimitRequest(scope_id=scope_id, value=value, comment="a change")
        request.scope, request.type = scope, limit_type  # type: ignore[assignment]
        await self.ask(self.risk.UpdateLimit, request)

    async def quote(self, price: str, instruments: Sequence[str] = ("AAPL", "MSFT")) -> None:
        """Let the feed name a price."""
        store = PriceStore(self.stores.database, self.stores.leases, self.clock, VENUE)
        lease = await self.stores.leases.acquire(f"price-feed:{VENUE}")
        assert lease is not None
        await store.begin()
        quote = Quote(Decimal(price), Decimal(price), Decimal(price), Decimal(price), datetime.now(UTC).date(), stale=False)
        await store.write(lease, dict.fromkeys(instruments, quote), self.clock.monotonic() + timedelta(hours=1).total_seconds())
        await self.stores.leases.release(lease)

    async def set_up(self) -> None:
        """Create two accounts, two instruments, default limits and prices."""
        for account_id in ("ACC-1", "ACC-2"):
            account = reference_data_service_pb2.CreateAccountRequest(account_id=account_id, display_name="a name", currency="USD")
            await self.ask(self.reference.CreateAccount, account)
        for instrument_id in ("AAPL", "MSFT"):
            instrument = reference_data_service_pb2.CreateInstrumentRequest(
                instrument_id=instrument_id, display_name="a name", currency="USD", tick_size="0.01", lot_size="1", venue=VENUE,
                asset_class=reference_data_pb2.ASSET_CLASS_EQUITY, calendar=reference_data_pb2.TradingCalendar(time_zone="UTC"),
            )  # fmt: skip
            await self.ask(self.reference.CreateInstrument, instrument)
        for (scope, limit_type), value in DEFAULT_LIMITS.items():
            await self.limit(scope, "*", limit_type, value)
        await self.quote("100")

    async def state(self, account_id: str = "ACC-1") -> risk_service_pb2.GetRiskStateResponse:
        """Return what a client sees of an account."""
        state = await self.ask(self.risk.GetRiskState, risk_service_pb2.GetRiskStateRequest(account_id=account_id))
        assert isinstance(state, risk_service_pb2.GetRiskStateResponse)
        return state


class _Folded:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def position(self) -> LogPosition:
        return await self._orders.folded()


class Pair(NamedTuple):
    """Two replicas, and the svc_oms that both ask."""

    one: Replica
    other: Replica
    orders: Orders


@pytest.fixture(params=["double", "postgres"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Return both replicas of a firm that is set up."""
    orders = Orders()
    async with AsyncExitStack() as stack:
        replicas = []
        for database in await two_databases(request, risk_server(lambda: datetime.now(UTC), lambda: 0.0), MIGRATIONS):
            replicas.append(Replica(database, orders))
            stack.push_async_callback(database.close)
            stack.push_async_callback(replicas[-1].stores.log.close)
        await replicas[0].set_up()
        yield Pair(replicas[0], replicas[1], orders)
