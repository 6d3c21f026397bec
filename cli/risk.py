"""Limits, kill switches and the risk state."""

from __future__ import annotations

from typing import Any

import click

from cli import rpcs
from cli.exits import Exit
from cli.output import Output, clock_time, enum_name
from cli.session import Group, Session, command, new_key, with_session
from trademesh.risk.v1 import kill_switch_pb2, limit_pb2, risk_service_pb2

_LIMIT_SCOPES = ("account", "trader", "instrument")
_KILL_SCOPES = ("firm", "account", "trader", "instrument", "tenant")
_LIMIT_TYPES = tuple(name.removeprefix("LIMIT_TYPE_").lower().replace("_", "-") for name in limit_pb2.LimitType.keys()[1:])
_COMMENT_DEFAULT = "set from the command line"


@click.group(cls=Group)
def limits() -> None:
    """Show and set limits."""


@limits.command("list")
@click.option("--scope", type=click.Choice(_LIMIT_SCOPES), help="Only limits of this scope.")
@click.option("--id", "scope_id", default="", metavar="ID", help="Only limits of this account, trader or instrument; * is the default.")
@click.option("--page-size", type=int, default=200, show_default=True, metavar="COUNT")
@click.option("--page-token", default="", metavar="TOKEN", help="From the page before.")
@with_session
def list_limits(session: Session, scope: str | None, **page: Any) -> int:
    """List the limits in force."""
    request = risk_service_pb2.ListLimitsRequest(scope=_limit_scope(scope), **page)
    message = session.call(rpcs.LIST_LIMITS, request).message
    if session.output.as_json:
        session.output.document(message)
    else:
        show_limits(session.output, list(message.limits))
        if message.next_page_token:
            session.output.next_page(message.next_page_token)
    return Exit.DONE


@limits.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("scope", type=click.Choice(_LIMIT_SCOPES))
@click.argument("scope_id", metavar="ID")
@click.argument("kind", metavar="TYPE", type=click.Choice(_LIMIT_TYPES))
@click.argument("value")
@click.option("--comment", default=_COMMENT_DEFAULT, help="Why, for the audit.")
@click.option("--etag", default="", metavar="ETAG", help="Refuse unless this is the limit's entity tag.")
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def set_limit(session: Session, scope: str, scope_id: str, kind: str, value: str, **details: Any) -> int:
    """Set a limit: `trademesh limits set account ACC-1 max-notional 50000`. It binds every later approval."""
    request = risk_service_pb2.UpdateLimitRequest(
        scope=_limit_scope(scope),
        scope_id=scope_id,
        type=limit_pb2.LimitType.Value(f"LIMIT_TYPE_{kind.upper().replace('-', '_')}"),
        value=value,
        etag=details["etag"],
        comment=details["comment"],
        request_id=details["request_id"] or new_key(),
    )
    message = session.call(rpcs.UPDATE_LIMIT, request).message
    if session.output.as_json:
        session.output.document(message)
    else:
        show_limits(session.output, [message.limit])
    return Exit.DONE


@click.group(cls=Group)
def kill() -> None:
    """Stop new orders, and let them pass again."""


@kill.command("activate")
@click.argument("scope", type=click.Choice(_KILL_SCOPES))
@click.argument("scope_id", metavar="[ID]", required=False)
@click.option("--cancel-open-orders", is_flag=True, help="Cancel the open orders that it covers as well.")
@click.option("--comment", default=_COMMENT_DEFAULT, help="Why, for the audit.")
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def activate(session: Session, scope: str, scope_id: str | None, *, cancel_open_orders: bool, comment: str, request_id: str | None) -> int:
    """Activate a kill switch: `trademesh kill activate account ACC-1`, `trademesh kill activate firm`."""
    request = risk_service_pb2.ActivateKillSwitchRequest(
        scope=_kill_scope(scope),
        scope_id=_kill_id(scope, scope_id),
        cancel_open_orders=cancel_open_orders,
        comment=comment,
        request_id=request_id or new_key(),
    )
    message = session.call(rpcs.ACTIVATE_KILL_SWITCH, request).message
    return _answer_switch(session, message, message.kill_switch)


