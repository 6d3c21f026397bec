"""What Envoy itself answers, as `google.rpc.Status`: for gRPC in headers, for everybody else as JSON.

An answer of Envoy's own says what is known of the outcome. A request that never left the edge was not carried out; one that left and
was not answered may have been, and nothing here may make it look like the retryable UNAVAILABLE of a service (ARCHITECTURE.md, Errors).
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from kernel.errors import Reason
from kernel.status import DETAILS_KEY, DOMAIN

Json = dict[str, Any]

_CEL = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
_LUA_STATUSES = (400, 405, 413, 415)
RETRY_SECONDS = 1.0
SPREAD = (1.0, 1.25, 1.5, 1.75)
"""What callers who are shed together are told in equal shares, so that they do not come back together."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind of answer of Envoy's own.

    Attributes:
        when: a CEL expression over the response; empty where the flags say enough.
        http: the status for HTTP clients.
        code: of gRPC.
        reason: in ErrorInfo.
        message: one sentence for people.
        grpc_code: for gRPC clients, where theirs is another.
        retry: say when to come back; where there are several moments, each to an equal share of callers.
        explains: end the message with Envoy's own word for it; only where that is about the request.
        headers: further ones.
        flags: Envoy's response flags, one of which has to be set; empty for any.
        internal_status: the status that the refusal comes with, where only the edge itself uses it.
    """

    when: str
    http: int
    code: StatusCode
    reason: Reason
    message: str
    grpc_code: StatusCode | None = None
    retry: tuple[float, ...] = ()
    explains: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()
    internal_status: int | None = None


FULL_HEADER = "x-trademesh-full"
"""Marks, within the edge alone, the refusal of a request for which its pool had no place."""
STILL_FULL_STATUS = 529
"""Stands, within the edge alone, for the refusal of a request that was not even tried, since its pool was full just before."""

_BEARER = (("www-authenticate", "Bearer"),)
_FULL = "the service has as many requests as it takes; nothing was done"
_UNKNOWN_OUTCOME = "the service did not answer; the request may or may not have been carried out: ask by its key"

REFUSALS = (
    # First, and by status or flag alone, because they come in floods and every expression before them would be evaluated for each.
    Refusal(
        "", 429, StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED, _FULL, retry=SPREAD, internal_status=STILL_FULL_STATUS,
    ),
    Refusal(
        "", 429, StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED, _FULL, retry=SPREAD, flags=("UO",), headers=((FULL_HEADER, "1"),),
    ),
    Refusal(
        "response.code_details == 'overload'", 429, StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED,
        "the gateway has as many requests as it takes; nothing was done", retry=SPREAD,
    ),
    Refusal(
        "response.code == 401 && response.code_details.startsWith('jwt_authn_access_denied{Jwt_is_expired')",
        401, StatusCode.UNAUTHENTICATED, Reason.TOKEN_EXPIRED, "the token has expired",
        headers=(("www-authenticate", 'Bearer error="invalid_token", error_description="The token has expired"'),),
    ),
    Refusal(
        "response.code == 401 && response.code_details.startsWith('jwt_authn_access_denied{Jwt_is_missing')",
        401, StatusCode.UNAUTHENTICATED, Reason.USER_UNAUTHENTICATED, "a bearer token is required", headers=_BEARER,
    ),
    Refusal(
        "response.code == 401 || (response.code == 403 && response.code_details.startsWith('jwt_authn_access_denied'))",
        401, StatusCode.UNAUTHENTICATED, Reason.USER_UNAUTHENTICATED, "the token is not one that this door takes",
        headers=(("www-authenticate", 'Bearer error="invalid_token"'),),
    ),
    Refusal(
        "response.code == 403 && response.code_details == 'upgrade_failed'",
        404, StatusCode.NOT_FOUND, Reason.METHOD_NOT_FOUND, "no such upgrade here", grpc_code=StatusCode.UNIMPLEMENTED,
    ),
    Refusal(
        "response.code == 403", 403, StatusCode.PERMISSION_DENIED, Reason.ROLE_REQUIRED, "the user has no role that may call this method"
    ),
    Refusal(
        "response.code == 404", 404, StatusCode.NOT_FOUND, Reason.METHOD_NOT_FOUND, "no such method", grpc_code=StatusCode.UNIMPLEMENTED
    ),
    Refusal(
        "response.code == 408 || response.code_details == 'max_duration_timeout'",
        408, StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXPIRED, "the request did not arrive in time; nothing was done",
    ),
    Refusal("response.code == 413", 413, StatusCode.INVALID_ARGUMENT, Reason.MESSAGE_TOO_LARGE, "the body is longer than the door takes"),
    Refusal(
        "response.code == 431", 431, StatusCode.INVALID_ARGUMENT, Reason.MESSAGE_TOO_LARGE, "the headers are longer than the door takes"
    ),
    Refusal(
        "response.code == 429", 429, StatusCode.RESOURCE_EXHAUSTED, Reason.QUOTA_EXCEEDED, "too many requests; nothing was done",
        retry=(RETRY_SECONDS,),
    ),
    Refusal(
        "response.code == 503", 503, StatusCode.UNAVAILABLE, Reason.DEPENDENCY_UNAVAILABLE,
        "the service cannot be reached; nothing was done", retry=(RETRY_SECONDS,), flags=("UH", "UF"),
    ),
    Refusal("response.code == 504", 504, StatusCode.DEADLINE_EXCEEDED, Reason.OUTCOME_UNKNOWN, _UNKNOWN_OUTCOME),
    Refusal("response.code == 502 || response.code == 503", 503, StatusCode.UNKNOWN, Reason.OUTCOME_UNKNOWN, _UNKNOWN_OUTCOME),
    Refusal(
        "(response.code >= 400 && response.code < 500) || response.code == 501",
        400, StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID, "the request is malformed", explains=True,
    ),
    Refusal("response.code >= 500", 500, StatusCode.INTERNAL, Reason.INTERNAL, "the gateway failed"),
)  # fmt: skip


def local_reply_config() -> Json:
    """Return the connection manager's `local_reply_config`; the first mapper that fits decides."""
    passed = {
        "filter": _expression(f"response.code_details == 'lua_response' && response.code in {list(_LUA_STATUSES)}"),
        "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"},
    }
    floods = [refusal for refusal in REFUSALS if refusal.retry is SPREAD]
    rest = [refusal for refusal in REFUSALS if refusal.retry is not SPREAD]
    return {"mappers": [*_mappers(floods), passed, *_mappers(rest)]}


