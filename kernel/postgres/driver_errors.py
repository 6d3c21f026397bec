"""PostgreSQL's and asyncpg's exceptions, mapped once to domain errors."""

from __future__ import annotations

from types import TracebackType

import asyncpg

from kernel.errors import AbortedError, AlreadyExistsError, InternalError, Reason, TrademeshError, UnavailableError

RETRY_SECONDS = 0.1

_CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
# By class of SQLSTATE (PostgreSQL 18, Appendix A): connection, authorisation, resources, operator intervention, system error.
_OUTAGE_CLASSES = frozenset({"08", "28", "53", "57", "58"})
# A server that became read-only (a failover), a transaction or idle session that was cut for its length.
_OUTAGE_STATES = frozenset({"25006", "25P03", "25P04"})


def is_connection_loss(error: BaseException) -> bool:
    """Say whether the connection ended under a command, so that the command's fate is not known from its answer."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] == "08" or state in ("57P01", "57P02", "57P05")
    return isinstance(error, (OSError, asyncpg.InterfaceError, TimeoutError, asyncpg.InternalClientError))


def domain_error(error: Exception) -> TrademeshError:
    """Return the domain error for a driver's exception raised before COMMIT was sent, so nothing was persisted."""
    if isinstance(error, TrademeshError):
        return error
    if isinstance(error, _CONFLICTS):
        return AbortedError(Reason.VERSION_STALE, "another transaction was faster", retry_after_seconds=RETRY_SECONDS)
    if isinstance(error, asyncpg.UniqueViolationError):
        return AlreadyExistsError(
            Reason.RESOURCE_EXISTS, "the key exists", metadata={"constraint": error.constraint_name or "", "table": error.table_name or ""}
        )
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state[:2] in _OUTAGE_CLASSES or state in _OUTAGE_STATES:
            return UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                f"the database cannot serve now (SQLSTATE {state})",
                metadata={"sqlstate": state},
                retry_after_seconds=RETRY_SECONDS,
            )
        return InternalError(Reason.INTERNAL, f"the database refused a statement (SQLSTATE {state})", metadata={"sqlstate": state})
    if is_connection_loss(error):
        return UnavailableError(Reason.DATABASE_UNAVAILABLE, "the database does not answer", retry_after_seconds=RETRY_SECONDS)
    return InternalError(Reason.INTERNAL, f"the database driver failed ({type(error).__name__})")


class mapped_errors:  # noqa: N801 (used as a statement, like contextlib.suppress)
    """Context manager that replaces driver exceptions by domain errors; everything else passes."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)):
            raise domain_error(error) from error
