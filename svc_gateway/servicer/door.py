"""Who comes in over HTTP, and how refusals look: `google.rpc.Status` as JSON, always."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from aiohttp import web

from kernel.errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    Reason,
    TrademeshError,
    UnauthenticatedError,
)
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, Authenticator, Identity
from kernel.status import status_code, to_status
from svc_gateway.codec.frames import status_json

EDGE = "edge"
AUTHORIZATION_LENGTH_MAX = 12 * 1024

_HTTP_STATUS: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""As google.rpc.Code maps them; anything else is 500."""

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Doorkeeper:
    """Admits requests that came through the instance's own sidecar, from the edge."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def admit(self, request: web.Request) -> Identity:
        """Return who asks; the user is None where no token came.

        Raises:
            UnauthenticatedError: PEER_UNAUTHENTICATED, USER_UNAUTHENTICATED or TOKEN_EXPIRED, as for gRPC.
            PermissionDeniedError: PEER_NOT_ALLOWED, another workload than the edge.
        """
        return self._identify(request, _single(request, CLAIMS_HEADER))

    def admit_claims(self, request: web.Request, claims: str) -> Identity:
        """Return who asks where the claims come from a ticket instead of a header.

        Raises:
            UnauthenticatedError: as `admit`.
        """
        return self._identify(request, claims)

    def _identify(self, request: web.Request, claims: str) -> Identity:
        identity = self._authenticator.authenticate(_single(request, SECRET_HEADER), _single(request, PEER_HEADER), claims)
        if identity.peer != EDGE:
            raise PermissionDeniedError(Reason.PEER_NOT_ALLOWED, "only the edge may come here", metadata={"peer": identity.peer})
        return identity

    def authorization(self, request: web.Request) -> str:
        """Return the Authorization header that goes on with every bridged call.

        Raises:
            UnauthenticatedError: USER_UNAUTHENTICATED, there is not exactly one bearer token.
        """
        headers = request.headers.getall("Authorization", [])
        if len(headers) != 1 or not headers[0].lower().startswith("bearer ") or len(headers[0]) > AUTHORIZATION_LENGTH_MAX:
            raise UnauthenticatedError(Reason.USER_UNAUTHENTICATED, "exactly one bearer token is required in the Authorization header")
        return headers[0]


def _single(request: web.Request, name: str) -> str:
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise UnauthenticatedError(Reason.PEER_UNAUTHENTICATED, "identity headers come once each")
    return values[0] if values else ""


def refuse_query(request: web.Request) -> None:
    """Check that nothing stands in the URL's query, where logs and referrers would keep it.

    Raises:
        InvalidArgumentError: FIELD_UNKNOWN; the message names the parameter, never its value.
    """
    names = list(request.query)
    if names:
        what = (
            "a token belongs into the Authorization header or a ticket, never into the URL"
            if "token" in names[0]
            else "no parameter is known"
        )
        raise InvalidArgumentError(Reason.FIELD_UNKNOWN, f"{names[0][:64]}: {what}", metadata={"parameter": names[0][:64]})


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal into JSON, and log each request once, without its query; nothing else leaves this process as an error."""
    began = time.monotonic()
    response = await _answer(request, handler)
    fields: dict[str, Any] = {"method": request.method, "path": request.path[:256], "status": response.status}
    fields["duration_ms"] = round((time.monotonic() - began) * 1_000, 3)
    _log.info("request", extra={"fields": fields})
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except TrademeshError as error:
        return refusal(error)
    except web.HTTPRequestEntityTooLarge:
        return refusal(InvalidArgumentError(Reason.MESSAGE_TOO_LARGE, "the body is longer than this path takes"))
    except web.HTTPMethodNotAllowed as error:
        response = refusal(NotFoundError(Reason.METHOD_NOT_FOUND, "the path knows other methods only"), status=405)
        response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.HTTPNotFound:
        return refusal(NotFoundError(Reason.METHOD_NOT_FOUND, "there is nothing at this path"), status=404)
    except web.HTTPException as error:
        return refusal(InvalidArgumentError(Reason.FIELD_INVALID, error.reason), status=error.status)
    except Exception:  # noqa: BLE001 (the last line before the wire: nobody outside sees a stack trace)
        _log.exception("a request failed")
        return refusal(InternalError(Reason.INTERNAL, "an unexpected error; the logs have it"))


def refusal(error: TrademeshError, *, status: int | None = None) -> web.Response:
    """Return an error as an HTTP answer."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    status = status or _HTTP_STATUS.get(status_code(error), 500)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="trademesh"'
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
    return web.Response(status=status, text=status_json(to_status(error)), content_type="application/json", headers=headers)