def _mappers(refusals: list[Refusal]) -> list[Json]:
    return [found for mappers in (_grpc_mappers, _json_mappers) for refusal in refusals for found in mappers(refusal)]


def status(refusal: Refusal, *, grpc: bool, retry_seconds: float | None = None) -> status_pb2.Status:
    """Return what a refusal says, as its Status; with the moment to come back at, unless another one is given, the first."""
    code = refusal.grpc_code if grpc and refusal.grpc_code is not None else refusal.code
    found = status_pb2.Status(code=code.value[0], message=refusal.message)
    found.details.add().Pack(error_details_pb2.ErrorInfo(reason=refusal.reason.value, domain=DOMAIN))
    if refusal.retry:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round((retry_seconds or refusal.retry[0]) * 1_000))
        found.details.add().Pack(retry)
    return found


def _grpc_mappers(refusal: Refusal) -> list[Json]:
    by_grpc = {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}
    # Behind the transcoder a JSON request looks like gRPC, but for what it was before.
    from_start = {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": False}}}
    return [_grpc_mapper(refusal, [by_grpc, from_start, *_conditions(refusal), *share], seconds) for share, seconds in _shares(refusal)]


def _grpc_mapper(refusal: Refusal, conditions: list[Json], retry_seconds: float | None) -> Json:
    found = status(refusal, grpc=True, retry_seconds=retry_seconds)
    details = base64.b64encode(found.SerializeToString()).rstrip(b"=").decode()
    own = (("grpc-status", str(found.code)), (DETAILS_KEY, details))
    return {
        "filter": {"and_filter": {"filters": conditions}},
        "status_code": refusal.http,
        "headers_to_add": _headers(refusal, own, retry_seconds),
        "body_format_override": {"text_format_source": {"inline_string": refusal.message}},
    }


def _json_mappers(refusal: Refusal) -> list[Json]:
    return [_json_mapper(refusal, [*_conditions(refusal), *share], seconds) for share, seconds in _shares(refusal)]


def _json_mapper(refusal: Refusal, conditions: list[Json], retry_seconds: float | None) -> Json:
    body: Json = MessageToDict(status(refusal, grpc=False, retry_seconds=retry_seconds), preserving_proto_field_name=True)
    if refusal.explains:
        body["message"] += ": %RESPONSE_CODE_DETAILS%"
    return {
        "filter": conditions[0] if len(conditions) == 1 else {"and_filter": {"filters": conditions}},
        "status_code": refusal.http,
        "headers_to_add": _headers(refusal, (), retry_seconds),
        "body_format_override": {"json_format": body, "content_type": "application/json"},
    }


def _shares(refusal: Refusal) -> list[tuple[list[Json], float | None]]:
    """A condition for each moment to come back at, and the moment. A share is of those whom the ones before have left."""
    moments = refusal.retry
    if len(moments) < 2:
        return [([], moments[0] if moments else None)]
    return [([_sample(100 // (len(moments) - turn))] if turn < len(moments) - 1 else [], moment) for turn, moment in enumerate(moments)]


def _sample(percent: int) -> Json:
    share = {"numerator": percent, "denominator": "HUNDRED"}
    return {"runtime_filter": {"runtime_key": f"trademesh.spread_{percent}", "percent_sampled": share, "use_independent_randomness": True}}


def _conditions(refusal: Refusal) -> list[Json]:
    flags = [{"response_flag_filter": {"flags": list(refusal.flags)}}] if refusal.flags else []
    return [*_status(refusal), *flags, *([_expression(refusal.when)] if refusal.when else [])]


def _status(refusal: Refusal) -> list[Json]:
    if refusal.internal_status is None:
        return []
    value = {"default_value": refusal.internal_status, "runtime_key": f"trademesh.status_{refusal.internal_status}"}
    return [{"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}]


def _headers(refusal: Refusal, own: tuple[tuple[str, str], ...], retry_seconds: float | None) -> list[Json]:
    retry = () if retry_seconds is None else (("retry-after", str(math.ceil(retry_seconds))),)
    return [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in (*refusal.headers, *retry, *own)
    ]


def _expression(text: str) -> Json:
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": {"@type": _CEL, "expression": text}}}
