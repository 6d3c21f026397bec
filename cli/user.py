"""Who the command is to the mesh."""

from __future__ import annotations

import click

from cli import access
from cli.exits import Exit
from cli.session import Session, command, with_session


@command()
@click.option("--account", "account_ids", multiple=True, metavar="ACCOUNT", help="An account that the token is for; may be repeated.")
@with_session
def token(session: Session, account_ids: tuple[str, ...]) -> int:
    """Write an access token: `curl -H "Authorization: Bearer $(trademesh token --account ACC-1)" …`."""
    if session.elsewhere is not None:
        made = session.elsewhere.tokens().token()
    else:
        made = access.LocalUsers(session.layout).token(session.caller(*account_ids))
    if session.output.as_json:
        session.output.document({"access_token": made.text, "token_type": "Bearer", "expires_in": made.lifetime_seconds})
    else:
        session.output.line(made.text)
    return Exit.DONE
