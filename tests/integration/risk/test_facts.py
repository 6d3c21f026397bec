"""Order events, orphans and the projection on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from kernel.clock import SystemClock
from kernel.consumer import Projection
from kernel.errors import LeaseLostError, Reason, UnavailableError
from kernel.ports import LOG_START, HeldLease, LogPosition, RecordedEvent
from kernel.postgres import Connection
from mesh.local.provision import ServiceDatabase
from svc_risk.clients.orders import ResolvedOrder, ResolvedOrders
from svc_risk.consumer import orphans
from svc_risk.consumer.orders import FoldedOrders, order_projection
from svc_risk.domain.administration import KillSwitch
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import CheckKind, OrderState
from svc_risk.main import Stores
from tests.integration.risk.audit import audit
from tests.integration.risk.orders import accepted, canceled, event, filled, fold
from tests.integration.risk.world import buy, populate, sell
from trademesh.oms.v1 import events_pb2
from trademesh.risk.v1 import events_pb2 as risk_events

FILLED, PARTIAL, CANCELED = OrderState.FILLED, OrderState.PARTIALLY_FILLED, OrderState.CANCELED
Sql = Connection


async def risk_of(sql: Sql, account: str = "ACC-1", instrument: str = "AAPL") -> tuple[Any, Any, Any]:
    """Return position, open buys and open sells in quantity."""
    row = await sql.fetchrow(
        "SELECT position, buy_quantity, sell_quantity FROM position_exposure WHERE account_id = $1 AND instrument_id = $2",
        account,
        instrument,
    )
    assert row is not None
    return row["position"], row["buy_quantity"], row["sell_quantity"]


async def test_orders_move_from_reserved_to_position(stores: Stores, risk_database: ServiceDatabase, sql: Sql) -> None:
    await populate(risk_database.owner_dsn)
    first, second, third = buy("10"), sell("4", "101"), buy("7", account="ACC-2")
    await stores.checks.decide([first, second, third])
    await fold(stores.database, stores.facts, accepted(first), accepted(second), filled(first, 2, "6", PARTIAL), accepted(third))
    assert await risk_of(sql) == (6, 4, 4)
    await fold(stores.database, stores.facts, filled(first, 3, "10", FILLED), canceled(third, 2), filled(second, 2, "4", FILLED))
    assert await risk_of(sql) == (6, 0, 0)
    assert await risk_of(sql, "ACC-2") == (0, 0, 0)
    # A bust revives, a late fill on a canceled order counts, and repetitions do not.
    await fold(stores.database, stores.facts, filled(first, 4, "8", PARTIAL), filled(third, 3, "2", CANCELED))
    await fold(stores.database, stores.facts, filled(first, 4, "8", PARTIAL), accepted(first), filled(third, 3, "2", CANCELED))
    assert await risk_of(sql) == (4, 2, 0)
    assert await risk_of(sql, "ACC-2") == (2, 0, 0)
    await audit(sql)


async def test_facts_are_never_refused_and_raise_a_breach(stores: Stores, risk_database: ServiceDatabase, sql: Sql) -> None:
    await populate(risk_database.owner_dsn)
    unknown = buy("150000")
    await fold(stores.database, stores.facts, accepted(unknown), filled(unknown, 2, "110000", PARTIAL))
    assert await risk_of(sql) == (110_000, 40_000, 0)
    payload = await sql.fetchval("SELECT payload FROM event WHERE type = 'risk.v1.ExposureAdjusted'")
    assert risk_events.ExposureAdjusted.FromString(payload).in_breach
    for _ in range(2):
        answers = await stores.checks.decide([buy("1"), sell("1")])
        assert [answer.result.WhichOneof("outcome") for answer in answers] == ["refusal", "approval"], "it may shrink, and not grow"
        assert (await stores.reads.risk_state("ACC-1")).in_breach
        await fold(stores.database, stores.facts, canceled(unknown, 3))
    await fold(stores.database, stores.facts, filled(unknown, 4, "1", CANCELED))
    assert not (await stores.reads.risk_state("ACC-1")).in_breach
    await audit(sql)


async def test_events_that_end_before_any_reservation_release_nothing(stores: Stores, risk_database: ServiceDatabase, sql: Sql) -> None:
    await populate(risk_database.owner_dsn)
    refused = buy("10", "200")
    await stores.checks.decide([refused])
    rejected = event(refused.order_id, 1, events_pb2.OrderRejected())
    stranger = event(buy("1").order_id, 1, events_pb2.OrderAbandoned(account_id="ACC-1"))
    switch = RecordedEvent(LogPosition(1, 1), "kill-firm-*", 1, "oms.v1.KillSwitchApplied", b"", b"", rejected.recorded_at)
    await fold(stores.database, stores.facts, rejected, stranger, switch)
    assert await sql.fetchval("SELECT count(*) FROM position_exposure WHERE position <> 0 OR buy_quantity <> 0") == 0
    with pytest.raises(ValueError, match="without a beginning"):
        await fold(stores.database, stores.facts, filled(buy("1"), 2, "1", FILLED), accepted(buy("1")))


async def test_facts_and_checks_in_opposite_orders_do_not_deadlock(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: Sql
) -> None:
    accounts = [f"ACC-{number}" for number in range(1, 7)]
    await populate(risk_database.owner_dsn, accounts=accounts)
    chance = random.Random(3)
    placed: list[OrderCheck] = []

    async def trade(replica: Stores) -> None:
        for _ in range(8):
            checks = [chance.choice((buy, sell))(str(chance.randint(1, 9)), account=chance.choice(accounts)) for _ in range(20)]
            await replica.checks.decide(checks)
            placed.extend(checks)

    async def report(replica: Stores) -> None:
        done = 0
        while done < 160:
            orders = placed[done : done + 30][: 160 - done]
            done += len(orders)
            chance.shuffle(orders)
            await fold(
                replica.database, replica.facts, *(item for order in orders for item in (accepted(order), filled(order, 2, "1", PARTIAL)))
            )
            await asyncio.sleep(0)

    await asyncio.gather(trade(stores), trade(other), report(stores), report(other))
    await audit(sql)
    assert await sql.fetchval("SELECT count(*) FROM reservation WHERE filled = 1") == 160


class Log:
    """svc_oms's log as a list."""

    def __init__(self, *events: RecordedEvent) -> None:
        self.events = list(events)

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        return [item for item in self.events if item.position > cursor][:limit]


