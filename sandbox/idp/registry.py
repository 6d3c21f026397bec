"""Registered clients: kept in one file of the data directory, durable before they are told of."""

import json
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from sandbox.idp.clients import Client, ClientError, describe
from sandbox.idp.files import FileError, parse_object, read_private, write_private
from sandbox.idp.secret_hashes import check_hash

_ID_BYTES = 8
_WORDS_MAX = 32
_NOT_IN_IDS = re.compile(r"[^a-z0-9]+", re.ASCII)

_log = logging.getLogger(__name__)


class RegistryFullError(Exception):
    """As many clients as may be are registered."""


class Registry:
    """Static clients, who never change, and registered ones.

    Args:
        path: the file of registered clients; it need not exist yet.
        static: clients of the clients file; their ids win.
        registered_max: how many may be registered at once.

    Raises:
        FileError: the file is damaged or open to others.
    """

    def __init__(self, path: Path, static: Mapping[str, Client], *, registered_max: int) -> None:
        self._path = path
        self._static = static
        self._registered_max = registered_max
        self._registered = _read(path) if path.exists() else {}
        hidden = sorted(set(self._registered) & set(static))
        if hidden:
            _log.warning("registered clients stand behind static ones of the same id: %s", ", ".join(hidden[:10]))

    def find(self, client_id: str) -> Client | None:
        """Return a client, or None."""
        return self._static.get(client_id) or self._registered.get(client_id)

    def __len__(self) -> int:
        return len(self._static) + len(self._registered)

    def new_id(self, client_name: object) -> str:
        """Return a client id that nobody has; it begins with what a person called the client, because logs and answers show it."""
        words = _NOT_IN_IDS.sub("-", client_name.lower()).strip("-")[:_WORDS_MAX] if isinstance(client_name, str) else ""
        while True:
            client_id = f"{words or 'client'}-{secrets.token_hex(_ID_BYTES)}"
            if self.find(client_id) is None:
                return client_id

    def require_room(self) -> None:
        """Check that one more client may be registered.

        Raises:
            RegistryFullError: not one more.
        """
        if len(self._registered) >= self._registered_max:
            raise RegistryFullError(f"{self._registered_max} clients are registered already")

    def add(self, client: Client) -> None:
        """Register a client; it is durable when this returns.

        Raises:
            RegistryFullError: as many as may be are registered.
            OSError: it could not be written, and is not registered.
        """
        self.require_room()
        assert self.find(client.client_id) is None, "ids come from new_id"
        self._replace({**self._registered, client.client_id: client})

    def remove(self, client_id: str) -> None:
        """Forget a registered client; durable when this returns. Tokens that it has live out their time."""
        self._replace({key: client for key, client in self._registered.items() if key != client_id})

    def _replace(self, clients: dict[str, Client]) -> None:
        write_private(self._path, json.dumps({"clients": [asdict(client) for client in clients.values()]}, indent=1) + "\n")
        self._registered = clients


def _read(path: Path) -> dict[str, Client]:
    try:
        root = parse_object(read_private(path))
        clients = {}
        for members in root["clients"]:
            client = describe(
                members,
                members["client_id"],
                secret_hash=members["secret_hash"],
                registration_hash=members["registration_hash"],
                issued_at=members["issued_at"],
            )
            check_hash(client.secret_hash)
            check_hash(client.registration_hash)
            clients[client.client_id] = client
    except FileError:
        raise
    except (ClientError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged: {error}") from error
    return clients
