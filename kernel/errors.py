"""Domain errors: what went wrong, in words that know no transport.

Every refusal of Trademesh is one of these. `kernel/status.py` alone turns them into `google.rpc.Status`.
Each class stands for one status class, so a caller catches by what can be done about it; `Reason` says which rule refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """Why something was refused; equal by name to `trademesh.error.v1.ErrorReason` without its prefix (a contract test compares them)."""

    FIELD_INVALID = "FIELD_INVALID"
    FIELD_UNKNOWN = "FIELD_UNKNOWN"
    PRICE_OFF_TICK = "PRICE_OFF_TICK"
    QUANTITY_OFF_LOT = "QUANTITY_OFF_LOT"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"  # noqa: S105 (a reason, no secret)
    RESUME_TOKEN_INVALID = "RESUME_TOKEN_INVALID"  # noqa: S105 (a reason, no secret)
    UPDATE_MASK_INVALID = "UPDATE_MASK_INVALID"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    JSON_INVALID = "JSON_INVALID"
    CONTENT_TYPE_UNSUPPORTED = "CONTENT_TYPE_UNSUPPORTED"

    PEER_UNAUTHENTICATED = "PEER_UNAUTHENTICATED"
    USER_UNAUTHENTICATED = "USER_UNAUTHENTICATED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 (a reason, no secret)
    PEER_NOT_ALLOWED = "PEER_NOT_ALLOWED"
    ROLE_REQUIRED = "ROLE_REQUIRED"
    ACCOUNT_NOT_ALLOWED = "ACCOUNT_NOT_ALLOWED"
    TICKET_INVALID = "TICKET_INVALID"
    ORIGIN_NOT_ALLOWED = "ORIGIN_NOT_ALLOWED"

    ORDER_NOT_FOUND = "ORDER_NOT_FOUND"
    INSTRUMENT_NOT_FOUND = "INSTRUMENT_NOT_FOUND"
    LIMIT_NOT_FOUND = "LIMIT_NOT_FOUND"
    KILL_SWITCH_NOT_FOUND = "KILL_SWITCH_NOT_FOUND"
    METHOD_NOT_FOUND = "METHOD_NOT_FOUND"
    SETTLEMENT_NOT_FOUND = "SETTLEMENT_NOT_FOUND"
    HOLD_NOT_FOUND = "HOLD_NOT_FOUND"
    REPORT_NOT_FOUND = "REPORT_NOT_FOUND"
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"

    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"

    VERSION_STALE = "VERSION_STALE"

    ORDER_TERMINAL = "ORDER_TERMINAL"
    ORDER_REQUEST_PENDING = "ORDER_REQUEST_PENDING"
    ORDER_ABANDONED = "ORDER_ABANDONED"
    REPLACE_INVALID = "REPLACE_INVALID"
    ORDER_STATE_UNKNOWN = "ORDER_STATE_UNKNOWN"
    INSUFFICIENT_CASH = "INSUFFICIENT_CASH"
    INSUFFICIENT_SECURITIES = "INSUFFICIENT_SECURITIES"
    SETTLEMENT_STATE_INVALID = "SETTLEMENT_STATE_INVALID"
    HOLD_STATE_INVALID = "HOLD_STATE_INVALID"
    SANDBOX_ONLY = "SANDBOX_ONLY"
    REPORT_NOT_READY = "REPORT_NOT_READY"

    OVERLOADED = "OVERLOADED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"

    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    RISK_UNAVAILABLE = "RISK_UNAVAILABLE"
    REFERENCE_PRICE_STALE = "REFERENCE_PRICE_STALE"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    DEADLINE_EXPIRED = "DEADLINE_EXPIRED"
    MARKET_DATA_STALE = "MARKET_DATA_STALE"

    INTERNAL = "INTERNAL"

    KILL_SWITCH_ACTIVE = "KILL_SWITCH_ACTIVE"
    ACCOUNT_NOT_ACTIVE = "ACCOUNT_NOT_ACTIVE"
    INSTRUMENT_NOT_ACTIVE = "INSTRUMENT_NOT_ACTIVE"
    MARKET_CLOSED = "MARKET_CLOSED"
    MAX_QUANTITY_EXCEEDED = "MAX_QUANTITY_EXCEEDED"
    MAX_NOTIONAL_EXCEEDED = "MAX_NOTIONAL_EXCEEDED"
    PRICE_COLLAR_BREACHED = "PRICE_COLLAR_BREACHED"
    OPEN_EXPOSURE_EXCEEDED = "OPEN_EXPOSURE_EXCEEDED"
    GROSS_EXPOSURE_EXCEEDED = "GROSS_EXPOSURE_EXCEEDED"
    MESSAGE_RATE_EXCEEDED = "MESSAGE_RATE_EXCEEDED"
    DUPLICATE_ORDER = "DUPLICATE_ORDER"
    LIMIT_NOT_SET = "LIMIT_NOT_SET"

    VENUE_REJECTED = "VENUE_REJECTED"
    NOT_SENT_IN_TIME = "NOT_SENT_IN_TIME"
    KILLED_BEFORE_SEND = "KILLED_BEFORE_SEND"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its path (`orders[2].limit_price`), the rule it broke (`decimal.canonical`) and a sentence for people."""

    field: str
    rule: str
    description: str


