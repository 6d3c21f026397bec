"""The mesh itself: status and demo."""

from __future__ import annotations

import click
from rich.console import Console

from cli.exits import Exit
from cli.session import Session, command, with_session
from mesh.local import commands


@command()
@with_session
def status(session: Session) -> int:
    """Show every part of the mesh: state, process, restarts, uptime, memory. Exit code 0 when all are ready, else 3."""
    return commands.status(session.layout, Console(highlight=False), as_json=session.output.as_json)


@command()
@click.option("--account", default="ACC-1", show_default=True, metavar="ACCOUNT")
@with_session
def demo(session: Session, account: str) -> int:
    """Trade a little on the mesh, which is started if it is down, and check every step. Ends with one line of JSON."""
    from cli.demo import run_demo

    return Exit.DONE if run_demo(session, account) else Exit.REJECTED
