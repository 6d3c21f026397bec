"""What follows from a command. Facts of the order service are recorded, never refused; operations' commands may be refused.

| execution | before settlement | after settlement |
| --- | --- | --- |
| fill, unknown | pending in and out, an instruction | – |
| fill, known | nothing: it counts once | nothing |
| bust | pending entries reversed, the instruction canceled | opposite entries pending, a reversing instruction, tried at once |
| bust of a fill that never came | the fill is voided: it will not count | – |
| correction | as a bust, then as a fill with the new terms | the same |
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from kernel.errors import FailedPreconditionError, FieldViolation, InvalidArgumentError, NotFoundError, Reason
from kernel.values import notional
from svc_custody.domain import commands as c
from svc_custody.domain import events as e
from svc_custody.domain.book import Book, ExecutionKey, Hold, Settlement, Trade
from svc_custody.domain.business_days import cycle_days, settlement_date
from svc_custody.domain.entries import captured, held, lacking, moved_in, pending, reversed_entries, settled
from svc_custody.domain.evolve import evolve
from svc_custody.domain.identity import settlement_id_of
from svc_custody.domain.vocabulary import Asset, AssetType, ExecutionType, FailureReason, HoldState, SettlementState

BALANCE_MAX = Decimal(10) ** 18
"""What deposits may bring a balance to: a hundredth of what fits, so that trades have room."""


def decide(book: Book, command: c.Command) -> Sequence[e.AnyEvent]:
    """Return what happens; nothing where the command changes nothing.

    Raises:
        TrademeshError: operations' command is refused.
    """
    match command:
        case c.ApplyExecution():
            return _apply(book, command)
        case c.PostDeposit():
            return _deposit(book, command)
        case c.PostWithdrawal():
            _require(book, command.asset, command.amount)
            entries = moved_in(command.asset, -command.amount)
            return [
                e.WithdrawalPosted(
                    account_id=book.account_id, moment=command.moment, entries=entries, withdrawal_id=command.withdrawal_id,
                    principal=command.principal, comment=command.comment,
                )
            ]  # fmt: skip
        case c.AffirmSettlement():
            return _affirm(book, command)
        case c.AttemptSettlement():
            return attempt(book, command.settlement_id, command.moment)
        case c.CreateHold():
            return _create_hold(book, command)
        case c.CaptureHold() | c.ReleaseHold():
            return _end_hold(book, command)


def fold(book: Book, events: Sequence[e.AnyEvent]) -> Book:
    """Return the ledger after events."""
    for event in events:
        book = evolve(book, event)
    return book


def attempt(book: Book, settlement_id: str, moment: e.Moment) -> list[e.AnyEvent]:
    """Return what an attempt to settle comes to: settled, failed, or nothing where that is known or it is not due."""
    settlement = book.settlements[settlement_id]
    tried = settlement.state in (SettlementState.AFFIRMED, SettlementState.FAILED)
    if not tried or not settlement.due(moment.business_date):
        return []
    for flow, reason in zip(settlement.flows, (FailureReason.LACK_OF_SECURITIES, FailureReason.LACK_OF_CASH), strict=True):
        missing = lacking(flow, book.available(flow.asset))
        if missing:
            if _failed_before(settlement, reason, moment):
                return []
            return [
                e.SettlementFailed(
                    account_id=book.account_id, moment=moment, settlement_id=settlement_id, reason=reason, lacking_amount=missing
                )
            ]
    entries = settled(settlement.flows, settlement.trade_key.venue)
    return [e.SettlementSettled(account_id=book.account_id, moment=moment, entries=entries, settlement_id=settlement_id)]


def _failed_before(settlement: Settlement, reason: FailureReason, moment: e.Moment) -> bool:
    known = (settlement.state, settlement.failure_reason, settlement.attempt_date)
    return known == (SettlementState.FAILED, reason, moment.business_date)


def _apply(book: Book, command: c.ApplyExecution) -> list[e.AnyEvent]:
    execution = command.execution
    if execution.key in book.executions:
        return []
    if execution.type is ExecutionType.TRADE:
        return _post(book, command, execution.key)
    named = execution.key._replace(exec_id=execution.exec_ref_id)
    root = book.root_of(named, execution.order_id)
    trade = None if root is None else book.trades.get(root)
    taken_back = [] if trade is None or trade.busted else _reverse(book, trade, command)
    if execution.type is ExecutionType.TRADE_CORRECT:
        return [*taken_back, *_post(fold(book, taken_back), command, named if root is None else root)]
    if root is None:
        return [
            e.TradeVoided(account_id=book.account_id, moment=command.moment, key=named, order_id=execution.order_id, cause=execution.key)
        ]
    return taken_back


def _post(book: Book, command: c.ApplyExecution, root: ExecutionKey) -> list[e.AnyEvent]:
    execution, instrument, moment = command.execution, command.instrument, command.moment
    before = book.trades.get(root)
    trade = Trade(
        root, execution.order_id, execution.instrument_id, execution.side, execution.quantity, execution.price, instrument.currency,
        notional(execution.price, execution.quantity), 0 if before is None else before.generation,
    )  # fmt: skip
    posted = e.TradePosted(
        account_id=book.account_id, moment=moment, entries=pending(trade.flows, root.venue), trade=trade, cause=execution.key
    )
    cycle = cycle_days(instrument.asset_class)
    securities, payment = trade.flows
    settlement = Settlement(
        settlement_id=settlement_id_of(book.account_id, root, trade.generation),
        trade_key=root,
        order_id=trade.order_id,
        instrument_id=trade.instrument_id,
        securities_amount=securities.amount,
        currency=trade.currency,
        cash_amount=payment.amount,
        settlement_date=settlement_date(root.trade_date, cycle, instrument.is_open),
        cycle_days=cycle,
        affirm_time=moment.time + command.affirm_after,
        create_time=moment.time,
        update_time=moment.time,
    )
    return [posted, e.SettlementInstructed(account_id=book.account_id, moment=moment, settlement=settlement)]


def _reverse(book: Book, trade: Trade, command: c.ApplyExecution) -> list[e.AnyEvent]:
    """Take a trade's terms back: what is pending is reversed, what is settled is instructed the other way round."""
    account_id, moment, cause = book.account_id, command.moment, command.execution.key
    settlement = book.settlements[trade.settlement_id]
    after_settlement = settlement.state is SettlementState.SETTLED
    if after_settlement:
        entries = pending([flow._replace(amount=-flow.amount) for flow in trade.flows], trade.key.venue)
    else:
        entries = reversed_entries(pending(trade.flows, trade.key.venue))
    taken = e.TradeReversed(
        account_id=account_id, moment=moment, entries=entries, trade=trade, cause=cause, after_settlement=after_settlement
    )
    if not after_settlement:
        canceled = e.SettlementCanceled(account_id=account_id, moment=moment, settlement_id=settlement.settlement_id, cause=cause)
        return [taken, canceled]
    return [taken, *_take_back(fold(book, [taken]), trade, settlement, moment)]


