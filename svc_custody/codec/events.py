"""The events of ledgers, as the log keeps them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from kernel.ports import NewEvent
from svc_custody.codec.resources import read_entry, read_hold, read_settlement, write_entry, write_hold, write_settlement
from svc_custody.codec.scalars import certain_day, day, moment_of, text, timestamp
from svc_custody.domain import events as e
from svc_custody.domain.book import ExecutionKey, Trade
from svc_custody.domain.vocabulary import FailureReason, Side
from trademesh.custody.v1 import events_pb2 as pb

PREFIX = "custody.v1."
LEDGER_PREFIX = "ledger-"
BUSINESS_DATE_STREAM = "business-date"


def ledger_stream(account_id: str) -> str:
    """Return the stream of an account's ledger."""
    return LEDGER_PREFIX + account_id


def new_event(message: Message) -> NewEvent:
    """Return a message of `events.proto` as an event under its stable name."""
    return NewEvent(PREFIX + message.DESCRIPTOR.name, message.SerializeToString(deterministic=True))


def type_name(event: e.AnyEvent) -> str:
    """Return an event's stable name."""
    return PREFIX + type(event).__name__


def write_event(event: e.AnyEvent) -> NewEvent:
    """Return an event as the log keeps it."""
    return new_event(_message(event))


def read_event(event_type: str, payload: bytes) -> e.AnyEvent | None:
    """Return an event of a ledger's stream, None for a type that this version does not know.

    Raises:
        google.protobuf.message.DecodeError: the payload is not what its type says.
    """
    reader = _READERS.get(event_type.removeprefix(PREFIX))
    if reader is None:
        return None
    message = getattr(pb, event_type.removeprefix(PREFIX)).FromString(payload)
    posting = message.posting
    moment = e.Moment(moment_of(posting.event_time), certain_day(posting.booking_date))
    entries = tuple(read_entry(entry) for entry in posting.entries)
    return reader(message, {"account_id": posting.account_id, "moment": moment, "entries": entries})


def _posting(event: e.AnyEvent) -> pb.Posting:
    return pb.Posting(
        account_id=event.account_id,
        entries=[write_entry(entry) for entry in event.entries],
        booking_date=day(event.moment.business_date),
        event_time=timestamp(event.moment.time),
    )


def write_trade(trade: Trade) -> pb.Trade:
    """Return a trade on the wire."""
    return pb.Trade(
        venue=trade.key.venue,
        trade_date=day(trade.key.trade_date),
        exec_id=trade.key.exec_id,
        order_id=trade.order_id,
        instrument_id=trade.instrument_id,
        side=trade.side.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        quantity=text(trade.quantity),
        price=text(trade.price),
        currency=trade.currency,
        notional=text(trade.notional),
    )


def _read_trade(message: pb.Trade) -> Trade:
    return Trade(
        ExecutionKey(message.venue, certain_day(message.trade_date), message.exec_id),
        message.order_id,
        message.instrument_id,
        Side(message.side),
        Decimal(message.quantity),
        Decimal(message.price),
        message.currency,
        Decimal(message.notional),
    )


def _message(event: e.AnyEvent) -> Message:
    posting = _posting(event)
    match event:
        case e.DepositPosted():
            return pb.DepositPosted(posting=posting, deposit_id=event.deposit_id, principal=event.principal, comment=event.comment)
        case e.WithdrawalPosted():
            return pb.WithdrawalPosted(posting=posting, withdrawal_id=event.withdrawal_id, principal=event.principal, comment=event.comment)
        case e.TradePosted():
            cause_date = day(event.cause.trade_date)
            return pb.TradePosted(
                posting=posting, trade=write_trade(event.trade), cause_exec_id=event.cause.exec_id, cause_trade_date=cause_date
            )
        case e.TradeReversed():
            return pb.TradeReversed(
                posting=posting,
                trade=write_trade(event.trade),
                cause_exec_id=event.cause.exec_id,
                cause_trade_date=day(event.cause.trade_date),
                after_settlement=event.after_settlement,
            )
        case e.TradeVoided():
            return pb.TradeVoided(
                posting=posting,
                venue=event.key.venue,
                trade_date=day(event.key.trade_date),
                exec_id=event.key.exec_id,
                order_id=event.order_id,
                cause_exec_id=event.cause.exec_id,
            )
        case e.HoldCreated():
            return pb.HoldCreated(posting=posting, hold=write_hold(event.hold, event.account_id))
        case e.HoldCaptured():
            return pb.HoldCaptured(posting=posting, hold_id=event.hold_id, principal=event.principal)
        case e.HoldReleased():
            return pb.HoldReleased(posting=posting, hold_id=event.hold_id, principal=event.principal)
        case _:
            return _settlement_message(event, posting)


