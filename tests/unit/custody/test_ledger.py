"""What follows from a command on one account's ledger."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kernel.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, Reason
from svc_custody.domain import commands as c
from svc_custody.domain import events as e
from svc_custody.domain.book import ExecutionKey
from svc_custody.domain.entries import Entry, balanced
from svc_custody.domain.evolve import evolve
from svc_custody.domain.vocabulary import FailureReason, LedgerAccount, Side
from tests.unit.custody.ledgers import AAPL, CRYPTO, START, TRADE_DATE, USD, Ledger


def test_a_trade_enters_both_legs_against_the_venue() -> None:
    ledger = Ledger()
    ledger.fill(Side.SELL, "3", "0.000000000000000001")
    posted = ledger.events[0]
    assert isinstance(posted, e.TradePosted)
    assert posted.entries == (
        Entry(LedgerAccount.CLIENT_PENDING_OUT, AAPL, Decimal(-3)),
        Entry(LedgerAccount.VENUE_SETTLEMENT, AAPL, Decimal(3), "XSIM"),
        Entry(LedgerAccount.CLIENT_PENDING_IN, USD, Decimal("0.000000000000000003")),
        Entry(LedgerAccount.VENUE_SETTLEMENT, USD, Decimal("-0.000000000000000003"), "XSIM"),
    )


def test_a_notional_finer_than_18_places_is_rounded_once_half_even() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "1")
    ledger.fill(Side.BUY, "0.5", "0.000000000000000003")
    assert ledger.settlements[0].cash_amount == Decimal("-0.000000000000000002")
    ledger.settle()
    assert ledger.states == ["SETTLED"]
    assert all(balanced(event.entries) for event in ledger.events)


def test_a_trade_for_nothing_settles_its_one_leg() -> None:
    ledger = Ledger()
    ledger.fill(Side.BUY, "2", "0")
    ledger.settle()
    assert (ledger.states, ledger.amounts(AAPL)) == (["SETTLED"], ("2", "0", "0", "0"))


def test_a_negative_price_pays_the_buyer() -> None:
    ledger = Ledger()
    ledger.fill(Side.BUY, "2", "-10")
    assert ledger.amounts(USD) == ("0", "0", "20", "0")
    ledger.settle()
    assert ledger.amounts(USD) == ("20", "0", "0", "0")


def test_crypto_is_due_at_once_and_shares_on_the_next_business_day() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "10")
    ledger.fill(Side.BUY, "1", "1", instrument=CRYPTO)
    ledger.fill(Side.BUY, "1", "1")
    ledger.affirm_all()
    for settlement in ledger.settlements:
        ledger.attempt(settlement.settlement_id)
    assert ledger.states == ["SETTLED", "AFFIRMED"]
    assert [settlement.settlement_date.isoformat() for settlement in ledger.settlements] == ["2026-11-20", "2026-11-23"]


def test_nothing_settles_before_it_is_affirmed() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "10")
    ledger.fill(Side.BUY, "1", "1")
    ledger.today = TRADE_DATE.replace(day=30)
    assert ledger.attempt(ledger.settlements[0].settlement_id) == []


def test_a_short_sale_fails_for_lack_of_securities_once_a_day() -> None:
    ledger = Ledger()
    ledger.deposit(AAPL, "2")
    ledger.fill(Side.SELL, "5", "10")
    ledger.settle()
    failed = ledger.events[-1]
    assert isinstance(failed, e.SettlementFailed)
    assert (failed.reason, failed.lacking_amount) == (FailureReason.LACK_OF_SECURITIES, Decimal(3))
    assert not failed.entries
    assert ledger.attempt(failed.settlement_id) == []
    ledger.next_day()
    assert len(ledger.attempt(failed.settlement_id)) == 1
    assert ledger.settlements[0].failed_days == 2


def test_what_is_held_does_not_settle_a_trade() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "100")
    hold = ledger.hold(USD, "1")
    ledger.fill(Side.BUY, "1", "100")
    ledger.settle()
    assert ledger.states == ["FAILED"]
    ledger.do(c.ReleaseHold(hold, "olga", ledger.moment))
    ledger.settle()
    assert (ledger.states, ledger.amounts(USD)) == (["SETTLED"], ("0", "0", "0", "0"))


def test_a_busted_failure_is_canceled() -> None:
    ledger = Ledger()
    fill = ledger.fill(Side.BUY, "1", "100")
    ledger.settle()
    ledger.bust(fill)
    assert ledger.states == ["CANCELED"]
    assert not any(ledger.book.balances.values())
    assert ledger.attempt(ledger.settlements[0].settlement_id) == []


def test_a_second_bust_and_a_repeated_one_change_nothing() -> None:
    ledger = Ledger()
    fill = ledger.fill(Side.BUY, "1", "100")
    bust = ledger.bust(fill)
    before = ledger.book
    ledger.bust(fill, bust)
    ledger.bust(fill)
    assert ledger.book == before


def test_a_correction_of_a_busted_fill_brings_it_back() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "100")
    fill = ledger.fill(Side.BUY, "1", "100")
    ledger.bust(fill)
    ledger.correct(fill, Side.BUY, "2", "30")
    ledger.settle()
    assert (ledger.states, ledger.amounts(AAPL)) == (["CANCELED", "SETTLED"], ("2", "0", "0", "0"))


def test_a_correction_whose_fill_never_came_counts_as_the_fill() -> None:
    ledger = Ledger()
    ledger.correct("E9", Side.BUY, "2", "30")
    ledger.fill(Side.BUY, "1", "30", exec_id="E9")
    assert ledger.amounts(AAPL) == ("0", "0", "2", "0")


def test_a_voided_fill_does_not_count() -> None:
    ledger = Ledger()
    ledger.bust("E9")
    ledger.fill(Side.BUY, "1", "30", exec_id="E9")
    assert isinstance(ledger.events[-1], e.TradeVoided)
    assert not ledger.book.balances


def test_a_bust_after_settlement_takes_back_and_leaves_the_first_instruction_settled() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "100")
    fill = ledger.fill(Side.BUY, "1", "100")
    ledger.settle()
    ledger.bust(fill)
    assert ledger.states == ["SETTLED", "SETTLED"]
    assert ledger.settlements[1].reverses_settlement_id == ledger.settlements[0].settlement_id
    assert (ledger.amounts(USD), ledger.amounts(AAPL)) == (("100", "0", "0", "0"), ("0", "0", "0", "0"))


def test_a_bust_after_settlement_waits_for_what_was_spent() -> None:
    ledger = Ledger()
    ledger.deposit(AAPL, "1")
    fill = ledger.fill(Side.SELL, "1", "100")
    ledger.settle()
    ledger.withdraw(USD, "100")
    ledger.bust(fill)
    assert ledger.states == ["SETTLED", "FAILED"]
    assert (ledger.amounts(USD), ledger.amounts(AAPL)) == (("0", "0", "0", "-100"), ("0", "0", "1", "0"))
    ledger.deposit(USD, "100")
    ledger.attempt(ledger.settlements[1].settlement_id)
    ledger.next_day()
    ledger.attempt(ledger.settlements[1].settlement_id)
    assert (ledger.amounts(USD), ledger.amounts(AAPL)) == (("0", "0", "0", "0"), ("1", "0", "0", "0"))


@pytest.mark.parametrize(("asset", "reason"), [(USD, Reason.INSUFFICIENT_CASH), (AAPL, Reason.INSUFFICIENT_SECURITIES)])
def test_more_than_is_available_is_neither_held_nor_withdrawn(asset: object, reason: Reason) -> None:
    ledger = Ledger()
    wanted = USD if asset is USD else AAPL
    ledger.deposit(wanted, "10")
    ledger.hold(wanted, "4")
    for refused in (ledger.hold, ledger.withdraw):
        with pytest.raises(FailedPreconditionError) as error:
            refused(wanted, "6.000000000000000001")
        assert error.value.reason is reason
    ledger.withdraw(wanted, "6")
    assert ledger.amounts(wanted) == ("0", "4", "0", "0")


def test_a_hold_ends_once() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "10")
    hold = ledger.hold(USD, "4")
    ledger.do(c.CaptureHold(hold, "olga", ledger.moment))
    assert ledger.amounts(USD) == ("6", "0", "0", "0")
    assert ledger.book.balance(LedgerAccount.SUSPENSE, USD) == 4
    for command in (c.CaptureHold(hold, "olga", ledger.moment), c.ReleaseHold(hold, "olga", ledger.moment)):
        with pytest.raises(FailedPreconditionError) as error:
            ledger.do(command)
        assert error.value.reason is Reason.HOLD_STATE_INVALID
    with pytest.raises(NotFoundError):
        ledger.do(c.ReleaseHold("none", "olga", ledger.moment))


def test_an_instruction_is_affirmed_once_by_people_and_only_in_time_by_itself() -> None:
    ledger = Ledger()
    ledger.fill(Side.BUY, "1", "1")
    (settlement,) = ledger.settlements
    early = e.Moment(START.replace(hour=14), TRADE_DATE)
    assert ledger.do(c.AffirmSettlement(settlement.settlement_id, "", early)) == []
    assert len(ledger.do(c.AffirmSettlement(settlement.settlement_id, "olga", early))) == 1
    assert ledger.do(c.AffirmSettlement(settlement.settlement_id, "", ledger.moment)) == []
    with pytest.raises(FailedPreconditionError) as error:
        ledger.do(c.AffirmSettlement(settlement.settlement_id, "olga", ledger.moment))
    assert error.value.reason is Reason.SETTLEMENT_STATE_INVALID
    with pytest.raises(NotFoundError):
        ledger.do(c.AffirmSettlement("none", "olga", ledger.moment))


def test_deposits_leave_room_for_trades() -> None:
    ledger = Ledger()
    ledger.deposit(USD, "999999999999999999")
    with pytest.raises(InvalidArgumentError):
        ledger.deposit(USD, "1")


def test_an_event_that_would_unbalance_a_ledger_is_a_defect() -> None:
    ledger = Ledger()
    moment = ledger.moment
    one_sided = (Entry(LedgerAccount.CLIENT_AVAILABLE, USD, Decimal(1)),)
    overdrawn = (Entry(LedgerAccount.CLIENT_AVAILABLE, USD, Decimal(-1)), Entry(LedgerAccount.OMNIBUS, USD, Decimal(1)))
    for entries in (one_sided, overdrawn):
        with pytest.raises(AssertionError):
            evolve(ledger.book, e.SettlementSettled(account_id="ACC-1", moment=moment, entries=entries, settlement_id="none"))


def test_instructions_of_one_trade_have_ids_of_their_own_that_derive_from_it() -> None:
    ids = []
    for _ in range(2):
        ledger = Ledger()
        ledger.deposit(USD, "100")
        fill = ledger.fill(Side.BUY, "1", "10", exec_id="E1")
        ledger.settle()
        second = ledger.correct(fill, Side.BUY, "2", "10")
        ledger.correct(second, Side.BUY, "3", "10")
        ids.append(list(ledger.book.settlements))
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 4
    assert ledger.book.trades[ExecutionKey("XSIM", TRADE_DATE, "E1")].quantity == 3
