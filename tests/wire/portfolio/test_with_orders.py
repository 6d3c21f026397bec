"""Whole services: orders that a sandbox exchange fills, corrects and busts, and the portfolio that follows svc_oms's own log."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kernel.postgres import migrate
from mesh.local.postgres import DATABASE
from mesh.local.provision import Provisioner, ServiceDatabase
from svc_oms.main import MIGRATIONS as OMS_MIGRATIONS
from tests.contract.portfolio.events import moved
from tests.integration.oms.world import TENANT, FakeRisk, order_request
from tests.wire.exchange.client import FixClient, is_report
from tests.wire.oms import conftest as oms_world
from tests.wire.oms.caller import Caller as OrderCaller
from tests.wire.oms.caller import headers as order_headers
from tests.wire.oms.fake_risk import FakeRiskServer
from tests.wire.oms.test_venue import counterparty, executions, order_in, until
from tests.wire.portfolio.conftest import Caller, World, config_of, running
from tests.wire.serving import user
from trademesh.oms.v1 import execution_pb2, order_pb2, order_service_pb2
from trademesh.portfolio.v1 import portfolio_service_pb2 as pb

READER = user("viewer", tenant=TENANT)


class Chain(NamedTuple):
    """Everything that runs."""

    orders: OrderCaller
    portfolio: Caller
    venue: oms_world.SandboxVenue

    async def filled(self, beta: FixClient, side: int, quantity: str, price: str) -> execution_pb2.Execution:
        """Let an order trade with what another member has put into the book; return its execution."""
        resting = len([message for message in beta.received if is_report("0")(message)])
        await beta.send(beta.order(f"b-{secrets.token_hex(4)}", "2" if side == 1 else "1", quantity, price))
        await beta.wait(is_report("0"), resting + 1)
        created = await self.orders.create(order_request(side=side, quantity=quantity, limit_price=price))
        await order_in(self.orders, created.order.order_id, order_pb2.ORDER_STATE_FILLED)
        (execution,) = await executions(self.orders, created.order.order_id)
        assert isinstance(execution, execution_pb2.Execution)
        return execution

    async def position(self, **wanted: str | int) -> Any:
        """Return the position once it has these values."""

        async def read() -> Any:
            request = pb.GetPositionRequest(account_id="ACC-1", instrument_id="AAPL")
            return (await self.portfolio.call("GetPosition", request, READER)).position

        return await until(read, lambda position: all(getattr(position, name) == value for name, value in wanted.items()))


@pytest.fixture
async def oms_database(postgres: Provisioner) -> AsyncIterator[ServiceDatabase]:
    """Return a second schema, with the order service's tables."""
    service = f"t_{secrets.token_hex(6)}"
    database = postgres.provision(service, DATABASE)
    await migrate(database.owner_dsn, database.role, OMS_MIGRATIONS)
    yield database
    postgres.remove(service, DATABASE)


@pytest.fixture
async def chain(
    oms_database: ServiceDatabase, migrated: ServiceDatabase, sockets: Path, world: World, tmp_path: Path
) -> AsyncIterator[Chain]:
    """Return a whole order service at a sandbox exchange, and a whole portfolio service that follows it."""
    await world.risk.add(moved("ACC-1", TENANT))
    async with contextlib.AsyncExitStack() as stack:
        risk = FakeRiskServer(sockets / "risk.sock", FakeRisk())
        await risk.start()
        stack.push_async_callback(risk.stop)
        venue = oms_world.SandboxVenue(tmp_path)
        await venue.start()
        stack.push_async_callback(venue.stop)
        orders_config = oms_world.config_of("svc_oms-0", oms_database, sockets, risk)
        orders = await stack.enter_async_context(oms_world.running(orders_config, (venue.session,)))
        config = config_of("svc_portfolio-0", migrated, world)
        target = f"unix:{orders_config.socket_path}"
        portfolio = await stack.enter_async_context(running(replace(config, oms_targets=(target,)), world))
        yield Chain(orders, portfolio, venue)


async def test_a_position_is_the_sum_of_what_the_venue_says_of_its_fills(chain: Chain) -> None:
    async with await counterparty(chain.venue) as beta:
        bought = [await chain.filled(beta, 1, *terms) for terms in (("15", "100"), ("5", "101"))]
        await chain.position(quantity="20", cost="2005")
        await chain.filled(beta, 2, "12", "103")
    sold = await chain.position(quantity="8", realised_pnl="36")
    assert (sold.average_cost, sold.version) == ("100.625", 3)
    chain.venue.control(op="trade.correct", exec_id=bought[0].exec_id, price="99", quantity="10")
    corrected = await chain.position(version=4)
    # 10 of the corrected lot at 99, 2 of the other at 101.
    assert (corrected.quantity, corrected.realised_pnl, corrected.cost) == ("3", "44", "303")
    chain.venue.control(op="trade.bust", exec_id=bought[1].exec_id)
    busted = await chain.position(version=5)
    assert (busted.quantity, busted.realised_pnl, busted.cost) == ("-2", "40", "-206")
    filled = [order.filled_quantity if order.side == 1 else f"-{order.filled_quantity}" for order in (await _orders(chain.orders)).orders]
    assert sum(map(Decimal, filled)) == Decimal(busted.quantity)


async def _orders(orders: OrderCaller) -> Any:
    return await orders.orders.ListOrders(order_service_pb2.ListOrdersRequest(account_id="ACC-1"), metadata=order_headers())


async def test_an_order_s_answer_names_a_place_that_portfolio_reaches(chain: Chain) -> None:
    created = await chain.orders.create(order_request(limit_price="90"))
    request = pb.GetPortfolioRequest(account_id="ACC-1", min_position=created.log_position)
    async with asyncio.timeout(10):
        answer = await chain.portfolio.call("GetPortfolio", request, READER)
    place, wanted = answer.order_log_position, created.log_position
    assert (place.tx, place.position) >= (wanted.tx, wanted.position)
    assert not answer.positions
