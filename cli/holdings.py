"""What accounts hold: positions and profit by svc_portfolio, balances and settlements by svc_custody."""

from __future__ import annotations

from typing import Any

import click

from cli import rpcs
from cli.exits import Exit
from cli.output import enum_name, optional
from cli.session import Group, Session, command, new_key, with_session
from trademesh.custody.v1 import custody_service_pb2, ledger_pb2, settlement_pb2
from trademesh.portfolio.v1 import portfolio_service_pb2, position_pb2
from trademesh.type.v1 import order_terms_pb2

_account = click.option("--account", required=True, metavar="ACCOUNT", help="The account, such as ACC-1.")
_page_size = click.option("--page-size", type=int, default=50, show_default=True, metavar="COUNT")
_page_token = click.option("--page-token", default="", metavar="TOKEN", help="From the page before.")
_key = click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")

ASSETS = {"cash": ledger_pb2.ASSET_TYPE_CASH, "security": ledger_pb2.ASSET_TYPE_SECURITY}


@command()
@_account
@click.option("--closed", "include_closed", is_flag=True, help="Also positions of quantity 0.")
@with_session
def positions(session: Session, account: str, include_closed: bool) -> int:
    """Show an account's positions with cost, profit and value."""
    request = portfolio_service_pb2.GetPortfolioRequest(account_id=account, include_closed=include_closed)
    message = session.call(rpcs.GET_PORTFOLIO, request, account).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    columns = ("instrument", "position", "average cost", "cost", "realised", "mark", "value", "unrealised", "currency")
    session.output.table(columns, [_position_row(item) for item in message.positions], empty="No positions.")
    for total in message.totals:
        value, unrealised = optional(total, "market_value") or "?", optional(total, "unrealised_pnl") or "?"
        text = f"{total.currency}: cost {total.cost}, value {value}, realised {total.realised_pnl}, unrealised {unrealised}"
        session.output.line(text + (" (a mark is stale)" if total.stale else ""))
    return Exit.DONE


def _position_row(item: position_pb2.Position) -> tuple[str, ...]:
    mark = ""
    if item.HasField("mark"):
        source = enum_name(position_pb2.MarkSource, item.mark.source, "MARK_SOURCE_").lower().replace("_", " ")
        mark = f"{item.mark.price} ({source}{', stale' if item.mark.stale else ''})"
    return (
        item.instrument_id,
        item.quantity,
        optional(item, "average_cost"),
        item.cost,
        item.realised_pnl,
        mark,
        optional(item, "market_value"),
        optional(item, "unrealised_pnl"),
        item.currency,
    )


@command()
@_account
@click.option("--instrument", "instrument_id", default="", metavar="INSTRUMENT", help="Only lots of this instrument.")
@click.option("--closed", "include_closed", is_flag=True, help="Also closed lots.")
@_page_size
@_page_token
@with_session
def lots(session: Session, account: str, **selection: Any) -> int:
    """List an account's lots in the order in which they are closed."""
    message = session.call(rpcs.LIST_LOTS, portfolio_service_pb2.ListLotsRequest(account_id=account, **selection), account).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    rows = [
        (
            item.lot_id,
            item.instrument_id,
            enum_name(order_terms_pb2.Side, item.side, "SIDE_"),
            item.quantity,
            item.remaining_quantity,
            item.price,
            item.trade_date,
        )
        for item in message.lots
    ]
    columns = ("lot", "instrument", "side", "quantity", "remaining", "price", "trade date")
    session.output.table(columns, rows, empty="No lots.")
    session.output.next_page(message.next_page_token)
    return Exit.DONE


@command()
@_account
@with_session
def balances(session: Session, account: str) -> int:
    """Show what custody holds for an account, asset by asset."""
    message = session.call(rpcs.LIST_BALANCES, custody_service_pb2.ListBalancesRequest(account_id=account), account).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    rows = [(item.asset_id, item.available, item.held, item.pending_in, item.pending_out, item.position) for item in message.balances]
    session.output.table(("asset", "available", "held", "pending in", "pending out", "position"), rows, empty="No balances.")
    if message.parked_executions:
        session.output.line(f"{message.parked_executions} executions wait for their instrument to be known.")
    return Exit.DONE


