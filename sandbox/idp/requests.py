"""What comes in over HTTP: client authentication, forms and bearer tokens, each checked before anything is done with it."""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus

from aiohttp import web

BODY_BYTES_MAX = 32 * 1024
_FORM_FIELDS_MAX = 16
_BASIC = re.compile(r"basic +([A-Za-z0-9+/]{1,4096}={0,2})", re.ASCII | re.IGNORECASE)
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]{1,4096}=*)", re.ASCII | re.IGNORECASE)


class OAuthError(Exception):
    """A refusal, as RFC 6749 §5.2, RFC 7591 §3.2.2 and RFC 6750 §3.1 word it: an error code for programs, a description for people."""

    def __init__(self, error: str, description: str, *, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client's id and secret as presented; `method` is the name that RFC 7591 gives to how."""

    client_id: str
    secret: str = field(repr=False)
    method: str


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the parameters of a form body, each at most once (RFC 6749 §3.2); one without a value counts as left out.

    Raises:
        OAuthError: `invalid_request`.
    """
    if request.query_string:
        raise OAuthError("invalid_request", "parameters belong into the body, where no log keeps them")
    if request.content_type != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "the body must be application/x-www-form-urlencoded")
    try:
        body = (await request.read()).decode("utf-8")
        pairs = parse_qsl(body, keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=_FORM_FIELDS_MAX)
    except ValueError:
        raise OAuthError("invalid_request", f"the body must be a well-formed form of at most {_FORM_FIELDS_MAX} parameters") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthError("invalid_request", "a parameter comes twice")
    return {name: value for name, value in form.items() if value}


def read_credentials(authorization: str | None, form: Mapping[str, str]) -> Credentials:
    """Return how the client names itself: HTTP Basic with both parts form-encoded (RFC 6749 §2.3.1), or two parameters; never both.

    Raises:
        OAuthError: `invalid_request` for both at once, `invalid_client` for neither.
    """
    if authorization is not None:
        if "client_secret" in form:
            raise OAuthError("invalid_request", "authenticate once: in the header or in the body")
        credentials = _read_basic(authorization)
        if form.get("client_id", credentials.client_id) != credentials.client_id:
            raise OAuthError("invalid_request", "client_id in the body is another one than in the header")
        return credentials
    if "client_id" not in form or "client_secret" not in form:
        raise invalid_client("client authentication is required")
    return Credentials(form["client_id"], form["client_secret"], "client_secret_post")


def _read_basic(authorization: str) -> Credentials:
    match = _BASIC.fullmatch(authorization)
    if match is None:
        raise invalid_client("the Authorization header is not HTTP Basic")
    try:
        name, colon, secret = base64.b64decode(match[1], validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise invalid_client("the Authorization header is not HTTP Basic") from None
    if not colon:
        raise invalid_client("the Authorization header is not HTTP Basic")
    return Credentials(unquote_plus(name), unquote_plus(secret), "client_secret_basic")


def invalid_client(description: str) -> OAuthError:
    """Return the refusal of a client, in the same words whether it is unknown or its secret is wrong."""
    return OAuthError("invalid_client", description, status=401, headers={"WWW-Authenticate": 'Basic realm="trademesh", charset="UTF-8"'})


def read_bearer(request: web.Request) -> str:
    """Return the bearer token (RFC 6750 §2.1).

    Raises:
        OAuthError: `invalid_token`.
    """
    match = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        raise invalid_token("a bearer token is required")
    return match[1]


def require_bearer(request: web.Request, token: str) -> None:
    """Check a bearer token against the one it must be, in constant time.

    Raises:
        OAuthError: `invalid_token`.
    """
    if not hmac.compare_digest(read_bearer(request).encode(), token.encode()):
        raise invalid_token("the bearer token is not the right one")


def invalid_token(description: str) -> OAuthError:
    """Return the refusal of a bearer token."""
    return OAuthError(
        "invalid_token", description, status=401, headers={"WWW-Authenticate": 'Bearer realm="trademesh", error="invalid_token"'}
    )
