"""Access tokens of an OpenID Connect issuer: discovery, client credentials (RFC 6749 §4.4), registration (RFC 7591) where offered."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from kernel.errors import PermissionDeniedError, Reason, UnauthenticatedError, UnavailableError

RENEW_SECONDS = 30.0
"""A token is renewed so long before its end, or after half of a shorter life."""
TIMEOUT_SECONDS = 10.0
ANSWER_BYTES_MAX = 256 * 1024
_HTTP_UNAVAILABLE = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A client's id and secret at an issuer."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token and the monotonic time from which another one is wanted."""

    text: str = field(repr=False)
    renew_at: float
    lifetime_seconds: int


class RefusedClientError(UnauthenticatedError):
    """The issuer does not know the client, or its secret is another one."""


class Issuer:
    """An issuer's endpoints, found by OpenID Connect Discovery 1.0.

    Args:
        url: the issuer.
        ca_file: PEM of the authority that signs its certificate; the system's authorities where unset.
    """

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"the issuer must be an http or https URL, not {url!r}")
        self.url = url
        self._context = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
        self._metadata: Mapping[str, Any] | None = None

    def token(self, credentials: ClientCredentials, scope: str = "") -> AccessToken:
        """Return a new access token; `scope` narrows the roles.

        Raises:
            RefusedClientError: unknown client or wrong secret.
            UnavailableError, PermissionDeniedError: the issuer cannot be reached, or refused.
        """
        pair = f"{quote_plus(credentials.client_id)}:{quote_plus(credentials.client_secret)}"
        form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
        headers = {
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        asked_at = time.monotonic()
        answer = self._send(self._endpoint("token_endpoint"), urlencode(form).encode(), headers)
        lifetime = answer.get("expires_in")
        if not isinstance(answer.get("access_token"), str) or not isinstance(lifetime, int) or isinstance(lifetime, bool):
            raise self._unreadable("no access_token with its expires_in")
        return AccessToken(answer["access_token"], asked_at + max(lifetime - RENEW_SECONDS, lifetime / 2), lifetime)

    def register(self, initial_access_token: str, metadata: Mapping[str, Any]) -> ClientCredentials:
        """Register a client and return its credentials.

        Raises:
            UnavailableError, PermissionDeniedError, UnauthenticatedError: the issuer cannot be reached, or refused.
        """
        headers = {"Authorization": f"Bearer {initial_access_token}", "Content-Type": "application/json"}
        answer = self._send(self._endpoint("registration_endpoint"), json.dumps(metadata).encode(), headers)
        client_id, secret = answer.get("client_id"), answer.get("client_secret")
        if not isinstance(client_id, str) or not isinstance(secret, str):
            raise self._unreadable("no client_id with its client_secret")
        return ClientCredentials(client_id, secret)

    def _endpoint(self, name: str) -> str:
        if self._metadata is None:
            self._metadata = self._send(f"{self.url}/.well-known/openid-configuration", None, {})
            if self._metadata.get("issuer") != self.url:
                raise self._unreadable("it calls itself by another name")
        url = self._metadata.get(name)
        if not isinstance(url, str) or urlsplit(url).scheme != urlsplit(self.url).scheme:
            raise PermissionDeniedError(Reason.PEER_NOT_ALLOWED, f"the issuer {self.url} offers no {name}")
        return url

    def _send(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> Mapping[str, Any]:
        request = urllib.request.Request(url, data=body, headers=dict(headers))  # noqa: S310 (only http and https get here)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=self._context) as response:  # noqa: S310 (as above)
                return self._parse(response.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, error.read(ANSWER_BYTES_MAX)) from error
        except OSError as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"the issuer {self.url} cannot be reached: {reason}") from error

    def _parse(self, text: bytes) -> Mapping[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._unreadable("no JSON object")
        return answer

    def _refusal(self, status: int, text: bytes) -> Exception:
        try:
            answer = dict(self._parse(text))
        except UnavailableError:
            answer = {}
        words = f"the issuer {self.url} refused: {answer.get('error_description') or answer.get('error') or f'HTTP status {status}'}"
        if status in _HTTP_UNAVAILABLE:
            return UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, words)
        if answer.get("error") == "invalid_client":
            return RefusedClientError(Reason.USER_UNAUTHENTICATED, words)
        if status == 401:
            return UnauthenticatedError(Reason.USER_UNAUTHENTICATED, words)
        return PermissionDeniedError(Reason.ROLE_REQUIRED, words)

    def _unreadable(self, what: str) -> UnavailableError:
        return UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"the issuer {self.url} gave an answer that cannot be read: {what}")


class TokenSource:
    """Hands out a token while it is good for a while, and asks for another one before its end. Safe for threads.

    Args:
        fetch: asks for a new token; `renewed` says that the last one was refused.
    """

    def __init__(self, fetch: Callable[[bool], AccessToken]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._token: AccessToken | None = None

    def token(self) -> AccessToken:
        """Return a token."""
        with self._lock:
            if self._token is None or time.monotonic() >= self._token.renew_at:
                self._token = self._fetch(False)
            return self._token

    def renew(self) -> None:
        """Ask for another token, because the last one was refused."""
        with self._lock:
            self._token = self._fetch(True)


def fixed_token(text: str) -> TokenSource:
    """Return a source of one token that somebody else renews."""
    return TokenSource(lambda renewed: AccessToken(text, float("inf"), 0))