class TrademeshError(Exception):
    """A refusal with a machine-readable reason.

    Args:
        reason: which rule refused.
        message: one sentence for people; never a secret, never a whole payload.
        field_violations: for errors of form, every bad field at once.
        metadata: short string facts for machines, e.g. `{"stream_id": …, "actual_version": "3"}`.
        retry_after_seconds: when a retry may help, the earliest moment for it; 0 or more.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field_violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        if retry_after_seconds is not None and retry_after_seconds < 0:
            raise ValueError(f"retry_after_seconds must not be negative: {retry_after_seconds}")
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field_violations = tuple(field_violations)
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason.value}, {self.message!r})"

    def __copy__(self) -> Self:
        """Return an equal error without traceback: one failed batch is raised in many callers."""
        duplicate = type(self).__new__(type(self), *self.args)
        duplicate.__dict__.update(self.__dict__)
        duplicate.__cause__ = self.__cause__
        return duplicate


class InvalidArgumentError(TrademeshError):
    """The request is malformed whatever the state of the system; do not retry."""


class FailedPreconditionError(TrademeshError):
    """The request is well formed, but the state forbids it (a terminal order, a closed market); do not retry unchanged."""


class PermissionDeniedError(TrademeshError):
    """The caller is known and may not do this; checked before existence, so it reveals nothing."""


class UnauthenticatedError(TrademeshError):
    """The caller did not prove who it is."""


class NotFoundError(TrademeshError):
    """The named thing does not exist for this caller."""


class AlreadyExistsError(TrademeshError):
    """The key was used before, for something else."""


class AbortedError(TrademeshError):
    """Somebody else was faster; nothing was persisted. Read again, decide again, retry."""


class StaleVersionError(AbortedError):
    """A commit expected a stream at one version and found it at another.

    Catch it where the command can be decided again on the newer state.
    """

    def __init__(self, stream_id: str, expected_version: int, actual_version: int) -> None:
        super().__init__(
            Reason.VERSION_STALE,
            f"stream {stream_id} is at version {actual_version}, not at {expected_version}",
            metadata={"stream_id": stream_id, "expected_version": str(expected_version), "actual_version": str(actual_version)},
        )
        self.stream_id = stream_id
        self.expected_version = expected_version
        self.actual_version = actual_version


class LeaseLostError(AbortedError):
    """A write under a lease that this process no longer holds; nothing was persisted. Close what the lease protects."""

    def __init__(self, name: str, epoch: int) -> None:
        super().__init__(Reason.VERSION_STALE, f"lease {name} is not held at epoch {epoch}", metadata={"lease": name, "epoch": str(epoch)})


class ResourceExhaustedError(TrademeshError):
    """A bound was reached (queue, rate, connections); nothing was persisted. Retry after `retry_after_seconds`."""


class DeadlineExceededError(TrademeshError):
    """The caller's deadline passed before the work began; nothing was persisted."""


class UnavailableError(TrademeshError):
    """A part that is needed does not answer; nothing was persisted. Retry with the same key."""


class OutcomeUnknownError(TrademeshError):
    """The commit was sent and its answer was lost: it may or may not have happened. Look the key up; never guess."""


class InternalError(TrademeshError):
    """A bug or a broken invariant of ours."""
