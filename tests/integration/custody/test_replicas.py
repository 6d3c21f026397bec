"""Two replicas at once, takeovers, and crashes between: the ledger is the same as of one that nothing ever happened to."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import asyncpg
import pytest

from kernel.errors import LeaseLostError, TrademeshError
from kernel.leadership import lead
from kernel.ports import LOG_START
from kernel.projection_store import Inboxed
from kernel.values import total
from svc_custody.codec.facts import read_execution
from svc_custody.consumer import executions
from tests.integration.custody.audit import audit
from tests.integration.custody.world import AAPL, USD, Custodian, Orders

TRADES = 60
# A session waits for the lock that this one holds: its own role may end it.
_KILL = """
SELECT count(*) FROM (
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = current_user AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'
) AS ended
"""


def trade(orders: Orders, seed: int) -> None:
    """Let two accounts trade, with busts and corrections."""
    dice = random.Random(seed)
    fills: list[str] = []
    for _ in range(TRADES):
        side, account = dice.choice(("buy", "sell")), dice.choice(("ACC-1", "ACC-2"))
        fill = orders.fill(side, str(dice.randint(1, 9)), f"{dice.randint(1, 99)}.5", account_id=account)
        fills.append(fill)
        if dice.random() < 0.3:
            orders.bust(fills.pop(dice.randrange(len(fills))))
        elif dice.random() < 0.3:
            fills[dice.randrange(len(fills))] = orders.correct(dice.choice(fills[-1:]), "3", "33.25")
            fills = list(dict.fromkeys(fills))


async def test_settling_replicas_and_deposits_at_once_never_deadlock_or_settle_twice(
    custody: Custodian, other: Custodian, orders: Orders
) -> None:
    for account in ("ACC-1", "ACC-2"):
        await custody.deposit(USD, "50", account)
    for _ in range(40):
        orders.fill("buy", "1", "10", account_id="ACC-1")
        orders.fill("buy", "1", "10", account_id="ACC-2")
    await custody.follow()
    await custody.advance()
    deposits = [(custody if index % 2 else other).deposit(USD, "35", account) for index in range(10) for account in ("ACC-1", "ACC-2")]
    await asyncio.gather(*deposits, *(one.work.settling.settle() for one in (custody, other) for _ in range(3)))
    await custody.work.settling.settle()
    assert await custody.balance(USD) == ("0", "0", "0", "0")
    assert (await custody.balance(AAPL, "ACC-2"))[0] == "40"
    settled = await custody.stores.database.fetchval("SELECT count(*) FROM event WHERE type = 'custody.v1.SettlementSettled'")
    assert settled == 80
    await audit(custody)


async def test_a_replica_that_lost_the_lease_writes_nothing(custody: Custodian, other: Custodian, orders: Orders) -> None:
    orders.fill("buy", "5", "100")
    name = f"projection:{executions.NAME}:{executions.SOURCE}"
    old = await custody.stores.leases.acquire(name)
    assert old is not None
    await custody.stores.leases.release(old)
    held = await other.stores.leases.acquire(name)
    assert held is not None
    model, position = Inboxed(custody.work.executions.apply), orders.events[-1].position
    with pytest.raises(LeaseLostError):
        await custody.stores.projections.apply(old, executions.NAME, executions.SOURCE, position, orders.events, model)
    assert await custody.states() == []
    await other.stores.projections.apply(held, executions.NAME, executions.SOURCE, position, orders.events, model)
    assert len(await custody.states()) == 1
    settling = await custody.stores.leases.acquire("settlement")
    assert settling is not None
    await custody.stores.leases.release(settling)
    with pytest.raises(LeaseLostError):
        await custody.work.settling.settle(lambda: settling)
    await audit(custody)


@pytest.mark.parametrize("seed", range(4))
async def test_any_cut_of_the_log_into_transactions_folds_to_the_same(
    custody: Custodian, other: Custodian, orders: Orders, seed: int
) -> None:
    """Replicas take turns; each dies after its transaction, some with nothing said of where they were, and the log is told again."""
    trade(orders, seed)
    dice = random.Random(seed)
    told, replicas = 0, (custody, other)
    while told < len(orders.events):
        again = max(0, told - dice.randint(0, 5))
        until = min(len(orders.events), told + dice.randint(1, 12))
        await dice.choice(replicas).follow(orders.events[again:until])
        told = until
        if dice.random() < 0.3:
            await dice.choice(replicas).work.settling.settle()
        if dice.random() < 0.2:
            await dice.choice(replicas).advance()
    positions = await audit(custody)
    for account_id in ("ACC-1", "ACC-2"):
        expected = net(orders, account_id)
        assert positions.get((account_id, 2, "AAPL"), 0) == expected[0]
        assert positions.get((account_id, 1, "USD"), 0) == expected[1]
    # With everything there is to deliver and to pay, all of it settles, whatever happened before.
    for account_id in ("ACC-1", "ACC-2"):
        await custody.deposit(USD, "1000000", account_id)
        await custody.deposit(AAPL, "100000", account_id)
    await custody.advance()
    await custody.advance()
    open_states = await custody.stores.schedule.open_counts()
    assert open_states == {}
    await audit(custody)


def net(orders: Orders, account_id: str) -> tuple[Decimal, Decimal]:
    """Return what an account's executions come to, by their own fold: shares and cash."""
    terms: dict[str, tuple[Decimal, Decimal]] = {}
    root: dict[str, str] = {}
    for event in orders.events:
        execution = read_execution(event.payload)
        if execution.account_id != account_id:
            continue
        own = root.get(execution.exec_ref_id, execution.exec_id)
        root[execution.exec_id] = own
        sign = 1 if execution.side == 1 else -1
        quantity = Decimal(0) if execution.type == 2 else sign * Decimal(execution.last_quantity)
        terms[own] = (quantity, -quantity * Decimal(execution.last_price))
    return total(shares for shares, _ in terms.values()), total(money for _, money in terms.values())


