"""Who calls: the peer (SPIFFE, from the sidecar's XFCC header) and the user (claims of a token that the sidecar has validated).

Both arrive as metadata on a private socket, and only the instance's own sidecar knows the secret that makes them credible.
Header texts repeat from call to call, so parsed identities are cached by text; the secret and the expiry are checked on every call.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from kernel.errors import PermissionDeniedError, Reason, UnauthenticatedError
from kernel.logs import quote

SECRET_HEADER = "x-trademesh-sidecar-secret"  # noqa: S105 (a header's name)
PEER_HEADER = "x-forwarded-client-cert"
CLAIMS_HEADER = "x-trademesh-claims"
TRUSTED_HEADERS = (SECRET_HEADER, PEER_HEADER, CLAIMS_HEADER)

HEADER_LENGTH_MAX = 8_192
ACCOUNTS_MAX = 256
ROLES_MAX = 16
# The bounds of trademesh.type.v1.User: a user whom svc_risk would refuse must not get as far as a batch of other users' orders.
_PRINCIPAL_MAX = 128
_TENANT_MAX = 64
_CACHE_ENTRIES_MAX = 4_096
_SECRET_LENGTH_MIN = 16

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ACCOUNT = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}", re.ASCII)
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class User:
    """The person or program behind a call. `expires_at` is the token's end in Unix seconds."""

    principal: str
    tenant: str
    roles: frozenset[str]
    accounts: frozenset[str]
    expires_at: int

    def require_account(self, account_id: str) -> None:
        """Check that the user may act for an account.

        Raises:
            PermissionDeniedError: ACCOUNT_NOT_ALLOWED, in the same words whether the account is foreign or unknown.
        """
        if account_id not in self.accounts:
            raise PermissionDeniedError(
                Reason.ACCOUNT_NOT_ALLOWED,
                "the account is not one of the caller's",
                metadata={"resource_type": "account", "resource_name": account_id[:64]},
            )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. `peer` is a service account such as `svc-oms`; `log_fields` is its part of the canonical log line, rendered once."""

    peer: str
    user: User | None
    log_fields: str


class Authenticator:
    """Turns trusted metadata into an `Identity`.

    Args:
        secret: the instance's sidecar secret, at least 16 characters.
        trust_domain: of the mesh, such as `trademesh.local`.
        namespace: of the workloads, such as `trading`.
        now: the wall clock in Unix seconds, for token expiry.
    """

    def __init__(self, secret: str, *, trust_domain: str, namespace: str, now: Callable[[], float]) -> None:
        if len(secret) < _SECRET_LENGTH_MIN or not secret.isascii():
            raise ValueError(f"the sidecar secret must be ASCII and have at least {_SECRET_LENGTH_MIN} characters")
        self._secret = secret
        self._prefix = f"spiffe://{trust_domain}/ns/{namespace}/sa/"
        self._now = now
        self._cache: dict[tuple[str, str], Identity] = {}

    def authenticate(self, secret: object, peer: object, claims: object) -> Identity:
        """Return the caller's identity from the three trusted headers; a missing header is an empty string.

        Raises:
            UnauthenticatedError: PEER_UNAUTHENTICATED (not through the sidecar, not exactly one peer), USER_UNAUTHENTICATED (malformed
                claims) or TOKEN_EXPIRED.
        """
        if not isinstance(secret, str) or not secret.isascii() or not compare_digest(secret, self._secret):
            raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, "the call did not come through the service's sidecar")
        if not isinstance(peer, str) or not isinstance(claims, str):
            raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, "identity headers must be text")
        identity = self._cache.get((peer, claims))
        if identity is None:
            identity = self._parse(peer, claims)
            if len(self._cache) >= _CACHE_ENTRIES_MAX:
                # Oldest first: tokens expire, so an old entry is the one least likely to come again.
                del self._cache[next(iter(self._cache))]
            self._cache[(peer, claims)] = identity
        user = identity.user
        if user is not None and user.expires_at <= self._now():
            raise UnauthenticatedError(Reason.TOKEN_EXPIRED, "the user's token has expired")
        return identity

    def _parse(self, peer_header: str, claims_header: str) -> Identity:
        if len(peer_header) > HEADER_LENGTH_MAX or len(claims_header) > HEADER_LENGTH_MAX:
            raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, f"identity headers are bounded to {HEADER_LENGTH_MAX} characters")
        peer = self._peer(peer_header)
        user = _parse_claims(claims_header) if claims_header else None
        fields = f'"peer":{quote(peer)}'
        if user is not None:
            fields += f',"principal":{quote(user.principal)},"tenant":{quote(user.tenant)}'
        return Identity(peer, user, fields)

    def _peer(self, header: str) -> str:
        uris = [value for key, value in _xfcc_pairs(header) if key.lower() == "uri"]
        if len(uris) != 1 or not uris[0].startswith(self._prefix):
            raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, "the peer certificate names no workload of this mesh")
        name = uris[0][len(self._prefix) :]
        if _NAME.fullmatch(name) is None:
            raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, "the peer certificate names no workload of this mesh")
        return name


def _xfcc_pairs(header: str) -> list[tuple[str, str]]:
    """The key=value pairs of exactly one XFCC element, in Envoy's quoting: values may be in double quotes, with backslash escapes."""
    pairs: list[tuple[str, str]] = []
    key, value, target = "", "", "key"
    quoted = escaped = False
    for character in header:
        if escaped:
            value, escaped = value + character, False
        elif quoted:
            escaped, quoted = character == "\\", character != '"'
            value += "" if escaped or not quoted else character
        elif character == ",":
            raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, "x-forwarded-client-cert must have exactly one element")
        elif character == ";":
            pairs.append((key, value))
            key, value, target = "", "", "key"
        elif target == "key" and character == "=":
            target = "value"
        elif target == "value" and character == '"' and not value:
            quoted = True
        elif target == "key":
            key += character
        else:
            value += character
    if quoted or escaped or not key:
        raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, "x-forwarded-client-cert must have exactly one well-formed element")
    return [*pairs, (key, value)]


