"""How a command ends: the exit code, and what to do next.

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | the order, or the replacement, was refused by risk |
| 2 | the command or a value in it is wrong; nothing was sent, or nothing was done |
| 3 | a part of the mesh cannot be reached or is overloaded; nothing was done |
| 4 | the user may not do this |
| 5 | the state forbids it: not found, a key used before, a stale version, a terminal order |
| 6 | the outcome is not known; ask by key |
| 70 | a defect in a service |
| 130 | interrupted |
"""

from __future__ import annotations

from enum import IntEnum

from kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
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


class Exit(IntEnum):
    """Exit codes of the `trademesh` command."""

    DONE = 0
    REJECTED = 1
    INVALID = 2
    UNAVAILABLE = 3
    DENIED = 4
    STATE = 5
    UNKNOWN = 6
    DEFECT = 70
    INTERRUPTED = 130


_CODES: tuple[tuple[type[TrademeshError], Exit], ...] = (
    (InvalidArgumentError, Exit.INVALID),
    (PermissionDeniedError, Exit.DENIED),
    (UnauthenticatedError, Exit.DENIED),
    (NotFoundError, Exit.STATE),
    (AlreadyExistsError, Exit.STATE),
    (AbortedError, Exit.STATE),
    (FailedPreconditionError, Exit.STATE),
    (ResourceExhaustedError, Exit.UNAVAILABLE),
    (UnavailableError, Exit.UNAVAILABLE),
    (DeadlineExceededError, Exit.UNAVAILABLE),
    (OutcomeUnknownError, Exit.UNKNOWN),
)

_NEXT_BY_REASON = {
    Reason.ACCOUNT_NOT_ALLOWED: "`trademesh accounts list` shows the accounts there are; `--tenant` and `--as` choose whom to act as.",
    Reason.ROLE_REQUIRED: "Choose a role that may do this with --role; the error's metadata names them.",
    Reason.INSTRUMENT_NOT_FOUND: "`trademesh instruments` shows what trades.",
    Reason.PRICE_OFF_TICK: "`trademesh instruments` shows the tick; use a multiple of it.",
    Reason.QUANTITY_OFF_LOT: "`trademesh instruments` shows the lot; use a multiple of it.",
    Reason.IDEMPOTENCY_KEY_REUSED: "The key stands for another command; use a new one.",
    Reason.VERSION_STALE: "It changed meanwhile; read it again and decide again.",
    Reason.ORDER_NOT_FOUND: "`trademesh orders --account ...` shows the orders of an account.",
    Reason.KILL_SWITCH_ACTIVE: "`trademesh kill list` shows what is stopped, and by whom.",
    Reason.DEPENDENCY_UNAVAILABLE: "`trademesh status` shows what runs, `make up` starts it. Then run the command again with its key.",
}
_NEXT_BY_CODE = {
    Exit.INVALID: "Correct the value and run the command again; nothing was done.",
    Exit.UNAVAILABLE: "Nothing was done. `trademesh status` shows what runs; then run the command again, with the same key.",
    Exit.DENIED: "Act as somebody who may: --as, --role, --tenant, --accounts.",
    Exit.UNKNOWN: "It may have happened. Ask by key first: `trademesh get --client-order-id ...`; or repeat it with the same key.",
    Exit.DEFECT: "The service's log says more: `make logs`.",
}


def exit_code(error: TrademeshError) -> Exit:
    """Return the exit code that an error ends the command with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.DEFECT)


def next_step(error: TrademeshError) -> str:
    """Return what a person can do about an error; empty where there is no advice."""
    return _NEXT_BY_REASON.get(error.reason) or _NEXT_BY_CODE.get(exit_code(error), "")
