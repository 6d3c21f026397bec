"""The only way that a ledger changes. Total: every recorded event folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from kernel.values import ZERO, check_decimal, total
from svc_custody.domain import events as e
from svc_custody.domain.book import BalanceKey, Book, ExecutionKey, Trade
from svc_custody.domain.entries import Entries, balanced
from svc_custody.domain.vocabulary import NEVER_NEGATIVE, NEVER_POSITIVE, HoldState, SettlementState

Key = TypeVar("Key")
Value = TypeVar("Value")


def evolve(book: Book, event: e.AnyEvent) -> Book:
    """Return the ledger after an event.

    Raises:
        AssertionError, ValueError: the event would unbalance the ledger or leave its bounds; a defect of what decided it.
    """
    changed = replace(book, balances=_entered(book.balances, event.entries)) if event.entries else book
    match event:
        case e.TradePosted():
            return _posted(changed, event.trade, event.cause)
        case e.TradeReversed():
            return _posted(changed, event.trade._replace(busted=True), event.cause)
        case e.TradeVoided():
            known = {event.key: event.key, event.cause: event.key}
            return replace(changed, executions={**changed.executions, **known})
        case e.HoldCreated():
            return replace(changed, holds=_with(changed.holds, event.hold.hold_id, event.hold))
        case e.HoldCaptured():
            return _hold(changed, event, HoldState.CAPTURED)
        case e.HoldReleased():
            return _hold(changed, event, HoldState.RELEASED)
        case e.DepositPosted() | e.WithdrawalPosted():
            return changed
        case _:
            return _settlement(changed, event)


def _entered(balances: Mapping[BalanceKey, Decimal], entries: Entries) -> dict[BalanceKey, Decimal]:
    assert balanced(entries), "a posting sums to zero for each asset"
    result = dict(balances)
    for entry in entries:
        key = BalanceKey(entry.asset, entry.ledger_account, entry.venue)
        result[key] = check_decimal(total((result.get(key, ZERO), entry.amount)))
    for entry in entries:
        after = result[BalanceKey(entry.asset, entry.ledger_account, entry.venue)]
        assert after >= 0 or entry.ledger_account not in NEVER_NEGATIVE, f"{entry.ledger_account.name} would be {after}"
        assert after <= 0 or entry.ledger_account not in NEVER_POSITIVE, f"{entry.ledger_account.name} would be {after}"
    return result


def _posted(book: Book, trade: Trade, cause: ExecutionKey) -> Book:
    executions = {**book.executions, trade.key: trade.key, cause: trade.key}
    before = book.trades.get(trade.key)
    # What counts instructions is the ledger's, not the event's.
    counted = trade._replace(settlement_id="", generation=0 if before is None else before.generation)
    return replace(book, executions=executions, trades=_with(book.trades, trade.key, counted))


def _hold(book: Book, event: e.HoldCaptured | e.HoldReleased, state: HoldState) -> Book:
    hold = replace(book.holds[event.hold_id], state=state, update_time=event.moment.time)
    return replace(book, holds=_with(book.holds, hold.hold_id, hold))


def _settlement(
    book: Book,
    event: e.SettlementInstructed | e.SettlementAffirmed | e.SettlementSettled | e.SettlementFailed | e.SettlementCanceled,
) -> Book:
    time, business_date = event.moment
    if isinstance(event, e.SettlementInstructed):
        made = event.settlement
        settlements = _with(book.settlements, made.settlement_id, made)
        trade = book.trades[made.trade_key]
        # What takes a settled trade back belongs to no terms that still hold.
        linked = trade if made.reverses_settlement_id else trade._replace(settlement_id=made.settlement_id)
        counted = linked._replace(generation=trade.generation + 1)
        return replace(book, settlements=settlements, trades=_with(book.trades, made.trade_key, counted))
    before = book.settlements[event.settlement_id]
    match event:
        case e.SettlementAffirmed():
            after = replace(before, state=SettlementState.AFFIRMED, update_time=time)
        case e.SettlementSettled():
            after = replace(
                before,
                state=SettlementState.SETTLED,
                attempt_date=business_date,
                settled_date=business_date,
                lacking_amount=ZERO,
                update_time=time,
            )
        case e.SettlementFailed():
            another_day = before.state is not SettlementState.FAILED or before.attempt_date != business_date
            after = replace(
                before,
                state=SettlementState.FAILED,
                failure_reason=event.reason,
                lacking_amount=event.lacking_amount,
                attempt_date=business_date,
                failed_days=before.failed_days + another_day,
                update_time=time,
            )
        case e.SettlementCanceled():
            after = replace(before, state=SettlementState.CANCELED, update_time=time)
    return replace(book, settlements=_with(book.settlements, after.settlement_id, after))


def _with(mapping: Mapping[Key, Value], key: Key, value: Value) -> dict[Key, Value]:
    return {**mapping, key: value}