@command()
@_account
@click.option("--state", "state_name", metavar="STATE", help="Only settlements in this state, such as FAILED.")
@click.option("--order", "order_id", default="", metavar="ORDER_ID", help="Only settlements of this order.")
@_page_size
@_page_token
@with_session
def settlements(session: Session, account: str, state_name: str | None, **selection: Any) -> int:
    """List an account's settlement instructions, newest first."""
    state = settlement_pb2.SETTLEMENT_STATE_UNSPECIFIED if state_name is None else _settlement_state(state_name)
    request = custody_service_pb2.ListSettlementsRequest(account_id=account, state=state, **selection)
    message = session.call(rpcs.LIST_SETTLEMENTS, request, account).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    columns = ("settlement", "instrument", "securities", "cash", "currency", "trade date", "due", "state", "settled")
    session.output.table(columns, [_settlement_row(item) for item in message.settlements], empty="No settlements.")
    session.output.next_page(message.next_page_token)
    return Exit.DONE


def _settlement_row(item: settlement_pb2.Settlement) -> tuple[str, ...]:
    state = enum_name(settlement_pb2.SettlementState, item.state, "SETTLEMENT_STATE_")
    if item.state == settlement_pb2.SETTLEMENT_STATE_FAILED:
        reason = enum_name(settlement_pb2.SettlementFailureReason, item.failure_reason, "SETTLEMENT_FAILURE_REASON_")
        state += f" ({reason.lower().replace('_', ' ')}: {item.lacking_amount})"
    return (
        item.settlement_id,
        item.instrument_id,
        item.securities_amount,
        item.cash_amount,
        item.currency,
        item.trade_date,
        item.settlement_date,
        state,
        item.settled_date,
    )


def _settlement_state(name: str) -> Any:
    try:
        return settlement_pb2.SettlementState.Value(f"SETTLEMENT_STATE_{name.upper()}")
    except ValueError:
        known = ", ".join(key.removeprefix("SETTLEMENT_STATE_") for key in settlement_pb2.SettlementState.keys()[1:])
        raise click.BadParameter(f"{name!r} is none of {known}", param_hint="--state") from None


@command(values_may_be_negative=True)
@click.argument("kind", type=click.Choice(sorted(ASSETS)))
@click.argument("amount")
@click.argument("asset")
@_account
@click.option("--comment", default="", metavar="TEXT")
@_key
@with_session
def deposit(session: Session, kind: str, amount: str, asset: str, **more: Any) -> int:
    """Book a deposit: `trademesh deposit cash 100000 USD --account ACC-1`."""
    account = more["account"]
    request = custody_service_pb2.CreateDepositRequest(
        account_id=account,
        asset_type=ASSETS[kind],
        asset_id=asset,
        amount=amount,
        comment=more["comment"],
        request_id=more["request_id"] or new_key(),
    )
    reply = session.call(rpcs.CREATE_DEPOSIT, request, account)
    if session.output.as_json:
        session.output.document(reply.message)
    else:
        balance = reply.message.balance
        again = " (this key had booked it before; nothing was booked now)" if reply.replayed else ""
        session.output.line(f"{account} has {balance.available} {balance.asset_id} available{again}.")
    return Exit.DONE


@click.group("business-date", cls=Group, invoke_without_command=True)
@click.pass_context
def business_date(context: click.Context) -> int:
    """Show custody's business date."""
    return int(context.invoke(show_business_date)) if context.invoked_subcommand is None else int(Exit.DONE)


@business_date.command("show")
@with_session
def show_business_date(session: Session) -> int:
    """Show the business date and the next one."""
    message = session.call(rpcs.GET_BUSINESS_DATE, custody_service_pb2.GetBusinessDateRequest()).message
    if session.output.as_json:
        session.output.document(message)
    else:
        session.output.line(f"{message.business_date}; the next one is {message.next_business_date}")
    return Exit.DONE


@business_date.command("advance")
@_key
@with_session
def advance_business_date(session: Session, request_id: str | None) -> int:
    """Move to the next business day and settle what is due; in a sandbox only."""
    request = custody_service_pb2.AdvanceBusinessDateRequest(request_id=request_id or new_key())
    message = session.call(rpcs.ADVANCE_BUSINESS_DATE, request).message
    if session.output.as_json:
        session.output.document(message)
    else:
        session.output.line(f"{message.previous_date} is over; it is {message.business_date}.")
    return Exit.DONE
