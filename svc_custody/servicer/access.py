"""Who may see and move what.

Everybody acts for the accounts that the token lists, operations too. A foreign account is refused in the same words whether it exists or
not, before anything else is said about it. What concerns all tenants is for the tenant that runs the firm.
"""

from __future__ import annotations

from typing import Protocol

from kernel.errors import NotFoundError, PermissionDeniedError, Reason
from kernel.identity import User

VIEWER, TRADER, RISK_OFFICER, OPERATIONS, COMPLIANCE = "viewer", "trader", "risk-officer", "operations", "compliance"
READERS = (VIEWER, TRADER, RISK_OFFICER, OPERATIONS, COMPLIANCE)


class Accounts(Protocol):
    """Whose accounts are."""

    async def tenant_of(self, account_id: str) -> str | None:
        """Return an account's tenant, None for an unknown one."""
        ...


class Access:
    """The rights of users. `firm_tenant` is the tenant that runs the firm."""

    def __init__(self, accounts: Accounts, firm_tenant: str) -> None:
        self._accounts = accounts
        self._firm_tenant = firm_tenant

    async def require_account(self, user: User, account_id: str) -> None:
        """Check that a user may act for an account, and that it is known.

        Raises:
            PermissionDeniedError: ACCOUNT_NOT_ALLOWED, the token does not list it or it is another tenant's.
            NotFoundError: ACCOUNT_NOT_FOUND, svc_risk has told of no such account (yet).
        """
        user.require_account(account_id)
        tenant = await self._accounts.tenant_of(account_id)
        metadata = {"resource_type": "account", "resource_name": account_id[:64]}
        if tenant is None:
            raise NotFoundError(Reason.ACCOUNT_NOT_FOUND, "custody knows nothing of the account", metadata=metadata)
        if tenant != user.tenant:
            raise PermissionDeniedError(Reason.ACCOUNT_NOT_ALLOWED, "the account is not one of the caller's", metadata=metadata)

    def require_firm(self, user: User, what: str) -> None:
        """Check that a user acts for the firm.

        Raises:
            PermissionDeniedError: ROLE_REQUIRED.
        """
        if user.tenant != self._firm_tenant:
            raise PermissionDeniedError(Reason.ROLE_REQUIRED, f"{what} is for the tenant that runs the firm")

    def tenant_in_view(self, user: User) -> str | None:
        """Return whose ledgers a user's trial balance adds up; None for all."""
        return None if user.tenant == self._firm_tenant else user.tenant
