"""Clients: the programs that may ask for tokens, from a file or by registration, and what their tokens say."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.idp.files import FileError, parse_object, read_private
from sandbox.idp.secret_hashes import check_hash, hash_secret

STATIC_CLIENTS_MAX = 1_000
ROLES_MAX = 16
ACCOUNTS_MAX = 256
# A sidecar hands the claims on in a header of at most 8,192 characters of base64url; the rest of a token needs some 700 bytes.
CLAIMS_BYTES_MAX = 5_000

_CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}", re.ASCII)
_NAME_LENGTH_MAX = 128


class ClientError(ValueError):
    """A client's description is wrong; the message names the member and the rule, never a secret."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client and what its tokens may claim.

    Attributes:
        client_id: also the `sub` of its tokens.
        secret_hash: see `secret_hashes`.
        registration_hash: of its registration access token (RFC 7592); empty for a static client, which nobody deletes over HTTP.
    """

    client_id: str
    client_name: str
    tenant: str
    roles: tuple[str, ...]
    accounts: tuple[str, ...]
    secret_hash: str = field(repr=False)
    registration_hash: str = field(default="", repr=False)
    issued_at: int = 0


def describe(members: Mapping[str, Any], client_id: str, *, secret_hash: str, registration_hash: str = "", issued_at: int = 0) -> Client:
    """Make a client from the members `client_name`, `tenant`, `roles` and `accounts` of a JSON object; others are not looked at.

    Raises:
        ClientError: a member is missing, malformed or out of bounds: 16 roles, 256 accounts, 5,000 bytes of both.
    """
    if _CLIENT_ID.fullmatch(client_id) is None:
        raise ClientError(f"client_id: must match {_CLIENT_ID.pattern}")
    name = members.get("client_name")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH_MAX or not name.isprintable():
        raise ClientError(f"client_name: 1 to {_NAME_LENGTH_MAX} printable characters are required")
    tenant = members.get("tenant")
    if not isinstance(tenant, str) or _TENANT.fullmatch(tenant) is None:
        raise ClientError(f"tenant: must match {_TENANT.pattern}")
    roles = _texts(members, "roles", _ROLE, ROLES_MAX)
    if not roles:
        raise ClientError("roles: at least one is required")
    accounts = _texts(members, "accounts", _ACCOUNT, ACCOUNTS_MAX)
    if len(json.dumps([tenant, roles, accounts], separators=(",", ":"))) > CLAIMS_BYTES_MAX:
        raise ClientError(f"accounts: roles and accounts together take more than {CLAIMS_BYTES_MAX} bytes")
    return Client(client_id, name, tenant, roles, accounts, secret_hash, registration_hash, issued_at)


def _texts(members: Mapping[str, Any], key: str, pattern: re.Pattern[str], count_max: int) -> tuple[str, ...]:
    values = members.get(key, [])
    if not isinstance(values, list) or len(values) > count_max:
        raise ClientError(f"{key}: must be a list of at most {count_max}")
    for value in values:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ClientError(f"{key}: every item must match {pattern.pattern}")
    if len(set(values)) != len(values):
        raise ClientError(f"{key}: an item comes twice")
    return tuple(values)


_STATIC_MEMBERS = {"client_id", "client_name", "tenant", "roles", "accounts", "secret_hash", "secret_file"}


def read_clients(path: Path) -> Mapping[str, Client]:
    """Read `{"clients": [{"client_id", "client_name"?, "tenant", "roles", "accounts", "secret_hash" or "secret_file"}, …]}`.

    The file and every secret file, whose path is relative to it, must be closed to others (mode 0600 or stricter).

    Raises:
        FileError: unreadable, open to others, unknown or malformed members, a client twice.
    """
    try:
        root = parse_object(read_private(path))
        if set(root) != {"clients"} or not isinstance(root["clients"], list):
            raise ValueError('expected {"clients": […]}')
        if len(root["clients"]) > STATIC_CLIENTS_MAX:
            raise ValueError(f"more than {STATIC_CLIENTS_MAX} clients")
        clients = [_read_client(members, path.parent) for members in root["clients"]]
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None
    by_id = {client.client_id: client for client in clients}
    if len(by_id) != len(clients):
        raise FileError(f"{path}: a client_id is listed twice")
    return by_id


def _read_client(members: object, directory: Path) -> Client:
    if not isinstance(members, dict) or not isinstance(members.get("client_id"), str):
        raise ClientError("every client must be an object with a client_id")
    client_id = members["client_id"]
    try:
        unknown = sorted(set(members) - _STATIC_MEMBERS)
        if unknown:
            raise ClientError(f"{unknown[0]}: not a member of a client")
        return describe({"client_name": client_id, **members}, client_id, secret_hash=_static_hash(members, directory))
    except FileError:
        raise
    except ValueError as error:
        raise ClientError(f"client {client_id!r}: {error}") from None


def _static_hash(members: Mapping[str, Any], directory: Path) -> str:
    text, file = members.get("secret_hash"), members.get("secret_file")
    if isinstance(text, str) and file is None:
        try:
            check_hash(text)
        except ValueError as error:
            raise ClientError(f"secret_hash: {error}") from None
        return text
    if isinstance(file, str) and text is None:
        try:
            return hash_secret(read_private(directory / file).rstrip("\r\n"))
        except FileError:
            raise
        except ValueError as error:
            raise ClientError(f"secret_file: {error}") from None
    raise ClientError("exactly one of secret_hash and secret_file is required, as text")