def _take_back(book: Book, trade: Trade, settlement: Settlement, moment: e.Moment) -> list[e.AnyEvent]:
    """Instruct the opposite of a settled instruction, due now; it fails like any other where the account no longer has what it got."""
    opposite = Settlement(
        settlement_id=settlement_id_of(book.account_id, trade.key, trade.generation),
        trade_key=trade.key,
        order_id=trade.order_id,
        instrument_id=trade.instrument_id,
        securities_amount=-settlement.securities_amount,
        currency=settlement.currency,
        cash_amount=-settlement.cash_amount,
        settlement_date=moment.business_date,
        cycle_days=0,
        affirm_time=moment.time,
        create_time=moment.time,
        update_time=moment.time,
        reverses_settlement_id=settlement.settlement_id,
    )
    events: list[e.AnyEvent] = [
        e.SettlementInstructed(account_id=book.account_id, moment=moment, settlement=opposite),
        e.SettlementAffirmed(account_id=book.account_id, moment=moment, settlement_id=opposite.settlement_id, principal=""),
    ]
    return [*events, *attempt(fold(book, events), opposite.settlement_id, moment)]


def _deposit(book: Book, command: c.PostDeposit) -> list[e.AnyEvent]:
    if book.available(command.asset) + command.amount >= BALANCE_MAX:
        text = "the balance after it must be below 10^18"
        violation = FieldViolation("amount", "deposit.balance", text)
        raise InvalidArgumentError(Reason.FIELD_INVALID, f"amount: {text}", field_violations=(violation,))
    entries = moved_in(command.asset, command.amount)
    return [
        e.DepositPosted(
            account_id=book.account_id, moment=command.moment, entries=entries, deposit_id=command.deposit_id,
            principal=command.principal, comment=command.comment,
        )
    ]  # fmt: skip