async def until(projection: Projection, position: LogPosition) -> None:
    task = asyncio.create_task(projection.run())
    try:
        async with asyncio.timeout(10):
            while projection.cursor < position:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_projection_keeps_its_place_across_replicas(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: Sql
) -> None:
    await populate(risk_database.owner_dsn)
    first, second = buy("10"), sell("4")
    await stores.checks.decide([first, second])
    log = Log(accepted(first), filled(first, 2, "10", FILLED))
    clock = SystemClock()
    await until(order_projection(stores.facts, stores.projections, log, None, stores.leases, clock), log.events[-1].position)
    assert await FoldedOrders(other.projections).position() == log.events[-1].position
    # The other replica goes on, and what is told again counts once.
    log.events += [accepted(second), filled(second, 2, "1", PARTIAL)]
    await until(order_projection(other.facts, other.projections, log, None, other.leases, clock), log.events[-1].position)
    assert await risk_of(sql) == (9, 0, 3)
    await audit(sql)


class Orders:
    """svc_oms as it answers risk; by default it knows no order and gives up what it is asked for."""

    def __init__(self, states: dict[str, OrderState] | None = None, position: LogPosition = LOG_START) -> None:
        self.states = states or {}
        self.position = position
        self.asked: list[str] = []
        self.reachable = True

    async def resolve(self, orders: Sequence[tuple[str, str]]) -> ResolvedOrders:
        if not self.reachable:
            raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "svc_oms is away")
        self.asked += [order_id for order_id, _ in orders]
        found = [ResolvedOrder(order_id, self.states.get(order_id, OrderState.ABANDONED)) for order_id, _ in orders]
        return ResolvedOrders(tuple(found), self.position)

    async def apply(self, switches: Sequence[KillSwitch]) -> None:
        raise AssertionError("orphans are no kill switches")


