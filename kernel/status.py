"""The one place where domain errors become `google.rpc.Status` and back (AIP-193).

Going out: the class decides the code, `ErrorInfo` (domain `trademesh`) carries the reason, and the details that the class calls for stand
beside it. Coming in: the same classes, so a caller catches the same error whether the refusal was local or remote.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Reason,
    ResourceExhaustedError,
    TrademeshError,
    UnauthenticatedError,
    UnavailableError,
)

DOMAIN = "trademesh"
DETAILS_KEY = "grpc-status-details-bin"
DETAILS_BYTES_MAX = 4096
"""Bound of a serialized Status: proxies refuse header blocks that grow past 8 KiB, and base64 adds a third."""

_TEXT_MAX = 512
_METADATA_ENTRIES_MAX = 16

_CODES: dict[type[TrademeshError], grpc.StatusCode] = {
    InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    AbortedError: grpc.StatusCode.ABORTED,
    ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    OutcomeUnknownError: grpc.StatusCode.UNKNOWN,
    InternalError: grpc.StatusCode.INTERNAL,
}
_CLASSES = {code.value[0]: cls for cls, code in _CODES.items()}
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_BARE_REASONS: dict[grpc.StatusCode, Reason] = {
    grpc.StatusCode.INVALID_ARGUMENT: Reason.FIELD_INVALID,
    grpc.StatusCode.PERMISSION_DENIED: Reason.PEER_NOT_ALLOWED,
    grpc.StatusCode.UNAUTHENTICATED: Reason.PEER_UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED: Reason.METHOD_NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
}

NEVER_SENT = ("connections to all backends failing", "failed to connect to all addresses")
"""What gRPC core says when no connection was there to send on; a test against real gRPC pins it."""


def status_code(error: TrademeshError) -> grpc.StatusCode:
    """Return the gRPC code of an error; that of its nearest base class, INTERNAL for a class without one."""
    if error.reason is Reason.METHOD_NOT_FOUND:
        return grpc.StatusCode.UNIMPLEMENTED
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    return grpc.StatusCode.INTERNAL


class Refusal(NamedTuple):
    """An error as a gRPC server says it: the call's code, its text and its trailers. `reason` is for logs."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]
    reason: str


def refusal_of(error: TrademeshError) -> Refusal:
    """Return the words for an error. `retry-after` (whole seconds) stands beside the details, for callers that speak HTTP."""
    status = to_status(error)
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if error.retry_after_seconds is not None:
        trailers.append(("retry-after", str(math.ceil(error.retry_after_seconds))))
    return Refusal(status_code(error), status.message, tuple(trailers), error.reason.value)


def to_status(error: TrademeshError) -> status_pb2.Status:
    """Return the error as a Status of at most 4,096 bytes; field violations that do not fit are counted in `violations_omitted`."""
    status = _status(error, error.field_violations)
    kept = len(error.field_violations)
    while status.ByteSize() > DETAILS_BYTES_MAX and kept > 0:
        kept //= 2
        status = _status(error, error.field_violations[:kept])
    if status.ByteSize() > DETAILS_BYTES_MAX:
        del status.details[1:]
    if status.ByteSize() > DETAILS_BYTES_MAX:
        bare = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
        status.details[0].Pack(bare)
    return status


def _status(error: TrademeshError, violations: Iterable[FieldViolation]) -> status_pb2.Status:
    shown = tuple(violations)
    metadata = {key[:64]: value[:_TEXT_MAX] for key, value in list(error.metadata.items())[:_METADATA_ENTRIES_MAX]}
    if len(shown) < len(error.field_violations):
        metadata["violations_omitted"] = str(len(error.field_violations) - len(shown))
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata)]
    if shown:
        details.append(error_details_pb2.BadRequest(field_violations=[_bad_field(violation) for violation in shown]))
    details.extend(_class_details(error))
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_seconds * 1_000_000_000))
        details.append(retry)
    status = status_pb2.Status(code=status_code(error).value[0], message=error.message[:_TEXT_MAX])
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _bad_field(violation: FieldViolation) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(
        field=violation.field[:256], description=violation.description[:_TEXT_MAX], reason=violation.rule[:128]
    )


