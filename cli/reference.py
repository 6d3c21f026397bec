"""Accounts and instruments."""

from __future__ import annotations

import click

from cli import rpcs
from cli.exits import Exit
from cli.output import Output, enum_name
from cli.session import Group, Session, command, new_key, with_session
from trademesh.risk.v1 import reference_data_pb2, reference_data_service_pb2


@click.group(cls=Group)
def accounts() -> None:
    """Show and create accounts."""


@accounts.command("list")
@click.option("--page-size", type=int, default=100, show_default=True, metavar="COUNT")
@click.option("--page-token", default="", metavar="TOKEN", help="From the page before.")
@with_session
def list_accounts(session: Session, page_size: int, page_token: str) -> int:
    """List the tenant's accounts."""
    request = reference_data_service_pb2.ListAccountsRequest(page_size=page_size, page_token=page_token)
    message = session.call(rpcs.LIST_ACCOUNTS, request).message
    if session.output.as_json:
        session.output.document(message)
    else:
        _show_accounts(session.output, list(message.accounts))
        session.output.next_page(message.next_page_token)
    return Exit.DONE


@accounts.command("create")
@click.argument("account_id", metavar="ACCOUNT")
@click.option("--name", "display_name", metavar="NAME", help="A name for people (the id).")
@click.option("--currency", default="USD", show_default=True)
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def create_account(session: Session, account_id: str, display_name: str | None, currency: str, request_id: str | None) -> int:
    """Create an account in the tenant. Its limits are the defaults until it has its own."""
    request = reference_data_service_pb2.CreateAccountRequest(
        account_id=account_id, display_name=display_name or account_id, currency=currency, request_id=request_id or new_key()
    )
    message = session.call(rpcs.CREATE_ACCOUNT, request, account_id).message
    if session.output.as_json:
        session.output.document(message)
    else:
        _show_accounts(session.output, [message.account])
    return Exit.DONE


@command()
@click.option("--page-size", type=int, default=100, show_default=True, metavar="COUNT")
@click.option("--page-token", default="", metavar="TOKEN", help="From the page before.")
@with_session
def instruments(session: Session, page_size: int, page_token: str) -> int:
    """List what can be traded."""
    request = reference_data_service_pb2.ListInstrumentsRequest(page_size=page_size, page_token=page_token)
    message = session.call(rpcs.LIST_INSTRUMENTS, request).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    rows = [
        (
            item.instrument_id,
            item.display_name,
            enum_name(reference_data_pb2.AssetClass, item.asset_class, "ASSET_CLASS_").lower(),
            item.currency,
            item.tick_size,
            item.lot_size,
            item.venue,
            _hours(item.calendar),
            enum_name(reference_data_pb2.InstrumentStatus, item.status, "INSTRUMENT_STATUS_"),
        )
        for item in message.instruments
    ]
    columns = ("instrument", "name", "class", "currency", "tick", "lot", "venue", "hours", "status")
    session.output.table(columns, rows, empty="No instruments.")
    session.output.next_page(message.next_page_token)
    return Exit.DONE


def _show_accounts(output: Output, items: list[reference_data_pb2.Account]) -> None:
    rows = [
        (
            item.account_id,
            item.display_name,
            item.tenant,
            item.currency,
            enum_name(reference_data_pb2.AccountStatus, item.status, "ACCOUNT_STATUS_"),
            item.version,
        )
        for item in items
    ]
    output.table(("account", "name", "tenant", "currency", "status", "version"), rows, empty="No accounts.")


def _hours(calendar: reference_data_pb2.TradingCalendar) -> str:
    if not calendar.open_time:
        return "always"
    return f"{calendar.open_time}-{calendar.close_time} {calendar.time_zone}"