def _affirm(book: Book, command: c.AffirmSettlement) -> list[e.AnyEvent]:
    settlement = book.settlements.get(command.settlement_id)
    by_time = not command.principal
    if settlement is None:
        raise no_settlement(command.settlement_id)
    if settlement.state is not SettlementState.INSTRUCTED:
        if by_time:
            return []
        raise FailedPreconditionError(
            Reason.SETTLEMENT_STATE_INVALID,
            f"the instruction is {settlement.state.name}; only an INSTRUCTED one is affirmed",
            metadata={"resource_type": "settlement", "resource_name": command.settlement_id, "state": settlement.state.name},
        )
    if by_time and settlement.affirm_time > command.moment.time:
        return []
    return [
        e.SettlementAffirmed(
            account_id=book.account_id, moment=command.moment, settlement_id=settlement.settlement_id, principal=command.principal
        )
    ]


def _create_hold(book: Book, command: c.CreateHold) -> list[e.AnyEvent]:
    _require(book, command.asset, command.amount)
    time = command.moment.time
    hold = Hold(command.hold_id, command.asset, command.amount, command.comment, command.principal, time, time)
    entries = held(command.asset, command.amount)
    return [e.HoldCreated(account_id=book.account_id, moment=command.moment, entries=entries, hold=hold)]


def _end_hold(book: Book, command: c.CaptureHold | c.ReleaseHold) -> list[e.AnyEvent]:
    hold = book.holds.get(command.hold_id)
    metadata = {"resource_type": "hold", "resource_name": command.hold_id}
    if hold is None:
        raise NotFoundError(Reason.HOLD_NOT_FOUND, "no such hold in this account", metadata=metadata)
    if hold.state is not HoldState.ACTIVE:
        text = f"the hold is {hold.state.name}; only an ACTIVE one is captured or released"
        raise FailedPreconditionError(Reason.HOLD_STATE_INVALID, text, metadata={**metadata, "state": hold.state.name})
    account_id, moment, principal = book.account_id, command.moment, command.principal
    if isinstance(command, c.CaptureHold):
        entries = captured(hold.asset, hold.amount)
        return [e.HoldCaptured(account_id=account_id, moment=moment, entries=entries, hold_id=hold.hold_id, principal=principal)]
    entries = held(hold.asset, -hold.amount)
    return [e.HoldReleased(account_id=account_id, moment=moment, entries=entries, hold_id=hold.hold_id, principal=principal)]


def _require(book: Book, asset: Asset, amount: Decimal) -> None:
    available = book.available(asset)
    if amount > available:
        in_cash = asset.type is AssetType.CASH
        raise FailedPreconditionError(
            Reason.INSUFFICIENT_CASH if in_cash else Reason.INSUFFICIENT_SECURITIES,
            f"{amount:f} {asset.asset_id} is needed and {available:f} is available",
            metadata={
                "resource_type": "account", "resource_name": book.account_id, "asset_id": asset.asset_id, "available": f"{available:f}"
            },
        )  # fmt: skip


def no_settlement(settlement_id: str) -> NotFoundError:
    """Return the refusal of an instruction that is not the account's."""
    metadata = {"resource_type": "settlement", "resource_name": settlement_id}
    return NotFoundError(Reason.SETTLEMENT_NOT_FOUND, "no such settlement instruction in this account", metadata=metadata)
