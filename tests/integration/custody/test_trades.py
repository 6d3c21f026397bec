"""Executions onto ledgers: pending at once, settled on their day, busted and corrected before and after, each once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kernel.ports import LOG_START
from tests.integration.custody.audit import audit
from tests.integration.custody.world import AAPL, BTC, FRIDAY, MONDAY, USD, Custodian, Orders, Reference


async def test_a_trade_is_pending_at_once_and_settles_on_the_next_business_day(custody: Custodian, orders: Orders) -> None:
    await custody.deposit(USD, "1000")
    orders.fill("buy", "5", "100.5")
    await custody.follow()
    assert await custody.balance(AAPL) == ("0", "0", "5", "0")
    assert await custody.balance(USD) == ("1000", "0", "0", "-502.5")
    assert await custody.work.settling.settle() == 0
    (instruction,) = await custody.settlements()
    assert (instruction.state.name, instruction.settlement_date, instruction.cycle_days) == ("AFFIRMED", MONDAY, 1)
    assert await custody.advance() == 1
    assert await custody.balance(AAPL) == ("5", "0", "0", "0")
    assert await custody.balance(USD) == ("497.5", "0", "0", "0")
    assert await audit(custody) == {("ACC-1", 1, "USD"): Decimal("497.5"), ("ACC-1", 2, "AAPL"): Decimal(5)}


async def test_crypto_settles_on_the_day(custody: Custodian, orders: Orders) -> None:
    await custody.deposit(BTC, "2")
    orders.fill("sell", "0.5", "60000.1", instrument_id="BTC-USD", trade_date="2026-11-22")
    await custody.follow()
    assert await custody.work.settling.settle() == 1
    assert await custody.balance(BTC) == ("1.5", "0", "0", "0")
    assert await custody.balance(USD) == ("30000.05", "0", "0", "0")
    await audit(custody)


async def test_a_bust_before_settlement_leaves_nothing(custody: Custodian, orders: Orders) -> None:
    orders.bust(orders.fill("buy", "5", "100"))
    await custody.follow()
    assert await custody.states() == ["CANCELED"]
    assert await audit(custody) == {}


async def test_a_bust_after_settlement_moves_the_settled_balances_back(custody: Custodian, orders: Orders) -> None:
    await custody.deposit(USD, "1000")
    fill = orders.fill("buy", "5", "100")
    await custody.follow()
    await custody.advance()
    orders.bust(fill)
    await custody.follow()
    assert await custody.states() == ["SETTLED", "SETTLED"]
    first, opposite = await custody.settlements()
    assert opposite.reverses_settlement_id == first.settlement_id
    assert await audit(custody) == {("ACC-1", 1, "USD"): Decimal(1000)}


async def test_a_bust_after_settlement_fails_while_the_securities_are_elsewhere(custody: Custodian, orders: Orders) -> None:
    await custody.deposit(USD, "1000")
    fill = orders.fill("buy", "5", "100")
    await custody.follow()
    await custody.advance()
    orders.fill("sell", "5", "120")
    await custody.follow()
    await custody.advance()
    orders.bust(fill)
    await custody.follow()
    assert await custody.states() == ["SETTLED", "SETTLED", "FAILED"]
    assert await custody.balance(AAPL) == ("0", "0", "0", "-5")
    assert (await audit(custody))["ACC-1", 2, "AAPL"] == -5
    await custody.deposit(AAPL, "5")
    assert await custody.work.settling.settle() == 1
    assert await audit(custody) == {("ACC-1", 1, "USD"): Decimal(1600)}


@pytest.mark.parametrize("settled_first", [False, True])
async def test_a_correction_is_a_bust_and_new_terms(custody: Custodian, orders: Orders, *, settled_first: bool) -> None:
    await custody.deposit(USD, "1000")
    fill = orders.fill("buy", "5", "100")
    await custody.follow()
    if settled_first:
        await custody.advance()
    corrected = orders.correct(fill, "4", "101", trade_date="2026-11-23")
    orders.correct(corrected, "3", "102", trade_date="2026-11-23")
    await custody.follow()
    await custody.advance()
    assert await custody.balance(AAPL) == ("3", "0", "0", "0")
    assert await audit(custody) == {("ACC-1", 1, "USD"): Decimal(694), ("ACC-1", 2, "AAPL"): Decimal(3)}
    orders.bust(corrected)
    await custody.follow()
    assert await audit(custody) == {("ACC-1", 1, "USD"): Decimal(1000)}


async def test_a_repeated_fill_counts_once_whatever_repeats_it(custody: Custodian, orders: Orders) -> None:
    fill = orders.fill("buy", "5", "100")
    await custody.follow()
    # The log told again, a drop copy under another order, and a replica that lost its place.
    await custody.follow(orders.events)
    orders.fill("buy", "5", "100", exec_id=fill)
    custody.folded = LOG_START
    await custody.follow()
    assert await custody.states() == ["AFFIRMED"] or await custody.states() == ["INSTRUCTED"]
    assert (await audit(custody))["ACC-1", 2, "AAPL"] == 5


async def test_the_same_exec_id_on_another_day_is_another_fill(custody: Custodian, orders: Orders) -> None:
    orders.fill("buy", "5", "100", exec_id="X1")
    orders.fill("buy", "5", "100", exec_id="X1", trade_date="2026-11-19")
    await custody.follow()
    assert (await audit(custody))["ACC-1", 2, "AAPL"] == 10


async def test_a_bust_before_its_fill_voids_it(custody: Custodian, orders: Orders) -> None:
    orders.fill("buy", "5", "100", order_id="7f0f6d0e-5a0e-4a5c-9a57-6f4d2c1b0a99")
    orders.bust("E1")
    fill, bust = orders.events
    for version, event in enumerate((bust, fill), 1):
        object.__setattr__(event, "version", version)
    await custody.follow([bust, fill])
    assert await custody.states() == []
    assert await audit(custody) == {}


async def test_executions_wait_for_their_instrument_in_order(custody: Custodian, orders: Orders, reference: Reference) -> None:
    await custody.deposit(USD, "1000")
    fill = orders.fill("buy", "5", "10", instrument_id="MSFT")
    orders.fill("buy", "1", "100")
    await custody.follow()
    assert await custody.stores.facts.count_parked() == 1
    reference.instrument("MSFT")
    await custody.learn()
    # Known by now, but the fill is still parked: the correction queues behind it.
    orders.correct(fill, "4", "10")
    await custody.follow()
    assert await custody.stores.facts.count_parked() == 2
    assert [settlement.instrument_id for settlement in await custody.settlements()] == ["AAPL"]
    await custody.work.settling.settle()
    assert await custody.stores.facts.count_parked() == 0
    positions = await audit(custody)
    assert (positions["ACC-1", 2, "MSFT"], positions["ACC-1", 1, "USD"]) == (Decimal(4), Decimal(860))


async def test_a_venue_holiday_moves_the_settlement_date(custody: Custodian, orders: Orders, reference: Reference) -> None:
    reference.instrument("TSLA", holidays=[MONDAY.isoformat()])
    await custody.learn()
    orders.fill("buy", "1", "1", instrument_id="TSLA", trade_date=FRIDAY.isoformat())
    orders.fill("buy", "1", "1", trade_date="2026-11-25")
    await custody.follow()
    dates = [settlement.settlement_date.isoformat() for settlement in await custody.settlements()]
    assert dates == ["2026-11-24", "2026-11-27"], "the 26th is Thanksgiving"