def _class_details(error: TrademeshError) -> list[Message]:
    """The detail that AIP-193 pairs with a code; its subject comes from the error's `resource_type` and `resource_name`."""
    kind, name = error.metadata.get("resource_type", ""), error.metadata.get("resource_name", "")
    text = error.message[:_TEXT_MAX]
    if isinstance(error, FailedPreconditionError):
        failure = error_details_pb2.PreconditionFailure.Violation(type=error.reason.value, subject=f"{kind}/{name}", description=text)
        return [error_details_pb2.PreconditionFailure(violations=[failure])]
    if isinstance(error, ResourceExhaustedError):
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.metadata.get("subject", DOMAIN), description=text)
        return [error_details_pb2.QuotaFailure(violations=[quota])]
    if kind and isinstance(error, (NotFoundError, PermissionDeniedError, AlreadyExistsError, AbortedError)):
        return [error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name[:256], description=text)]
    return []


def from_status(status: status_pb2.Status) -> TrademeshError | None:
    """Return the error that a Status of this project carries; None when it carries no ErrorInfo of domain `trademesh`."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    has_info = _unpack(status.details, info)
    if not has_info or info.domain != DOMAIN:
        return None
    _unpack(status.details, bad)
    retry_after = retry.retry_delay.ToNanoseconds() / 1_000_000_000 if _unpack(status.details, retry) else None
    metadata = dict(info.metadata)
    if info.reason in Reason.__members__:
        reason = Reason[info.reason]
    else:
        # A newer service's reason: the class still says what can be done about it.
        reason = Reason.INTERNAL
        metadata["reason"] = info.reason
    cls = NotFoundError if status.code == grpc.StatusCode.UNIMPLEMENTED.value[0] else _CLASSES.get(status.code, InternalError)
    violations = tuple(FieldViolation(item.field, item.reason, item.description) for item in bad.field_violations)
    return cls(
        reason,
        status.message,
        field_violations=violations,
        metadata=metadata,
        retry_after_seconds=None if retry_after is None else max(retry_after, 0.0),
    )


def _unpack(details: Iterable[Any], target: Message) -> bool:
    for detail in details:
        if detail.type_url.endswith("/" + target.DESCRIPTOR.full_name):
            try:
                return detail.Unpack(target)
            except DecodeError:
                return False
    return False


def from_rpc_error(error: grpc.aio.AioRpcError, *, dependency: str, repeatable: bool) -> TrademeshError:
    """Return the kernel error behind a failed call.

    Args:
        error: what gRPC raised.
        dependency: the name of the called service, for messages.
        repeatable: the call was a read or is idempotent, so a lost answer means "not available" rather than "outcome unknown".
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                decoded = from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                continue
            if decoded is not None:
                return decoded
    return _from_bare(error.code(), error.details() or "", dependency=dependency, repeatable=repeatable)


def _from_bare(code: grpc.StatusCode, text: str, *, dependency: str, repeatable: bool) -> TrademeshError:
    """A status without our ErrorInfo: a proxy's, or gRPC's own. Without it a write's outcome is unknown, unless it was never sent."""
    metadata = {"dependency": dependency, "grpc_code": code.name}
    never_sent = text.startswith(NEVER_SENT)
    if never_sent:
        metadata["never_sent"] = "true"
    message = f"{dependency}: {code.name}: {text[:200]}"
    if code is grpc.StatusCode.UNAVAILABLE and (repeatable or never_sent):
        return UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, message, metadata=metadata)
    if code in _BARE_REASONS and not text.startswith("Received message larger"):
        cls = NotFoundError if code is grpc.StatusCode.UNIMPLEMENTED else _CLASSES[code.value[0]]
        return cls(_BARE_REASONS[code], message, metadata=metadata)
    if not repeatable:
        return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, message, metadata=metadata)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(Reason.DEADLINE_EXPIRED, message, metadata=metadata)
    if code is grpc.StatusCode.CANCELLED:
        return UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, message, metadata=metadata)
    return InternalError(Reason.INTERNAL, message, metadata=metadata)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """Return the code of a Status, UNKNOWN for a number that gRPC does not know."""
    return _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