def _parse_claims(header: str) -> User:
    if _BASE64URL.fullmatch(header) is None:
        raise _bad_claims("not base64url")
    try:
        claims = json.loads(base64.urlsafe_b64decode(header.rstrip("=") + "=" * (-len(header.rstrip("=")) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise _bad_claims("not JSON") from None
    if not isinstance(claims, dict):
        raise _bad_claims("not an object")
    expires_at = claims.get("exp")
    if isinstance(expires_at, bool) or not isinstance(expires_at, (int, float)) or not 0 < expires_at < 1 << 40:
        raise _bad_claims("exp must be Unix seconds")
    return User(
        principal=_text(claims, "sub", _PRINCIPAL_MAX),
        tenant=_text(claims, "tenant", _TENANT_MAX),
        roles=_names(claims, "roles", _ROLE, ROLES_MAX),
        accounts=_names(claims, "accounts", _ACCOUNT, ACCOUNTS_MAX),
        expires_at=int(expires_at),
    )


def _text(claims: dict[str, Any], key: str, length_max: int) -> str:
    value = claims.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= length_max or not value.isprintable():
        raise _bad_claims(f"{key} must be 1 to {length_max} printable characters")
    return value


def _names(claims: dict[str, Any], key: str, pattern: re.Pattern[str], count_max: int) -> frozenset[str]:
    values = claims.get(key, [])
    if not isinstance(values, list) or len(values) > count_max:
        raise _bad_claims(f"{key} must be a list of at most {count_max}")
    if not all(isinstance(value, str) and pattern.fullmatch(value) for value in values):
        raise _bad_claims(f"{key} has a malformed item")
    return frozenset(values)


def _bad_claims(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(Reason.USER_UNAUTHENTICATED, f"the user's claims are malformed: {why}")


def xfcc(peer: str, *, trust_domain: str, namespace: str) -> str:
    """Return the XFCC header that names a peer; for whoever plays the sidecar (tests, bench, the local supervisor)."""
    return f"URI=spiffe://{trust_domain}/ns/{namespace}/sa/{peer}"


def claims_header(user: User) -> str:
    """Return the claims header of a user; for whoever plays the sidecar."""
    claims = {
        "sub": user.principal,
        "tenant": user.tenant,
        "roles": sorted(user.roles),
        "accounts": sorted(user.accounts),
        "exp": user.expires_at,
    }
    return base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(b"=").decode()
