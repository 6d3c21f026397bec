"""What every command shares: who acts, how it reaches the services, how it answers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli import access
from cli.edge import EdgeTransport
from cli.output import Output
from cli.rest import RestClient
from cli.rpcs import Request, Response, Rpc
from cli.transport import Reply, Transport
from kernel import validation
from kernel.clock import SystemClock
from kernel.ids import Uuid7Source
from mesh.local.layout import Layout, default_directory
from mesh.local.operator import Caller
from mesh.local.seed_data import TENANT

ROLES = ("trader", "risk-officer", "admin", "viewer", "operations", "compliance")
_META = "trademesh."

Connect = Callable[[Layout, Caller, float], Transport]


class Session:
    """One run of one command.

    Args:
        settings: the common options, by name; absent ones have their defaults.
        connect: makes the transport for an account list; tests give their own.
    """

    def __init__(self, settings: dict[str, Any], *, connect: Connect | None = None) -> None:
        self.output = Output(as_json=bool(settings.get("json")))
        self.layout = Layout(Path(settings.get("state_dir") or default_directory()))
        self._settings = settings
        self._timeout_seconds = float(settings.get("timeout") or 10.0)
        self.elsewhere = access.remote(os.environ) if connect is None else None
        self._connect = connect or self._through_edge
        self._transports: dict[tuple[str, ...], Transport] = {}

    def caller(self, *accounts: str) -> Caller:
        """Return the user to act as: the accounts of `--accounts`, else the ones that the command names."""
        settings = self._settings
        chosen = settings.get("accounts")
        return Caller(
            settings.get("principal") or "operator",
            settings.get("tenant") or TENANT,
            tuple(settings.get("role") or ROLES),
            tuple(chosen.split(",")) if chosen else accounts,
        )

    def call(self, rpc: Rpc[Request, Response], request: Request, *accounts: str) -> Reply[Response]:
        """Check the request against the contract's rules, then call.

        Raises:
            TrademeshError: a rule is broken and nothing was sent, or the call failed.
        """
        validation.check(request)
        return self.transport(*accounts).call(rpc, request)

    def transport(self, *accounts: str) -> Transport:
        """Return the connection for a user of these accounts; the session closes it."""
        key = self.caller(*accounts).accounts
        if key not in self._transports:
            self._transports[key] = self.connect(*accounts)
        return self._transports[key]

    def connect(self, *accounts: str) -> Transport:
        """Return a new connection for a user of these accounts; the caller closes it."""
        return self._connect(self.layout, self.caller(*accounts), self._timeout_seconds)

    def _through_edge(self, layout: Layout, caller: Caller, timeout_seconds: float) -> Transport:
        return EdgeTransport(access.entrance(layout, caller, self.elsewhere), timeout_seconds=timeout_seconds)

    def rest(self, *accounts: str) -> RestClient:
        """Return the REST door for a user of these accounts; the caller closes it."""
        return RestClient(access.entrance(self.layout, self.caller(*accounts), self.elsewhere), timeout_seconds=self._timeout_seconds)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value not in (None, (), False):
        context.meta[_META + str(parameter.name)] = value


def common_options() -> list[click.Option]:
    """Return the options that stand before or after the command's name alike."""
    keep: dict[str, Any] = {"expose_value": False, "callback": _remember}
    return [
        click.Option(["--json"], is_flag=True, help="Write one JSON document (streams: JSON lines), and nothing else.", **keep),
        click.Option(["--as", "principal"], metavar="NAME", help="Act as this principal (operator).", **keep),
        click.Option(["--role"], multiple=True, type=click.Choice(ROLES), help="Act with this role only; may be repeated (all).", **keep),
        click.Option(["--tenant"], metavar="NAME", help=f"Act for this tenant ({TENANT}).", **keep),
        click.Option(["--accounts"], metavar="A,B", help="Act with these accounts only (the one the command names).", **keep),
        click.Option(["--state-dir"], type=click.Path(), help="The mesh's state directory.", **keep),
        click.Option(["--timeout"], type=click.FloatRange(0.1, 300), metavar="SECONDS", help="Bound of each call (10).", **keep),
    ]


class Command(click.Command):
    """A command that takes the common options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())


class Group(click.Group):
    """A group whose commands take the common options too."""

    command_class = Command


def command(name: str | None = None, *, values_may_be_negative: bool = False) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command with the common options.

    With `values_may_be_negative`, `-5` is a value and not an unknown option, so that the contract's rule refuses it by name.
    """
    return click.command(name, cls=Command, context_settings={"ignore_unknown_options": values_may_be_negative})


def with_session(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command its session, and close it afterwards."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> int:
        context = click.get_current_context()
        settings = {key.removeprefix(_META): value for key, value in context.meta.items() if key.startswith(_META)}
        session = context.meta.get("session_factory", Session)(settings)
        try:
            return function(session, *args, **kwargs)
        finally:
            session.close()

    return run


_keys = Uuid7Source(SystemClock())


def new_key() -> str:
    """Return a fresh key for a request, a UUID."""
    return _keys.new_id()
