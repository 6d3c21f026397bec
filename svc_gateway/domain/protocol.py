"""What travels over a socket of subprotocol `trademesh.v1+json`, as `docs/reference/websocket.md` describes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SUBPROTOCOL = "trademesh.v1+json"
TICKET_PREFIX = "ticket."

READ_PREFIXES = ("Get", "List", "BatchGet", "Lookup", "Stream")
"""How methods begin that only read (AIP-131, AIP-132, AIP-231, and our streams)."""

CLOSE_RESTART = 1012
CLOSE_DEFECT = 1011
CLOSE_UNSUPPORTED = 1003
CLOSE_VIOLATION = 1008
CLOSE_UNAUTHENTICATED = 4401

CALL_ID_LENGTH_MAX = 64
_CALL_ID = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Call:
    """A client asks for a method. `request` is the JSON form of its request message, not checked yet."""

    call_id: str
    method: str
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A client no longer wants the answers to a call."""

    call_id: str


def is_call_id(value: object) -> bool:
    """Say whether a value may name a call: 1 to 64 visible ASCII characters."""
    return isinstance(value, str) and _CALL_ID.fullmatch(value) is not None


def is_read(method_name: str) -> bool:
    """Say whether a method, named without its service, only reads. `Getaway` is none: a word follows the prefix."""
    return any(method_name.startswith(prefix) and method_name[len(prefix) : len(prefix) + 1].isupper() for prefix in READ_PREFIXES)
