"""Who a command is to the mesh: a user of this machine's own, who is registered as needed, or the holder of a token or client elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.tokens import AccessToken, ClientCredentials, Issuer, RefusedClientError, TokenSource, fixed_token
from kernel.config import PREFIX, Secret, load
from kernel.errors import InvalidArgumentError, Reason
from mesh.local.embedded import write_private
from mesh.local.layout import Layout
from mesh.local.operator import Caller
from mesh.local.outside import Door, door
from mesh.local.state import own_directory

ENDPOINT_KEY = f"{PREFIX}ENDPOINT"


@dataclass(frozen=True)
class Remote:
    """A mesh elsewhere, by `TRADEMESH_*` keys of the environment.

    Attributes:
        endpoint: `host:port` of its edge.
        ca_file: PEM of the authority that signs the certificates of edge and issuer; the system's authorities where unset.
        token: an access token (or `TRADEMESH_TOKEN_FILE`); else the three below.
        issuer: the issuer's URL.
        client_id: a client there.
        client_secret: its secret (or `TRADEMESH_CLIENT_SECRET_FILE`).
    """

    endpoint: str
    ca_file: Path | None = None
    token: Secret | None = None
    issuer: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None

    def tokens(self) -> TokenSource:
        """Return the user's tokens.

        Raises:
            InvalidArgumentError: neither a token nor a whole client is named.
        """
        if self.token is not None:
            return fixed_token(self.token.reveal())
        if self.issuer is None or self.client_id is None or self.client_secret is None:
            text = f"beside {ENDPOINT_KEY} set {PREFIX}TOKEN_FILE, or {PREFIX}ISSUER, {PREFIX}CLIENT_ID and {PREFIX}CLIENT_SECRET_FILE"
            raise InvalidArgumentError(Reason.FIELD_INVALID, text)
        issuer, client = Issuer(self.issuer, ca_file=self.ca_file), ClientCredentials(self.client_id, self.client_secret.reveal())
        return TokenSource(lambda renewed: issuer.token(client))


class LocalUsers:
    """Users of this machine's mesh: each is a client at its issuer, registered when first needed and kept in the state directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._issuers: dict[str, Issuer] = {}

    def tokens(self, caller: Caller) -> TokenSource:
        """Return the tokens of a user."""
        return TokenSource(lambda renewed: self.token(caller))

    def token(self, caller: Caller) -> AccessToken:
        """Return a fresh token of a user.

        Raises:
            TrademeshError: no mesh runs, or its issuer refuses.
        """
        entrance = door(self._layout)
        issuer = self._issuers.setdefault(entrance.issuer, Issuer(entrance.issuer))
        file = self._file(caller)
        known = _read(file)
        if known is not None:
            try:
                return issuer.token(known)
            except RefusedClientError:
                # The issuer's data are gone; register anew.
                file.unlink(missing_ok=True)
        return issuer.token(self._register(issuer, entrance, caller, file))

    def _register(self, issuer: Issuer, entrance: Door, caller: Caller, file: Path) -> ClientCredentials:
        metadata = {
            "client_name": caller.principal,
            "tenant": caller.tenant,
            "roles": list(caller.roles),
            "accounts": list(caller.accounts),
        }
        made = issuer.register(entrance.registration_token, metadata)
        write_private(file, json.dumps(asdict(made)))
        return made

    def _file(self, caller: Caller) -> Path:
        name = hashlib.sha256(json.dumps(asdict(caller), sort_keys=True).encode()).hexdigest()[:32]
        return own_directory(self._layout.data("clients")) / f"{name}.json"


def _read(file: Path) -> ClientCredentials | None:
    try:
        return ClientCredentials(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def remote(environment: Mapping[str, str]) -> Remote | None:
    """Return the mesh elsewhere that the environment names, None where it names none.

    Raises:
        ConfigError: a key is malformed.
    """
    if ENDPOINT_KEY not in environment:
        return None
    wanted = {key: value for key, value in environment.items() if key.removesuffix("_FILE") in _REMOTE_KEYS or key in _REMOTE_KEYS}
    return load(Remote, wanted)


_REMOTE_KEYS = frozenset(PREFIX + name.upper() for name in Remote.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Entrance:
    """An edge, and the user who comes through it.

    Attributes:
        endpoint: `host:port`.
        ca_file: PEM of the authority that signs its certificate; the system's authorities where unset.
        tokens: the user's.
    """

    endpoint: str
    ca_file: Path | None
    tokens: TokenSource


def entrance(layout: Layout, caller: Caller, elsewhere: Remote | None) -> Entrance:
    """Return the way into the mesh that the environment names, or into the one of this machine as a user of it.

    Raises:
        TrademeshError: there is no way.
    """
    if elsewhere is not None:
        return Entrance(elsewhere.endpoint, elsewhere.ca_file, elsewhere.tokens())
    here = door(layout)
    return Entrance(here.edge, here.authority_file, LocalUsers(layout).tokens(caller))