async def test_a_crash_between_statements_records_nothing(
    custody: Custodian, orders: Orders, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The session is killed while the fold waits for a ledger's lock, in the middle of its transaction."""
    await custody.deposit(USD, "1000")
    orders.fill("buy", "5", "100")
    holder = sql.transaction()
    await holder.start()
    await sql.execute("SELECT event_lock(ARRAY['ledger-ACC-1'])")
    folding = asyncio.create_task(custody.follow())
    async with asyncio.timeout(5):
        while not await sql.fetchval(_KILL):
            await asyncio.sleep(0.01)
    with pytest.raises(TrademeshError):
        await folding
    await holder.rollback()
    assert await custody.states() == []
    assert await custody.stores.projections.load(executions.NAME, executions.SOURCE) == LOG_START
    await custody.follow()
    assert len(await custody.states()) == 1
    await audit(custody)


async def test_the_worker_settles_under_its_lease_and_another_takes_over(custody: Custodian, other: Custodian, orders: Orders) -> None:
    await custody.deposit(USD, "1000")
    orders.fill("buy", "5", "100")
    await custody.follow()
    for worker in (custody, other):
        # It is Monday by the wall clock of both.
        worker.day.advance(3 * 86_400)
    first = asyncio.create_task(lead(custody.stores.leases, "settlement", custody.work.settling.run, retry_seconds=0.05))
    await until(custody, "SETTLED", 1)
    second = asyncio.create_task(lead(other.stores.leases, "settlement", other.work.settling.run, retry_seconds=0.05))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    orders.fill("buy", "1", "100")
    await custody.follow()
    await until(custody, "SETTLED", 2)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await audit(custody)


async def until(custody: Custodian, state: str, count: int) -> None:
    """Wait until so many instructions stand there."""
    async with asyncio.timeout(15):
        while (await custody.states()).count(state) < count:
            await asyncio.sleep(0.02)
