"""Tickets: what a browser shows in place of a token, once, within 30 seconds of asking for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TICKET_SECONDS = 30
TICKET_LENGTH = 43
"""Of 256 random bits in base64url, which a subprotocol's name may consist of (RFC 6455 §4.1, RFC 9110 token)."""

_TICKET = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a ticket stands for.

    Attributes:
        authorization: the user's Authorization header, as the sidecar has validated it.
        claims: the claims header that came with it.
        origin: the page that asked; empty where a program asked. Where there is one, only that page may use the ticket.
    """

    authorization: str = field(repr=False)
    claims: str = field(repr=False)
    origin: str


def is_ticket(value: str) -> bool:
    """Say whether a text has the form of a ticket."""
    return _TICKET.fullmatch(value) is not None
