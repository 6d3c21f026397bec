"""Every service dies in turn, and every part of the mesh around them, while orders fill, trades settle and clients outside look on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from mesh.local.edge import EDGE
from mesh.local.options import SERVICES
from mesh.local.parts import ISSUER
from mesh.local.sidecar import CONTROL
from mesh.local.topology import sidecar_name
from tests.e2e.crash import strike
from tests.e2e.crash.blotters import ask_for_blotter, blotters
from tests.e2e.crash.client import Clients
from tests.e2e.crash.follower import ORDERS, PORTFOLIO, Follower
from tests.e2e.crash.heard import order_stream, portfolio_stream
from tests.e2e.crash.holdings_read_back import holdings_read_back
from tests.e2e.crash.holdings_record import SETTLED
from tests.e2e.crash.load import ACCOUNTS, Load
from tests.e2e.crash.operations_desk import OperationsDesk
from tests.e2e.crash.verdict import Evidence, verified
from tests.e2e.crash.world import TRADER, World, world
from trademesh.oms.v1 import execution_pb2

pytestmark = pytest.mark.e2e

COMMANDS_BEFORE, COMMANDS_EACH = 500, 240
PAIRS = 3
FOLLOWED = ACCOUNTS[:2]
CAUGHT_UP_SECONDS = 30.0
SETTLING_SECONDS = 20.0

_EXECUTIONS = "SELECT payload FROM svc_oms.execution ORDER BY sequence"
_SETTLED = "SELECT count(*) FROM svc_custody.settlement WHERE state = 3"


@dataclass
class Chain:
    """A mesh whose parts die in turn, and all who use it."""

    world: World
    load: Load
    clients: Clients
    desk: OperationsDesk
    followers: list[Follower]
    report_ids: list[str] = field(default_factory=list)

    async def die(self, victims: tuple[str, ...]) -> None:
        """Kill these at once amid orders, deposits, busts and corrections; return when the mesh is whole and all is answered."""
        resting = await strike.resting(self.world)
        commands = self.load.orders(2 * COMMANDS_EACH // 3) + self.load.changes(resting, COMMANDS_EACH // 3)
        killed = dict[str, int]()

        def blow() -> None:
            killed.update(self.world.kill(*victims))

        async with asyncio.TaskGroup() as group:
            group.create_task(self.desk.deposit(self.desk.drawn(3)))
            group.create_task(self.amend(2))
            if any("reporting" in name for name in victims):
                group.create_task(self.report())
            if any("custody" in name for name in victims):
                group.create_task(self.settle_and(blow))
                group.create_task(self.clients.enter(commands))
            else:
                group.create_task(strike.in_the_middle(self.world, self.clients, commands, blow))
        await self.world.restarted(killed)
        for follower in self.followers:
            if follower.failure is not None:
                raise follower.failure

    async def report(self) -> None:
        """Have a blotter made of what there is now."""
        self.report_ids.append(await ask_for_blotter(self.desk, self.world.random))

    async def settle_and(self, blow: Callable[[], None]) -> None:
        """Move the business date, and strike as soon as the first of what is due then has settled."""
        before = (await self.world.sql(_SETTLED))[0][0]
        moving = asyncio.create_task(self.desk.advance())

        async def begun() -> bool:
            return bool((await self.world.sql(_SETTLED))[0][0] > before)

        await self.world.until(begun, timeout_seconds=SETTLING_SECONDS)
        blow()
        await moving

    async def amend(self, count: int) -> None:
        """Have the venue bust or correct trades, as the seed draws them."""
        told = [execution_pb2.Execution.FromString(row["payload"]) for row in await self.world.sql(_EXECUTIONS)]
        trades = [execution for execution in told if execution.type == execution_pb2.EXECUTION_TYPE_TRADE]
        for trade in self.world.random.sample(trades, count):
            terms = self.world.random.choice(("bust", "price", "quantity"))
            if terms == "bust":
                fields = {}
            elif terms == "price":
                fields = {"price": f"{Decimal(trade.last_price) + Decimal('0.05'):f}"}
            else:
                fields = {"quantity": _less(trade)}
            operation = "trade.correct" if fields else "trade.bust"
            answer = await asyncio.to_thread(self.world.mesh.exchange, operation, exec_id=trade.exec_id, **fields)
            self.world.note(f"{operation} {trade.exec_id} {fields}: {answer.get('changed')}")

    async def caught_up(self, evidence: Evidence) -> list[str]:
        """Return what the followers should have been told and were not, once they had time to hear it."""
        found: list[str] = []

        async def whole() -> bool:
            found[:] = self._missing(evidence)
            return not found

        try:
            await self.world.until(whole, timeout_seconds=CAUGHT_UP_SECONDS)
        except TimeoutError:
            return found
        return []

    def _missing(self, evidence: Evidence) -> list[str]:
        return [
            finding
            for follower in self.followers
            for finding in (
                order_stream(follower.heard, evidence.orders)
                if follower.shows_orders
                else portfolio_stream(follower.heard, evidence.holdings)
            )
        ]


async def test_every_part_dies_in_turn_and_positions_ledger_and_custody_agree() -> None:
    with world() as running:
        async with AsyncExitStack() as stack:
            clients = await stack.enter_async_context(Clients(running.mesh, TRADER, running.random))
            desk = await stack.enter_async_context(OperationsDesk(running.mesh, running.random))
            followers = [Follower(running.mesh, stream, account_id) for account_id in FOLLOWED for stream in (ORDERS, PORTFOLIO)]
            for follower in followers:
                await stack.enter_async_context(follower)
            chain = Chain(running, Load(running.random, "chain"), clients, desk, followers)

            await _together(desk.deposit(desk.drawn(12)), clients.enter(chain.load.orders(COMMANDS_BEFORE)))
            for victims in _victims(running):
                await chain.die(victims)

            evidence = await verified(running, clients, desk.deposits, timeout_seconds=90.0)
            for follower in followers:
                heard = follower.heard
                running.note(f"{heard.name}: {len(heard.events)} events, {follower.connections} connections, {dict(follower.breaks)}")
            findings = await chain.caught_up(evidence) + await holdings_read_back(desk, evidence.holdings)
            findings += [finding async for finding in blotters(desk, chain.report_ids, evidence.orders)]
    assert not findings, "\n".join(findings[:20])
    assert sorted(evidence.holdings.custody.days_advanced) == sorted(desk.days), "each day was moved once"
    assert any(item.state == SETTLED for item in evidence.holdings.custody.instructions)
    assert all(follower.connections > 1 for follower in followers), "no stream ever broke"


def _victims(running: World) -> list[tuple[str, ...]]:
    """Every service, both replicas at once; their sidecars, both at once; what certifies, lets in and gives tokens; then pairs of these."""
    services = [tuple(item.name for item in running.mesh.instances(service)) for service in SERVICES]
    sidecars = [tuple(sidecar_name(name) for name in replicas) for replicas in services]
    around = [(CONTROL,), (EDGE,), (ISSUER,)]
    for part in (services, sidecars, around):
        running.random.shuffle(part)
    everything = [*services, *sidecars, *around]
    pairs = [running.random.sample(everything, 2) for _ in range(PAIRS)]
    return everything + [(*one, *other) for one, other in pairs]


def _less(trade: execution_pb2.Execution) -> str:
    lot = Decimal("0.00000001") if trade.instrument_id == "BTC-USD" else Decimal(1)
    return f"{max(Decimal(trade.last_quantity) - lot, lot):f}"


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for part in work:
            group.create_task(part)
