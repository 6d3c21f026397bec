"""Errors survive the way over the wire, and never outgrow it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
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
    StaleVersionError,
    TrademeshError,
    UnauthenticatedError,
    UnavailableError,
)
from kernel.status import DETAILS_BYTES_MAX, DETAILS_KEY, from_rpc_error, from_status, status_code, to_status

CLASSES: list[tuple[type[TrademeshError], grpc.StatusCode]] = [
    (InvalidArgumentError, grpc.StatusCode.INVALID_ARGUMENT),
    (FailedPreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (PermissionDeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (AlreadyExistsError, grpc.StatusCode.ALREADY_EXISTS),
    (AbortedError, grpc.StatusCode.ABORTED),
    (ResourceExhaustedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DeadlineExceededError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (OutcomeUnknownError, grpc.StatusCode.UNKNOWN),
    (InternalError, grpc.StatusCode.INTERNAL),
]


@pytest.mark.parametrize(("cls", "code"), CLASSES)
def test_each_class_comes_back_as_itself(cls: type[TrademeshError], code: grpc.StatusCode) -> None:
    error = cls(
        Reason.OVERLOADED,
        "a sentence",
        field_violations=[FieldViolation("orders[2].limit_price", "decimal.canonical", "must be …")],
        metadata={"resource_type": "order", "resource_name": "x", "key": "value"},
        retry_after_seconds=1.25,
    )
    status = to_status(error)
    assert status.code == code.value[0] == status_code(error).value[0]
    back = from_status(status)
    assert type(back) is cls
    assert back is not None
    assert (back.reason, back.message, back.metadata, back.retry_after_seconds) == (
        error.reason,
        error.message,
        error.metadata,
        error.retry_after_seconds,
    )
    assert back.field_violations == error.field_violations


def test_every_class_of_the_kernel_has_a_code() -> None:
    def subclasses(cls: type[TrademeshError]) -> set[type[TrademeshError]]:
        return {cls, *(deeper for sub in cls.__subclasses__() for deeper in subclasses(sub))}

    direct = {cls for cls in subclasses(TrademeshError) - {TrademeshError} if TrademeshError in cls.__bases__}
    mapped = {cls for cls, _ in CLASSES}
    assert {cls.__name__ for cls in direct - mapped if cls.__module__ == "kernel.errors"} == set()


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (FailedPreconditionError(Reason.ORDER_TERMINAL, "x"), error_details_pb2.PreconditionFailure),
        (ResourceExhaustedError(Reason.OVERLOADED, "x", retry_after_seconds=0), error_details_pb2.QuotaFailure),
        (ResourceExhaustedError(Reason.OVERLOADED, "x", retry_after_seconds=0), error_details_pb2.RetryInfo),
        (NotFoundError(Reason.ORDER_NOT_FOUND, "x", metadata={"resource_type": "order"}), error_details_pb2.ResourceInfo),
        (InvalidArgumentError(Reason.FIELD_INVALID, "x", field_violations=[FieldViolation("a", "b", "c")]), error_details_pb2.BadRequest),
        (StaleVersionError("order-1", 1, 2), error_details_pb2.ErrorInfo),
    ],
)
def test_each_class_has_its_detail(error: TrademeshError, detail: Any) -> None:
    assert any(item.Is(detail.DESCRIPTOR) for item in to_status(error).details)


def test_an_unknown_method_is_unimplemented() -> None:
    assert status_code(NotFoundError(Reason.METHOD_NOT_FOUND, "x")) is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError(
            Reason.FIELD_INVALID, "x" * 10_000, field_violations=[FieldViolation("f" * 500, "r" * 500, "d" * 5_000)] * 500
        ),
        FailedPreconditionError(Reason.ORDER_TERMINAL, "é" * 10_000, metadata={f"key-{n}" * 50: "v" * 10_000 for n in range(100)}),
    ],
)
def test_details_are_bounded(error: TrademeshError) -> None:
    status = to_status(error)
    assert status.ByteSize() <= DETAILS_BYTES_MAX
    back = from_status(status)
    assert type(back) is type(error)
    assert back is not None
    assert back.reason is error.reason


def test_omitted_violations_are_counted() -> None:
    violations = [FieldViolation(f"orders[{n}].quantity", "decimal.positive", "d" * 200) for n in range(100)]
    back = from_status(to_status(InvalidArgumentError(Reason.FIELD_INVALID, "x", field_violations=violations)))
    assert back is not None
    assert len(back.field_violations) + int(back.metadata["violations_omitted"]) == 100


def test_a_newer_services_reason_keeps_its_class() -> None:
    status = to_status(AbortedError(Reason.VERSION_STALE, "x"))
    info = error_details_pb2.ErrorInfo(domain="trademesh", reason="INVENTED_LATER")
    status.details[0].Pack(info)
    back = from_status(status)
    assert isinstance(back, AbortedError)
    assert back.metadata == {"reason": "INVENTED_LATER"}


def test_another_systems_status_is_not_ours() -> None:
    status = status_pb2.Status(code=14, message="upstream connect error")
    assert from_status(status) is None
    status.details.add().Pack(error_details_pb2.ErrorInfo(domain="googleapis.com", reason="X"))
    assert from_status(status) is None


def bare(code: grpc.StatusCode, details: str = "", trailers: Any = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


@pytest.mark.parametrize(
    ("code", "details", "write", "read"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", OutcomeUnknownError, UnavailableError),
        (grpc.StatusCode.UNAVAILABLE, "connections to all backends failing; last error: …", UnavailableError, UnavailableError),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; …", UnavailableError, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", OutcomeUnknownError, DeadlineExceededError),
        (grpc.StatusCode.CANCELLED, "", OutcomeUnknownError, UnavailableError),
        (grpc.StatusCode.INTERNAL, "", OutcomeUnknownError, InternalError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", ResourceExhaustedError, ResourceExhaustedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", OutcomeUnknownError, InternalError),
        (grpc.StatusCode.PERMISSION_DENIED, "RBAC: access denied", PermissionDeniedError, PermissionDeniedError),
        (grpc.StatusCode.UNIMPLEMENTED, "", NotFoundError, NotFoundError),
    ],
)
def test_a_proxys_status_tells_no_more_than_it_knows(
    code: grpc.StatusCode, details: str, write: type[TrademeshError], read: type[TrademeshError]
) -> None:
    assert type(from_rpc_error(bare(code, details), dependency="svc-risk", repeatable=False)) is write
    assert type(from_rpc_error(bare(code, details), dependency="svc-risk", repeatable=True)) is read


def test_garbled_details_are_as_good_as_none() -> None:
    error = bare(grpc.StatusCode.UNAVAILABLE, "x", ((DETAILS_KEY, b"\xff\xff"),))
    assert isinstance(from_rpc_error(error, dependency="svc-risk", repeatable=False), OutcomeUnknownError)
