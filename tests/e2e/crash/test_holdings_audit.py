"""The auditor of holdings on records that agree, and on each violation that it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.crash.agreeing_holdings import AAPL, ACCOUNT, BUYS, HOLDING, TODAY, TRADE, USD, XSIM, Records, agreeing, told
from tests.e2e.crash.holdings_record import (
    AFFIRMED,
    AVAILABLE,
    CANCELED,
    FAILED,
    OMNIBUS,
    SETTLED,
    VENUE,
    Asset,
    Lot,
    Posting,
    Standing,
)  # fmt: skip


def test_records_that_agree_have_no_findings() -> None:
    assert agreeing().audit() == []


def _stand(it: Records, **changes: Any) -> None:
    it.portfolio.positions[HOLDING] = it.portfolio.positions[HOLDING]._replace(**changes)


def _instruction(it: Records, settlement_id: str) -> int:
    return next(number for number, item in enumerate(it.custody.instructions) if item.settlement_id == settlement_id)


def _change(it: Records, settlement_id: str, **changes: Any) -> None:
    number = _instruction(it, settlement_id)
    it.custody.instructions[number] = it.custody.instructions[number]._replace(**changes)


def _shift(it: Records, asset: Asset, account: int, amount: int) -> None:
    it.custody.balances[ACCOUNT, asset, account, XSIM if account == VENUE else ""] += amount


def hold_other_position(it: Records) -> None:
    _stand(it, quantity=Decimal(4))


def lose_securities(it: Records) -> None:
    _shift(it, AAPL, AVAILABLE, -1)


def lose_cash(it: Records) -> None:
    _shift(it, USD, AVAILABLE, -1)


def lose_lot(it: Records) -> None:
    it.portfolio.lots[HOLDING].clear()


def close_the_newest_lot(it: Records) -> None:
    it.portfolio.lots[HOLDING] = [Lot(TODAY, "X-4", True, Decimal(50), Decimal(3))]


def misstate_cost(it: Records) -> None:
    _stand(it, cost=Decimal(150))


def misstate_profit(it: Records) -> None:
    _stand(it, realised=Decimal(2))


def misstate_matches(it: Records) -> None:
    it.portfolio.matched[HOLDING] = Decimal(5)


def count_execution_twice(it: Records) -> None:
    it.portfolio.executions.append(it.portfolio.executions[0])


def misattribute_bust(it: Records) -> None:
    it.portfolio.executions[-1] = it.portfolio.executions[-1]._replace(root=(TODAY, "X-5"))


def skip_change(it: Records) -> None:
    del it.portfolio.changes[HOLDING][1], it.portfolio.events[HOLDING][1]


def tell_other_change(it: Records) -> None:
    it.portfolio.events[HOLDING][0] = Standing(1, Decimal(5), Decimal(196), Decimal(0))


def show_older_position(it: Records) -> None:
    _stand(it, version=Decimal(4))


def unbalance_posting(it: Records) -> None:
    it.custody.entries[0] = it.custody.entries[0]._replace(amount=Decimal(999))


def unbalance_assets(it: Records) -> None:
    _shift(it, USD, OMNIBUS, 1)


def overdraw(it: Records) -> None:
    _shift(it, USD, AVAILABLE, -10_000)


def book_without_event(it: Records) -> None:
    it.custody.entries += [it.custody.entries[0]._replace(version=99), it.custody.entries[1]._replace(version=99)]


def lose_event(it: Records) -> None:
    del it.custody.postings[3]


def lose_deposit(it: Records) -> None:
    it.custody.deposits.clear()


def book_deposit_twice(it: Records) -> None:
    it.custody.deposits["d-2"] = it.custody.deposits["d-1"]


def instruct_twice(it: Records) -> None:
    it.custody.instructions.append(it.custody.instructions[0]._replace(settlement_id="S-9", state=AFFIRMED))


def forget_instruction(it: Records) -> None:
    del it.custody.instructions[_instruction(it, "S-1")]


def settle_busted_trade(it: Records) -> None:
    _change(it, "S-5", state=SETTLED)


def settle_other_terms(it: Records) -> None:
    _change(it, "S-4", cash=Decimal(51))


def take_back_twice(it: Records) -> None:
    it.custody.instructions.append(it.custody.instructions[_instruction(it, "S-3")]._replace(settlement_id="S-9"))


def take_back_the_unsettled(it: Records) -> None:
    _change(it, "S-2", state=CANCELED)


def forget_execution(it: Records) -> None:
    it.custody.executions.pop()


def settle_one_leg(it: Records) -> None:
    it.custody.entries = [
        entry for entry in it.custody.entries if (entry.reference, entry.asset, entry.event_type) != ("S-1", USD, "SettlementSettled")
    ]


def settle_twice(it: Records) -> None:
    it.custody.postings.append(Posting(ACCOUNT, len(it.custody.postings) + 1, "SettlementSettled", "S-1", 0))


def settle_without_moving(it: Records) -> None:
    _change(it, "S-4", state=SETTLED)


def leave_pending(it: Records) -> None:
    _change(it, "S-1", state=AFFIRMED)


def park(it: Records) -> None:
    it.custody.parked = 1


def let_wait(it: Records) -> None:
    _change(it, "S-4", due=True)


def fail_for_nothing(it: Records) -> None:
    _change(it, "S-4", state=FAILED)


def lose_copy(it: Records) -> None:
    it.reporting.orders.pop()


def copy_twice(it: Records) -> None:
    it.reporting.orders.append(it.reporting.orders[0])


def report_no_execution(it: Records) -> None:
    it.reporting.executions.pop()


def lose_settlement_event(it: Records) -> None:
    it.reporting.settlement_events -= 1


def never_reach_custody(it: Records) -> None:
    """An execution that neither custody nor portfolio nor reporting has ever seen."""
    history = it.orders.histories[BUYS]
    late = replace(history, told=[*history.told, told(6, TRADE, 1, 50)], fills={**history.fills, (TODAY, "X-6"): (Decimal(1), Decimal(50))})
    it.orders.histories[BUYS] = late


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (hold_other_position, "fills make 3 AAPL, portfolio has 4"),
        (lose_securities, "fills make 3 AAPL, custody has 2"),
        (lose_cash, "fills make -144 USD, custody has -145"),
        (lose_lot, "lots sum to 0, the position is 3"),
        (close_the_newest_lot, "are not those of first in, first out"),
        (misstate_cost, "cost is 150"),
        (misstate_profit, "realised profit is 2"),
        (misstate_matches, "profit of the matches is 5"),
        (count_execution_twice, "portfolio's executions are not those of the orders"),
        (misattribute_bust, "portfolio's executions are not those of the orders"),
        (skip_change, "5 executions, 4 changes"),
        (tell_other_change, "log tells other changes"),
        (show_older_position, "its last change"),
        (unbalance_posting, "posting 1 has -1 USD too much"),
        (unbalance_assets, "the balances of USD sum to 1"),
        (lose_cash, "its entries sum to"),
        (overdraw, "USD on ledger account 1"),
        (book_without_event, "entries are not what custody's events say"),
        (lose_event, "custody's events have gaps"),
        (lose_deposit, "deposit d-1 was asked as"),
        (book_deposit_twice, "2 deposits are booked, 1 were answered"),
        (instruct_twice, "had terms 1 times and has 2 instructions"),
        (forget_instruction, "had terms 1 times and has 0 instructions"),
        (settle_busted_trade, "stands, and the trade does not"),
        (settle_other_terms, "is to move"),
        (take_back_twice, "is taken back 2 times"),
        (take_back_the_unsettled, "takes back"),
        (forget_execution, "custody's executions are not those of the orders"),
        (settle_one_leg, "S-1 in state 3 moved"),
        (settle_twice, "S-1 in state 3 settled 2 times"),
        (settle_without_moving, "S-4 in state 3 settled 0 times"),
        (leave_pending, "is pending, open instructions are to move"),
        (park, "1 executions are parked"),
        (let_wait, "S-4 still waits"),
        (fail_for_nothing, "S-4 failed, and nothing is lacking"),
        (lose_copy, "reporting's copy is not svc_oms's log"),
        (copy_twice, "reporting's copy is not svc_oms's log"),
        (report_no_execution, "reporting's executions are not those of the orders"),
        (lose_settlement_event, "events of settlements"),
        (never_reach_custody, "fills make 4 AAPL, custody has 3"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Records], None], finding: str) -> None:
    records = agreeing()
    plant(records)
    findings = records.audit()
    assert any(finding in found for found in findings), findings
