"""Who may see what: a report is its owner's, for as long as the token lists every account that it shows.

Foreign, unknown and deleted reports are refused in the same words. So are foreign accounts and accounts of other tenants, before anything
else is said about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kernel.errors import NotFoundError, PermissionDeniedError, Reason
from kernel.identity import User
from svc_reporting.codec.reports import OPERATION_PREFIX, Report, operation_name
from svc_reporting.store.reports import Owner

VIEWER, TRADER, COMPLIANCE = "viewer", "trader", "compliance"
ROLES = (VIEWER, TRADER, COMPLIANCE)


def owner_of(user: User) -> Owner:
    """Return whose reports a user's are."""
    return Owner(user.tenant, user.principal)


def require_accounts(user: User, account_ids: Iterable[str]) -> None:
    """Check that the token lists each account.

    Raises:
        PermissionDeniedError: ACCOUNT_NOT_ALLOWED.
    """
    for account_id in account_ids:
        user.require_account(account_id)


def own_accounts(user: User, asked: Iterable[str], tenants: Mapping[str, str]) -> tuple[str, ...]:
    """Return the accounts of a report, ascending: those asked for, or all of the token's that are the tenant's where none are.

    Args:
        user: who asks; the token lists what is asked for.
        asked: the accounts of the request.
        tenants: the tenant of each account that is known.

    Raises:
        PermissionDeniedError: ACCOUNT_NOT_ALLOWED, one is another tenant's.
        NotFoundError: ACCOUNT_NOT_FOUND, one is not known yet, or the token lists none that is.
    """
    named = sorted(set(asked))
    for account_id in named:
        if tenants.get(account_id, user.tenant) != user.tenant:
            raise PermissionDeniedError(
                Reason.ACCOUNT_NOT_ALLOWED,
                "the account is not one of the caller's",
                metadata={"resource_type": "account", "resource_name": account_id},
            )
    unknown = [account_id for account_id in named if account_id not in tenants]
    found = named or sorted(account_id for account_id in user.accounts if tenants.get(account_id) == user.tenant)
    if unknown or not found:
        name = unknown[0] if unknown else ""
        raise NotFoundError(
            Reason.ACCOUNT_NOT_FOUND,
            f"nothing is known of account {name}" if name else "nothing is known of any account of the token",
            metadata={"resource_type": "account", "resource_name": name},
        )
    return tuple(found)


def require_report(user: User, report_id: str, report: Report | None) -> Report:
    """Return a report that exists for this user.

    Raises:
        NotFoundError: REPORT_NOT_FOUND.
        PermissionDeniedError: ACCOUNT_NOT_ALLOWED, the token no longer lists one of its accounts.
    """
    if report is None:
        raise NotFoundError(
            Reason.REPORT_NOT_FOUND, "no such report of the caller", metadata={"resource_type": "report", "resource_name": report_id}
        )
    require_accounts(user, report.parameters.account_ids)
    return report


def require_operation(user: User, report_id: str, report: Report | None) -> Report:
    """Return the report of an operation that exists for this user.

    Raises:
        NotFoundError: OPERATION_NOT_FOUND.
        PermissionDeniedError: ACCOUNT_NOT_ALLOWED, the token no longer lists one of its accounts.
    """
    if report is None:
        name = operation_name(report_id)
        raise NotFoundError(
            Reason.OPERATION_NOT_FOUND, "no such operation of the caller", metadata={"resource_type": "operation", "resource_name": name}
        )
    require_accounts(user, report.parameters.account_ids)
    return report


def report_of(operation: str) -> str:
    """Return the report whose operation has this name; a name of another form is kept, and finds nothing."""
    return operation.removeprefix(OPERATION_PREFIX)
