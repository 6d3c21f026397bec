"""Members: who may log on, and what the venue keeps of their FIX sessions."""

import hmac
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kernel.fix import tags
from kernel.fix.message import Message
from kernel.fix.session import Session
from kernel.fix.steps import AppMessage, Sequences

MEMBERS_MAX = 256
PASSWORD_LENGTH_MIN = 12
_SWITCHES = ("cancel_on_disconnect", "accept_reset")
_COMP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


class CredentialsError(ValueError):
    """The credentials file is wrong or readable by others; the message names member and field, never a secret."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A member's entry: CompID, Username (553) and Password (554) of its Logon.

    Attributes:
        cancel_on_disconnect: whether a lost connection cancels its open orders.
        accept_reset: whether it may start its numbers anew (141=Y), which makes it lose reports it has not read.
    """

    comp_id: str
    username: str
    password: str = field(repr=False)
    cancel_on_disconnect: bool = False
    accept_reset: bool = False

    def admits(self, logon: Message) -> bool:
        """Whether a Logon brings the right name and password; compared in constant time."""
        given = f"{logon.get(tags.USERNAME) or ''}\x01{logon.get(tags.PASSWORD) or ''}"
        return hmac.compare_digest(given.encode(), f"{self.username}\x01{self.password}".encode())


class Link(Protocol):
    """A member's connection, as the venue sees it."""

    @property
    def is_behind(self) -> bool:
        """Whether what was queued has to leave before much more is."""

    def pause_reading(self) -> None:
        """Bring nothing more in."""

    def resume_reading(self) -> None:
        """Bring in again what the member sends."""

    def write(self, data: bytes) -> None:
        """Queue bytes for sending."""

    def close(self, reason: str) -> None:
        """Close once what was queued is sent; `reason` is for the log."""

    def abort(self, reason: str) -> None:
        """Close at once; what was queued is lost."""


class Member:
    """One FIX session over all its connections. `session` and `link` exist together, while connected.

    Attributes:
        sequences: the numbers as they stand; durable after the batch.
        outgoing: application messages of the current batch, not yet numbered.
        writes: bytes of the current batch, to be sent once it is durable.
        closing: why to close after the batch; `aborting` drops the batch's bytes.
    """

    __slots__ = ("aborting", "closing", "credentials", "link", "outgoing", "sequences", "session", "writes")

    def __init__(self, credentials: Credentials, sequences: Sequences) -> None:
        self.credentials = credentials
        self.sequences = sequences
        self.session: Session | None = None
        self.link: Link | None = None
        self.outgoing: list[AppMessage] = []
        self.writes: list[bytes] = []
        self.closing = ""
        self.aborting = False

    @property
    def comp_id(self) -> str:
        """The member's CompID; also the owner of its orders."""
        return self.credentials.comp_id

    @property
    def is_connected(self) -> bool:
        """Whether it is logged on."""
        return self.session is not None


def _parse_member(fields: object) -> Credentials:
    if not isinstance(fields, dict):
        raise CredentialsError("expected an object for each member")
    where = f"member {fields.get('comp_id')!r}"
    unknown = sorted(set(fields) - {"comp_id", "username", "password", *_SWITCHES})
    if unknown:
        raise CredentialsError(f"{where}: unknown field {unknown[0]!r}")
    for name in ("comp_id", "username", "password"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise CredentialsError(f"{where}.{name}: a non-empty string is required")
    if not _COMP_ID.fullmatch(fields["comp_id"]):
        raise CredentialsError(f"{where}.comp_id: expected {_COMP_ID.pattern}")
    if len(fields["password"]) < PASSWORD_LENGTH_MIN:
        raise CredentialsError(f"{where}.password: at least {PASSWORD_LENGTH_MIN} characters")
    switches = {name: fields.get(name, False) for name in _SWITCHES}
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise CredentialsError(f"{where}.{name}: expected true or false")
    return Credentials(fields["comp_id"], fields["username"], fields["password"], **switches)


def parse_credentials(document: str) -> Mapping[str, Credentials]:
    """Read `{"members": [{"comp_id", "username", "password", "cancel_on_disconnect"?, "accept_reset"?}, …]}`.

    Raises:
        CredentialsError: not of that form, or a member twice.
    """
    try:
        root = json.loads(document)
    except json.JSONDecodeError as error:
        raise CredentialsError(f"not JSON: line {error.lineno} column {error.colno}") from None
    if not isinstance(root, dict) or set(root) != {"members"} or not isinstance(root["members"], list):
        raise CredentialsError('expected {"members": […]}')
    members = [_parse_member(fields) for fields in root["members"]]
    if not 1 <= len(members) <= MEMBERS_MAX:
        raise CredentialsError(f"expected 1 to {MEMBERS_MAX} members")
    by_comp_id = {member.comp_id: member for member in members}
    if len(by_comp_id) != len(members):
        raise CredentialsError("a comp_id is listed twice")
    return by_comp_id


def read_credentials(path: Path) -> Mapping[str, Credentials]:
    """Read the credentials file, which only its owner may read (mode 0600 or stricter).

    Raises:
        CredentialsError: unreadable, open to others, or wrong; the message starts with the path.
    """
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CredentialsError(f"mode {stat.S_IMODE(mode):04o} lets others read it; expected 0600")
        return parse_credentials(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, CredentialsError) as error:
        raise CredentialsError(f"{path}: {error}") from None
