"""Entries, balances, settlements and holds on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal

from google.protobuf.message import Message

from kernel.values import parse_decimal
from svc_custody.codec.scalars import certain_day, day, day_of, moment_of, text, timestamp
from svc_custody.domain.book import Book, ExecutionKey, Hold, Settlement
from svc_custody.domain.entries import Entry
from svc_custody.domain.vocabulary import Asset, AssetType, FailureReason, HoldState, LedgerAccount, SettlementState
from trademesh.custody.v1 import ledger_pb2, settlement_pb2


def write_entry(entry: Entry) -> ledger_pb2.Entry:
    """Return a line on the wire."""
    return ledger_pb2.Entry(
        ledger_account=entry.ledger_account.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        asset_type=entry.asset.type.value,  # type: ignore[arg-type]  # as above
        asset_id=entry.asset.asset_id,
        amount=text(entry.amount),
        venue=entry.venue,
    )


def read_entry(message: ledger_pb2.Entry) -> Entry:
    """Return a line from the wire."""
    asset = Asset(AssetType(message.asset_type), message.asset_id)
    return Entry(LedgerAccount(message.ledger_account), asset, Decimal(message.amount), message.venue)


def write_settlement(settlement: Settlement, account_id: str) -> settlement_pb2.Settlement:
    """Return an instruction on the wire."""
    return settlement_pb2.Settlement(
        settlement_id=settlement.settlement_id,
        account_id=account_id,
        venue=settlement.trade_key.venue,
        trade_date=day(settlement.trade_key.trade_date),
        exec_id=settlement.trade_key.exec_id,
        order_id=settlement.order_id,
        instrument_id=settlement.instrument_id,
        securities_amount=text(settlement.securities_amount),
        currency=settlement.currency,
        cash_amount=text(settlement.cash_amount),
        settlement_date=day(settlement.settlement_date),
        state=settlement.state.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        failure_reason=settlement.failure_reason.value if settlement.failure_reason is not None else 0,  # type: ignore[arg-type]  # as above
        lacking_amount=text(settlement.lacking_amount) if settlement.lacking_amount else "",
        attempt_date=day(settlement.attempt_date),
        failed_days=settlement.failed_days,
        settled_date=day(settlement.settled_date),
        reverses_settlement_id=settlement.reverses_settlement_id,
        affirm_time=timestamp(settlement.affirm_time),
        create_time=timestamp(settlement.create_time),
        update_time=timestamp(settlement.update_time),
        cycle_days=settlement.cycle_days,
    )


def read_settlement(message: settlement_pb2.Settlement) -> Settlement:
    """Return an instruction from the wire."""
    return Settlement(
        settlement_id=message.settlement_id,
        trade_key=ExecutionKey(message.venue, certain_day(message.trade_date), message.exec_id),
        order_id=message.order_id,
        instrument_id=message.instrument_id,
        securities_amount=Decimal(message.securities_amount),
        currency=message.currency,
        cash_amount=Decimal(message.cash_amount),
        settlement_date=certain_day(message.settlement_date),
        cycle_days=message.cycle_days,
        affirm_time=moment_of(message.affirm_time),
        create_time=moment_of(message.create_time),
        update_time=moment_of(message.update_time),
        state=SettlementState(message.state),
        failure_reason=FailureReason(message.failure_reason) if message.failure_reason else None,
        lacking_amount=Decimal(message.lacking_amount or 0),
        attempt_date=day_of(message.attempt_date),
        failed_days=message.failed_days,
        settled_date=day_of(message.settled_date),
        reverses_settlement_id=message.reverses_settlement_id,
    )


def write_hold(hold: Hold, account_id: str) -> settlement_pb2.Hold:
    """Return a hold on the wire."""
    return settlement_pb2.Hold(
        hold_id=hold.hold_id,
        account_id=account_id,
        asset_type=hold.asset.type.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        asset_id=hold.asset.asset_id,
        amount=text(hold.amount),
        state=hold.state.value,  # type: ignore[arg-type]  # as above
        comment=hold.comment,
        principal=hold.principal,
        create_time=timestamp(hold.create_time),
        update_time=timestamp(hold.update_time),
    )


def read_hold(message: settlement_pb2.Hold) -> Hold:
    """Return a hold from the wire."""
    return Hold(
        hold_id=message.hold_id,
        asset=Asset(AssetType(message.asset_type), message.asset_id),
        amount=Decimal(message.amount),
        comment=message.comment,
        principal=message.principal,
        create_time=moment_of(message.create_time),
        update_time=moment_of(message.update_time),
        state=HoldState(message.state),
    )


def write_balance(asset: Asset, amounts: Mapping[LedgerAccount, Decimal]) -> ledger_pb2.Balance:
    """Return what an account has of an asset, from its client balances; absent ones are zero."""
    zero = Decimal(0)
    available = amounts.get(LedgerAccount.CLIENT_AVAILABLE, zero)
    held = amounts.get(LedgerAccount.CLIENT_HELD, zero)
    pending_in = amounts.get(LedgerAccount.CLIENT_PENDING_IN, zero)
    pending_out = -amounts.get(LedgerAccount.CLIENT_PENDING_OUT, zero)
    return ledger_pb2.Balance(
        asset_type=asset.type.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        asset_id=asset.asset_id,
        available=text(available),
        held=text(held),
        pending_in=text(pending_in),
        pending_out=text(pending_out),
        settled=text(available + held),
        position=text(available + held + pending_in - pending_out),
    )


def book_balance(book: Book, asset: Asset) -> ledger_pb2.Balance:
    """Return what a ledger has of an asset."""
    return write_balance(asset, {account: book.balance(account, asset) for account in LedgerAccount})


def command_hash(tenant: str, principal: str, request: Message) -> bytes:
    """Return what a request id stands for: the caller and the whole command. Another caller's replay is another command, and another
    spelling of the same number or id is not.
    """
    name = f"{tenant}\0{principal}\0{request.DESCRIPTOR.full_name}\0".encode()
    command = type(request)()
    command.CopyFrom(request)
    for field in command.DESCRIPTOR.fields:
        value = getattr(command, field.name)
        if field.name == "amount":
            setattr(command, field.name, text(parse_decimal(value, field=field.name)))
        elif field.name in ("request_id", "settlement_id", "hold_id"):
            setattr(command, field.name, value.lower())
    return hashlib.sha256(name + command.SerializeToString(deterministic=True)).digest()
