"""The HTTP endpoints."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from sandbox.idp.clients import Client, ClientError, describe
from sandbox.idp.files import parse_object
from sandbox.idp.keys import Clock, KeySet
from sandbox.idp.rates import RateCap
from sandbox.idp.registry import Registry, RegistryFullError
from sandbox.idp.requests import (
    BODY_BYTES_MAX,
    Credentials,
    OAuthError,
    invalid_client,
    invalid_token,
    read_bearer,
    read_credentials,
    read_form,
    require_bearer,
)
from sandbox.idp.secret_hashes import hash_secret, make_secret, verify_secret
from sandbox.idp.tokens import Issuer, ScopeError, narrow_roles

GRANT_TYPE = "client_credentials"
AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post")
_HASHES_AT_ONCE_MAX = 2
_HASHES_WAITING_MAX = 64
_UNKNOWN = "\0unknown"
_REGISTRATION = "\0registration"
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_REFUSAL = {404: "not_found", 405: "method_not_allowed", 413: "invalid_request"}
_VISIBLE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*", re.ASCII)

_log = logging.getLogger(__name__)


class IdentityProvider:
    """The endpoints over keys, clients and an issuer.

    Args:
        jwks_max_age_seconds: how long a verifier may keep the key set; less than a key's lead.
        operator_token: the initial access token (RFC 7591 §3) and the key to `/admin`; without it neither is there.
    """

    def __init__(
        self,
        *,
        issuer: Issuer,
        keys: KeySet,
        registry: Registry,
        rates: RateCap,
        clock: Clock,
        jwks_max_age_seconds: int,
        operator_token: str | None,
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._registry = registry
        self._rates = rates
        self._clock = clock
        self._jwks_max_age_seconds = jwks_max_age_seconds
        self._operator_token = operator_token
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE_MAX)
        self._hashes_waiting = 0
        # Verified in place of an unknown client's, so that time does not tell which ids exist.
        self._nobody = hash_secret(make_secret())

    def application(self) -> web.Application:
        """Return the aiohttp application; bodies are bounded to 32 KiB."""
        application = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_answer_refusals])
        router = application.router
        router.add_get("/.well-known/openid-configuration", self._discovery)
        router.add_get("/.well-known/oauth-authorization-server", self._discovery)
        router.add_get("/jwks", self._jwks)
        router.add_get("/healthz", self._health)
        router.add_post("/token", self._token)
        if self._operator_token is not None:
            router.add_post("/register", self._register)
            router.add_delete("/register/{client_id}", self._unregister)
            router.add_post("/admin/rotate", self._rotate)
        return application

    async def _discovery(self, _request: web.Request) -> web.Response:
        """OpenID Connect Discovery 1.0 §3 and RFC 8414 §2; no authorization_endpoint, since no grant of ours uses one."""
        url = self._issuer.url
        document = {
            "issuer": url,
            "jwks_uri": f"{url}/jwks",
            "token_endpoint": f"{url}/token",
            "grant_types_supported": [GRANT_TYPE],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": list(AUTHENTICATION_METHODS),
            "claims_supported": ["iss", "sub", "aud", "client_id", "iat", "nbf", "exp", "jti", "tenant", "roles", "accounts"],
        }
        if self._operator_token is not None:
            document["registration_endpoint"] = f"{url}/register"
        return web.json_response(document, headers={"Cache-Control": "public, max-age=300"})

    async def _jwks(self, _request: web.Request) -> web.Response:
        document = {"keys": [key.jwk() for key in self._keys.published()]}
        return web.json_response(document, headers={"Cache-Control": f"public, max-age={self._jwks_max_age_seconds}"})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "serving", "clients": len(self._registry)}, headers=_NO_STORE)

    async def _token(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        credentials = read_credentials(request.headers.get("Authorization"), form)
        client = await self._authenticate(credentials)
        grant = form.get("grant_type")
        if grant is None:
            raise OAuthError("invalid_request", "grant_type is required")
        if grant != GRANT_TYPE:
            raise OAuthError("unsupported_grant_type", f"only {GRANT_TYPE} is supported")
        try:
            roles = narrow_roles(client, form.get("scope"))
        except ScopeError as error:
            raise OAuthError("invalid_scope", str(error)) from None
        token = self._issuer.issue(client, roles)
        _log.info("token issued", extra={"fields": {"client_id": client.client_id, "tenant": client.tenant, "roles": " ".join(roles)}})
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self._issuer.token_seconds, "scope": " ".join(roles)}
        return web.json_response(answer, headers=_NO_STORE)

    async def _authenticate(self, credentials: Credentials) -> Client:
        client = self._registry.find(credentials.client_id)
        self._limit(_UNKNOWN if client is None else client.client_id)
        right = await self._verify(credentials.secret, self._nobody if client is None else client.secret_hash)
        if client is None or not right:
            _log.warning("client refused", extra={"fields": {"client_id": credentials.client_id[:64], "known": client is not None}})
            raise invalid_client("the client is unknown or its secret is wrong")
        return client

    def _limit(self, name: str) -> None:
        wait_seconds = self._rates.wait_seconds(name)
        if wait_seconds:
            raise _overloaded("too many requests of this client", wait_seconds)

    async def _verify(self, secret: str, secret_hash: str) -> bool:
        if self._hashes_waiting >= _HASHES_WAITING_MAX:
            raise _overloaded("too many requests at once", 1)
        self._hashes_waiting += 1
        try:
            async with self._hashing:
                return await asyncio.to_thread(verify_secret, secret, secret_hash)
        finally:
            self._hashes_waiting -= 1

    async def _register(self, request: web.Request) -> web.Response:
        """RFC 7591 §3.1, with `tenant`, `roles` and `accounts` beside the standard's metadata."""
        assert self._operator_token is not None
        require_bearer(request, self._operator_token)
        self._limit(_REGISTRATION)
        metadata = await _read_metadata(request)
        client_id, secret, registration_token = self._registry.new_id(metadata.get("client_name")), make_secret(), make_secret()
        method = metadata.get("token_endpoint_auth_method", AUTHENTICATION_METHODS[0])
        issued_at = self._clock.now_ns() // 1_000_000_000
        try:
            self._registry.require_room()
            draft = describe(metadata, client_id, secret_hash="", issued_at=issued_at)
            async with self._hashing:
                secret_hash, registration_hash = await asyncio.to_thread(lambda: (hash_secret(secret), hash_secret(registration_token)))
            client = replace(draft, secret_hash=secret_hash, registration_hash=registration_hash)
            self._registry.add(client)
        except ClientError as error:
            raise OAuthError("invalid_client_metadata", str(error)) from None
        except RegistryFullError as error:
            raise OAuthError("temporarily_unavailable", str(error), status=503) from None
        _log.info("client registered", extra={"fields": {"client_id": client_id, "tenant": client.tenant}})
        answer = {
            "client_id": client_id,
            "client_secret": secret,
            "client_id_issued_at": issued_at,
            "client_secret_expires_at": 0,
            "client_name": client.client_name,
            "grant_types": [GRANT_TYPE],
            "token_endpoint_auth_method": method,
            "tenant": client.tenant,
            "roles": list(client.roles),
            "accounts": list(client.accounts),
            "registration_access_token": registration_token,
            "registration_client_uri": f"{self._issuer.url}/register/{client_id}",
        }
        return web.json_response(answer, status=201, headers=_NO_STORE)

    async def _unregister(self, request: web.Request) -> web.Response:
        """RFC 7592 §2.3, with the registration access token or the operator's."""
        assert self._operator_token is not None
        token = read_bearer(request)
        client = self._registry.find(request.match_info["client_id"])
        known = client is not None and client.registration_hash != ""
        self._limit(_UNKNOWN if client is None else client.client_id)
        right = await self._verify(token, client.registration_hash if client is not None and known else self._nobody)
        if not right:
            require_bearer(request, self._operator_token)
        if client is None or not known:
            # RFC 7592 §2.3: 401, so that nobody learns which ids there are.
            raise invalid_token("no registered client has this id and token")
        self._registry.remove(client.client_id)
        _log.info("client unregistered", extra={"fields": {"client_id": client.client_id, "tenant": client.tenant}})
        return web.Response(status=204, headers=_NO_STORE)

    async def _rotate(self, request: web.Request) -> web.Response:
        assert self._operator_token is not None
        require_bearer(request, self._operator_token)
        key = self._keys.rotate()
        return web.json_response({"kid": key.kid, "signs_from": key.signs_from}, headers=_NO_STORE)


