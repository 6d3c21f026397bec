"""The mesh itself: status and demo."""

from __future__ import annotations

import click

from cli.demo import run_demo
from cli.exits import Exit
from cli.session import Session, command, with_session
from mesh.local import commands, screens


@command()
@with_session
def status(session: Session) -> int:
    """Show every part of the mesh: state, process, restarts, uptime, memory. Exit code 0 when all are ready, else 3."""
    return commands.status(session.layout, screens.console(), as_json=session.output.as_json)


@command()
@click.option("--account", metavar="ACCOUNT", help="The account to create and trade for (a fresh one).")
@with_session
def demo(session: Session, account: str | None) -> int:
    """Trade a little on the mesh, which is started if it is down, and check every step. Ends with one line of JSON."""
    return Exit.DONE if run_demo(session, account) else Exit.REJECTED