def sweeper(stores: Stores, orders: Orders) -> orphans.OrphanSweeper:
    folded = FoldedOrders(stores.projections)
    return orphans.OrphanSweeper(stores.database, stores.leases, stores.facts, orders, folded.position)


async def lease(stores: Stores) -> HeldLease:
    held = await stores.leases.acquire(orphans.LEASE)
    assert held is not None
    return held


async def test_orphans_are_released_only_once_svc_oms_gave_them_up(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: Sql
) -> None:
    await populate(risk_database.owner_dsn)
    orphan, known, confirmed, young = buy("10"), buy("5"), buy("3"), buy("1")
    await stores.checks.decide([orphan, known, confirmed])
    await fold(stores.database, stores.facts, accepted(confirmed))
    await sql.execute("UPDATE reservation SET reserved_at = now() - interval '31 seconds'")
    await stores.checks.decide([young])
    orders = Orders({known.order_id: OrderState.PENDING_NEW})
    held = await lease(stores)

    orders.reachable = False
    with pytest.raises(UnavailableError):
        await sweeper(stores, orders).sweep(held)
    assert await risk_of(sql) == (0, 19, 0)

    orders.reachable = True
    with pytest.raises(LeaseLostError):
        await sweeper(other, orders).sweep(HeldLease(orphans.LEASE, other.leases.owner, held.epoch, held.deadline))
    assert await risk_of(sql) == (0, 19, 0)

    orders.asked = []
    assert await sweeper(stores, orders).sweep(held) == 2
    assert set(orders.asked) == {orphan.order_id, known.order_id}
    assert await risk_of(sql) == (0, 9, 0)
    assert await sweeper(stores, orders).sweep(held) == 0
    # svc_oms's own event of it comes later, and counts no second time.
    await fold(stores.database, stores.facts, event(orphan.order_id, 1, events_pb2.OrderAbandoned()), accepted(known))
    assert await risk_of(sql) == (0, 9, 0)
    await audit(sql)


async def test_an_approved_replace_that_was_never_asked_for_is_given_up(stores: Stores, risk_database: ServiceDatabase, sql: Sql) -> None:
    await populate(risk_database.owner_dsn)
    order = buy("10")
    more = order._replace(
        kind=CheckKind.REPLACE, request_id="00000000-0000-7000-8000-000000000009", quantity=Decimal(25), payload_hash=b"r" * 32
    )
    await stores.checks.decide([order, more])
    await fold(stores.database, stores.facts, accepted(order))
    await sql.execute("UPDATE replace_check SET checked_at = now() - interval '31 seconds'")
    held = await lease(stores)
    orders = Orders({order.order_id: OrderState.NEW}, LogPosition(10**9, 1))
    # svc_oms knows more than what was folded: the request may be among it.
    await sweeper(stores, orders).sweep(held)
    assert await risk_of(sql) == (0, 25, 0)
    orders.position = LogPosition(0, 0)
    # Asked for again, it is about to be recorded.
    assert [answer.result.WhichOneof("outcome") for answer in await stores.checks.decide([more])] == ["approval"]
    assert await sweeper(stores, orders).sweep(held) == 0
    assert await risk_of(sql) == (0, 25, 0)
    await sql.execute("UPDATE replace_check SET checked_at = now() - interval '30 seconds'")
    await sweeper(stores, orders).sweep(held)
    assert await risk_of(sql) == (0, 10, 0)
    assert await sweeper(stores, orders).sweep(held) == 0
    # What was given up is forgotten: the same question is decided anew, and reserves again.
    await stores.checks.decide([more])
    assert await risk_of(sql) == (0, 25, 0)
    await audit(sql)