async def _read_metadata(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise OAuthError("invalid_client_metadata", "the body must be application/json")
    try:
        metadata = parse_object(await request.read())
    except ValueError as error:
        raise OAuthError("invalid_client_metadata", f"the body is {error}") from None
    if metadata.get("grant_types", [GRANT_TYPE]) != [GRANT_TYPE]:
        raise OAuthError("invalid_client_metadata", f"grant_types: only [{json.dumps(GRANT_TYPE)}] is supported")
    if metadata.get("token_endpoint_auth_method", AUTHENTICATION_METHODS[0]) not in AUTHENTICATION_METHODS:
        raise OAuthError("invalid_client_metadata", f"token_endpoint_auth_method: must be one of {', '.join(AUTHENTICATION_METHODS)}")
    return metadata


def _overloaded(description: str, wait_seconds: int) -> OAuthError:
    return OAuthError("temporarily_unavailable", description, status=429, headers={"Retry-After": str(wait_seconds)})


@web.middleware
async def _answer_refusals(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    try:
        return await handler(request)
    except OAuthError as error:
        return _refusal(error.error, error.description, error.status, error.headers)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _refusal(_REFUSAL.get(error.status, "invalid_request"), error.reason, error.status, headers)
    except OSError:
        _log.exception("the data directory could not be written")
        return _refusal("server_error", "the issuer cannot write its data; nothing was done", 503, {})


def _refusal(error: str, description: str, status: int, headers: dict[str, str]) -> web.Response:
    # RFC 6749 §5.2 admits visible ASCII but quote and backslash in a description.
    visible = "".join(character if _VISIBLE.fullmatch(character) else "'" for character in description)
    return web.json_response({"error": error, "error_description": visible}, status=status, headers={**_NO_STORE, **headers})
