"""Access tokens: JWTs after RFC 9068, signed with the key whose turn it is."""

import uuid
from collections.abc import Iterable

import jwt

from sandbox.idp.clients import Client
from sandbox.idp.keys import Clock, KeySet

SCOPE_LENGTH_MAX = 1_024


class ScopeError(ValueError):
    """The scope asks for a role that the client does not have, or for nothing."""


class Issuer:
    """Makes access tokens.

    Args:
        url: the `iss` of every token.
        audience: the `aud` of every token.
        token_seconds: how long a token lives.
    """

    def __init__(self, keys: KeySet, clock: Clock, *, url: str, audience: str, token_seconds: int) -> None:
        self._keys = keys
        self._clock = clock
        self.url = url
        self.audience = audience
        self.token_seconds = token_seconds

    def issue(self, client: Client, roles: Iterable[str]) -> str:
        """Return a signed token that says who the client is and which of its roles and accounts it may use.

        `typ` is `at+jwt`; `nbf` and `iat` are now, `exp` is `token_seconds` later, `jti` is unique.
        """
        now = self._clock.now_ns() // 1_000_000_000
        key = self._keys.signing()
        claims = {
            "iss": self.url,
            "sub": client.client_id,
            "aud": self.audience,
            "client_id": client.client_id,
            "iat": now,
            "nbf": now,
            "exp": now + self.token_seconds,
            "jti": str(uuid.uuid4()),
            "tenant": client.tenant,
            "roles": list(roles),
            "accounts": list(client.accounts),
        }
        return jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": key.kid, "typ": "at+jwt"})


def narrow_roles(client: Client, scope: str | None) -> tuple[str, ...]:
    """Return the roles that a `scope` (RFC 6749 §3.3: words with single spaces between) leaves of a client's; without one, all of them.

    Raises:
        ScopeError: a word is not one of the client's roles, or there is none.
    """
    if scope is None:
        return client.roles
    asked = scope.split(" ")
    if len(scope) > SCOPE_LENGTH_MAX or not set(asked) <= set(client.roles):
        raise ScopeError("scope must be some of the client's roles, with single spaces between")
    return tuple(role for role in client.roles if role in asked)