def _settlement_message(
    event: e.SettlementInstructed | e.SettlementAffirmed | e.SettlementSettled | e.SettlementFailed | e.SettlementCanceled,
    posting: pb.Posting,
) -> Message:
    match event:
        case e.SettlementInstructed():
            return pb.SettlementInstructed(posting=posting, settlement=write_settlement(event.settlement, event.account_id))
        case e.SettlementAffirmed():
            return pb.SettlementAffirmed(posting=posting, settlement_id=event.settlement_id, principal=event.principal)
        case e.SettlementSettled():
            return pb.SettlementSettled(posting=posting, settlement_id=event.settlement_id)
        case e.SettlementFailed():
            return pb.SettlementFailed(
                posting=posting,
                settlement_id=event.settlement_id,
                reason=event.reason.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
                lacking_amount=text(event.lacking_amount),
            )
        case e.SettlementCanceled():
            return pb.SettlementCanceled(posting=posting, settlement_id=event.settlement_id, cause_exec_id=event.cause.exec_id)


def _cause(message: pb.TradePosted | pb.TradeReversed) -> ExecutionKey:
    return ExecutionKey(message.trade.venue, certain_day(message.cause_trade_date), message.cause_exec_id)


def _voided(message: pb.TradeVoided, base: dict[str, Any]) -> e.TradeVoided:
    key = ExecutionKey(message.venue, certain_day(message.trade_date), message.exec_id)
    return e.TradeVoided(key=key, order_id=message.order_id, cause=key._replace(exec_id=message.cause_exec_id), **base)


def _canceled(message: pb.SettlementCanceled, base: dict[str, Any]) -> e.SettlementCanceled:
    # What else identifies the bust stands in TradeReversed, just before.
    cause = ExecutionKey("", base["moment"].business_date, message.cause_exec_id)
    return e.SettlementCanceled(settlement_id=message.settlement_id, cause=cause, **base)


_READERS: dict[str, Callable[[Any, dict[str, Any]], e.AnyEvent]] = {
    "DepositPosted": lambda m, base: e.DepositPosted(deposit_id=m.deposit_id, principal=m.principal, comment=m.comment, **base),
    "WithdrawalPosted": lambda m, base: e.WithdrawalPosted(withdrawal_id=m.withdrawal_id, principal=m.principal, comment=m.comment, **base),
    "TradePosted": lambda m, base: e.TradePosted(trade=_read_trade(m.trade), cause=_cause(m), **base),
    "TradeReversed": lambda m, base: e.TradeReversed(
        trade=_read_trade(m.trade), cause=_cause(m), after_settlement=m.after_settlement, **base
    ),
    "TradeVoided": _voided,
    "SettlementInstructed": lambda m, base: e.SettlementInstructed(settlement=read_settlement(m.settlement), **base),
    "SettlementAffirmed": lambda m, base: e.SettlementAffirmed(settlement_id=m.settlement_id, principal=m.principal, **base),
    "SettlementSettled": lambda m, base: e.SettlementSettled(settlement_id=m.settlement_id, **base),
    "SettlementFailed": lambda m, base: e.SettlementFailed(
        settlement_id=m.settlement_id, reason=FailureReason(m.reason), lacking_amount=Decimal(m.lacking_amount), **base
    ),
    "SettlementCanceled": _canceled,
    "HoldCreated": lambda m, base: e.HoldCreated(hold=read_hold(m.hold), **base),
    "HoldCaptured": lambda m, base: e.HoldCaptured(hold_id=m.hold_id, principal=m.principal, **base),
    "HoldReleased": lambda m, base: e.HoldReleased(hold_id=m.hold_id, principal=m.principal, **base),
}
