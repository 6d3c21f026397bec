"""Who may see and change what.

Administrators and risk officers act for every account of their own tenant; traders and viewers for the accounts that their token lists.
What binds more than one tenant (default limits, limits of traders and instruments, firm-wide switches, instruments themselves) is for the
tenant that runs the firm. Foreign and unknown accounts are refused in the same words, before anything else is said about them.
"""

from __future__ import annotations

from kernel.errors import PermissionDeniedError, Reason
from kernel.identity import User
from svc_risk.domain.policy import Account
from svc_risk.domain.vocabulary import ANY, KillSwitchScope, LimitScope
from svc_risk.store.reads import Viewer

ADMIN, RISK_OFFICER, TRADER, VIEWER = "admin", "risk-officer", "trader", "viewer"
READERS = (VIEWER, TRADER, RISK_OFFICER, ADMIN)
_WHOLE_TENANT = frozenset({ADMIN, RISK_OFFICER})


class Access:
    """The rights of users. `firm_tenant` is the tenant that runs the firm."""

    def __init__(self, firm_tenant: str) -> None:
        self._firm_tenant = firm_tenant

    def viewer(self, user: User) -> Viewer:
        """Return what a user may see."""
        whole = not _WHOLE_TENANT.isdisjoint(user.roles)
        return Viewer(user.tenant, user.principal, user.accounts, whole, whole and user.tenant == self._firm_tenant)

    def require_account(self, user: User, account_id: str, account: Account | None) -> Account:
        """Return the account if it exists for this user.

        Raises:
            PermissionDeniedError: ACCOUNT_NOT_ALLOWED.
        """
        listed = account_id in user.accounts or not _WHOLE_TENANT.isdisjoint(user.roles)
        if account is None or account.tenant != user.tenant or not listed:
            raise PermissionDeniedError(
                Reason.ACCOUNT_NOT_ALLOWED,
                "the account is not one of the caller's",
                metadata={"resource_type": "account", "resource_name": account_id[:64]},
            )
        return account

    def require_firm(self, user: User, what: str) -> None:
        """Check that a user acts for the firm.

        Raises:
            PermissionDeniedError: ROLE_REQUIRED.
        """
        if user.tenant != self._firm_tenant:
            raise PermissionDeniedError(Reason.ROLE_REQUIRED, f"{what} is for the tenant that runs the firm")

    def require_limit(self, user: User, scope: LimitScope, scope_id: str) -> None:
        """Check that a user may set a limit that is not one account's own; those are checked with the account.

        Raises:
            PermissionDeniedError: ROLE_REQUIRED.
        """
        if scope is not LimitScope.ACCOUNT or scope_id == ANY:
            self.require_firm(user, f"a limit of {scope.name.lower()}/{scope_id}")

    def require_switch(self, user: User, scope: KillSwitchScope, scope_id: str) -> None:
        """Check that a user may change a kill switch that is not one account's; those are checked with the account.

        Raises:
            PermissionDeniedError: ROLE_REQUIRED.
        """
        own = scope is KillSwitchScope.ACCOUNT or (scope is KillSwitchScope.TENANT and scope_id == user.tenant)
        if not own:
            self.require_firm(user, f"a kill switch of {scope.name.lower()}/{scope_id}")
