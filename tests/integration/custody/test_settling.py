"""Settlement: delivery versus payment, what lacks, what comes in, the clock."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import asyncpg
import pytest

from svc_custody.domain.vocabulary import FailureReason
from tests.integration.custody.audit import audit
from tests.integration.custody.conftest import replica
from tests.integration.custody.world import AAPL, BTC, USD, Custodian, Orders, Reference


async def test_neither_leg_moves_where_one_lacks(custody: Custodian, orders: Orders) -> None:
    await custody.deposit(USD, "499.99")
    orders.fill("buy", "5", "100")
    orders.fill("sell", "2", "10", instrument_id="BTC-USD")
    await custody.follow()
    await custody.advance()
    bought, sold = await custody.settlements()
    assert (bought.state.name, bought.failure_reason, bought.lacking_amount) == ("FAILED", FailureReason.LACK_OF_CASH, Decimal("0.01"))
    assert (sold.state.name, sold.failure_reason, sold.lacking_amount) == ("FAILED", FailureReason.LACK_OF_SECURITIES, Decimal(2))
    assert await custody.balance(USD) == ("499.99", "0", "20", "-500")
    assert await custody.balance(AAPL) == ("0", "0", "5", "0")
    await audit(custody)


async def test_a_failed_instruction_is_tried_once_a_day_and_when_something_comes_in(custody: Custodian, orders: Orders) -> None:
    orders.fill("buy", "5", "100")
    await custody.follow()
    for days in (1, 2):
        await custody.advance()
        await custody.work.settling.settle()
        (instruction,) = await custody.settlements()
        assert (instruction.state.name, instruction.failed_days) == ("FAILED", days)
    await custody.deposit(USD, "100")
    assert await custody.work.settling.settle() == 0
    (instruction,) = await custody.settlements()
    assert (instruction.lacking_amount, instruction.failed_days) == (500, 2), "the same failure of the same day is recorded once"
    await custody.deposit(USD, "400")
    assert await custody.work.settling.settle() == 1
    await audit(custody)


async def test_what_one_settlement_brings_another_spends(custody: Custodian, orders: Orders) -> None:
    await custody.deposit(AAPL, "5")
    orders.fill("buy", "1", "400", instrument_id="BTC-USD")
    orders.fill("sell", "5", "100")
    await custody.follow()
    assert await custody.work.settling.settle() == 0
    assert await custody.advance() == 2
    assert await custody.balance(USD) == ("100", "0", "0", "0")
    assert await custody.balance(BTC) == ("1", "0", "0", "0")
    await audit(custody)


async def test_an_instruction_waits_for_its_affirmation(
    custody_database: object, custody: Custodian, orders: Orders, reference: Reference
) -> None:
    async with replica(custody_database, orders, reference, affirm_seconds=3_600) as patient:  # type: ignore[arg-type]  # as the fixture has it
        await patient.deposit(USD, "1000")
        orders.fill("buy", "5", "100")
        await patient.follow()
        await patient.advance()
        assert await patient.states() == ["INSTRUCTED"]


async def test_the_business_date_skips_weekends_and_holidays_and_never_goes_back(custody: Custodian) -> None:
    seen = []
    for _ in range(4):
        await custody.advance()
        seen.append(await custody.stores.dates.current())
    assert seen == [date(2026, 11, 23), date(2026, 11, 24), date(2026, 11, 25), date(2026, 11, 27)]
    assert not await custody.stores.dates.follow(date(2026, 11, 24))
    names = await custody.stores.database.fetch("SELECT type FROM event WHERE stream_id = 'business-date' ORDER BY version")
    assert [row["type"] for row in names] == ["custody.v1.BusinessDateAdvanced"] * 5


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_balance SET balance = balance + 1 WHERE ledger_account = 1",
        "INSERT INTO ledger_entry VALUES ('ACC-1', 99, 1, 1, 1, 'USD', '', 5, 'x', 'x', '2026-11-20', now())",
        "UPDATE ledger_entry SET amount = 5",
        "DELETE FROM ledger_entry",
        "UPDATE ledger_balance SET balance = -balance",
    ],
)
async def test_the_database_refuses_what_does_not_balance(
    custody: Custodian, sql: asyncpg.Connection[asyncpg.Record], statement: str
) -> None:
    await custody.deposit(USD, "10")
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.InsufficientPrivilegeError)):
        await sql.execute(statement)
    await audit(custody)