@kill.command("release")
@click.argument("scope", type=click.Choice(_KILL_SCOPES))
@click.argument("scope_id", metavar="[ID]", required=False)
@click.option("--comment", default=_COMMENT_DEFAULT, help="Why, for the audit.")
@click.option("--request-id", metavar="UUID", help="The key of this request (fresh).")
@with_session
def release(session: Session, scope: str, scope_id: str | None, comment: str, request_id: str | None) -> int:
    """Release a kill switch."""
    request = risk_service_pb2.ReleaseKillSwitchRequest(
        scope=_kill_scope(scope), scope_id=_kill_id(scope, scope_id), comment=comment, request_id=request_id or new_key()
    )
    message = session.call(rpcs.RELEASE_KILL_SWITCH, request).message
    return _answer_switch(session, message, message.kill_switch)


@kill.command("list")
@click.option("--all", "include_released", is_flag=True, help="Released ones too.")
@with_session
def list_switches(session: Session, *, include_released: bool) -> int:
    """List kill switches, the latest changed first."""
    request = risk_service_pb2.ListKillSwitchesRequest(active_only=not include_released)
    message = session.call(rpcs.LIST_KILL_SWITCHES, request).message
    if session.output.as_json:
        session.output.document(message)
    else:
        _show_switches(session.output, list(message.kill_switches))
    return Exit.DONE


@command()
@click.argument("account")
@with_session
def risk(session: Session, account: str) -> int:
    """Show an account's exposures and what bounds them."""
    message = session.call(rpcs.GET_RISK_STATE, risk_service_pb2.GetRiskStateRequest(account_id=account), account).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    output = session.output
    breach = "  IN BREACH: orders that would increase it are refused" if message.in_breach else ""
    output.line(
        f"{message.account_id} in {message.currency}: open buys {message.open_buy_notional}, open sells {message.open_sell_notional}, "
        f"gross {message.gross_exposure}, {message.reservation_count} reservations{breach}"
    )
    rows = [
        (item.instrument_id, item.position_quantity, item.position_notional, item.open_buy_quantity, item.open_sell_quantity)
        for item in message.instruments
    ]
    output.table(("instrument", "position", "notional", "open buy", "open sell"), rows, empty="No positions and no open orders.")
    show_limits(output, list(message.limits))
    return Exit.DONE


def show_limits(output: Output, items: list[limit_pb2.Limit]) -> None:
    """Write limits for people."""
    rows = [
        (
            enum_name(limit_pb2.LimitScope, item.scope, "LIMIT_SCOPE_").lower(),
            item.scope_id,
            enum_name(limit_pb2.LimitType, item.type, "LIMIT_TYPE_").lower().replace("_", "-"),
            item.value,
            item.version,
            item.principal,
            clock_time(item.update_time),
        )
        for item in items
    ]
    output.table(("scope", "id", "type", "value", "version", "set by", "at"), rows, empty="No limits.")


def _answer_switch(session: Session, message: Any, switch: kill_switch_pb2.KillSwitch) -> int:
    if session.output.as_json:
        session.output.document(message)
    else:
        _show_switches(session.output, [switch])
        if switch.status in (kill_switch_pb2.KILL_SWITCH_STATUS_PENDING, kill_switch_pb2.KILL_SWITCH_STATUS_RELEASE_PENDING):
            session.output.note("Risk has it; the order service is told until it answers. `trademesh kill list` shows when it has.")
    return Exit.DONE


def _show_switches(output: Output, items: list[kill_switch_pb2.KillSwitch]) -> None:
    rows = [
        (
            enum_name(kill_switch_pb2.KillSwitchScope, item.scope, "KILL_SWITCH_SCOPE_").lower(),
            item.scope_id,
            enum_name(kill_switch_pb2.KillSwitchStatus, item.status, "KILL_SWITCH_STATUS_"),
            item.version,
            item.principal,
            item.comment,
            clock_time(item.update_time),
        )
        for item in items
    ]
    output.table(("scope", "id", "status", "version", "changed by", "comment", "at"), rows, empty="No kill switches.")


def _limit_scope(name: str | None) -> Any:
    return limit_pb2.LimitScope.Value(f"LIMIT_SCOPE_{name.upper()}") if name else limit_pb2.LIMIT_SCOPE_UNSPECIFIED


def _kill_scope(name: str) -> Any:
    return kill_switch_pb2.KillSwitchScope.Value(f"KILL_SWITCH_SCOPE_{name.upper()}")


def _kill_id(scope: str, scope_id: str | None) -> str:
    if scope == "firm":
        if scope_id not in (None, "*"):
            raise click.UsageError("the firm has no id; leave it out")
        return "*"
    if scope_id is None:
        raise click.UsageError(f"name the {scope}: trademesh kill ... {scope} ID")
    return scope_id
