"""Who may see an account.

Traders and viewers see the accounts that their token lists, risk officers and compliance every account of their tenant. Foreign and unknown
accounts are refused in the same words, before anything else is said about them.
"""

from __future__ import annotations

from kernel.errors import NotFoundError, PermissionDeniedError, Reason
from kernel.identity import User
from svc_portfolio.store.reference import ReferenceStore

VIEWER, TRADER, RISK_OFFICER, COMPLIANCE = "viewer", "trader", "risk-officer", "compliance"
READERS = (VIEWER, TRADER, RISK_OFFICER, COMPLIANCE)
_WHOLE_TENANT = frozenset({RISK_OFFICER, COMPLIANCE})


class Access:
    """The rights of users."""

    def __init__(self, reference: ReferenceStore) -> None:
        self._reference = reference

    async def require_account(self, user: User, account_id: str) -> None:
        """Check that a user may see an account.

        Raises:
            PermissionDeniedError: ACCOUNT_NOT_ALLOWED.
            NotFoundError: ACCOUNT_NOT_FOUND, the token lists it, but svc_risk has not told of it; whose it is cannot be said.
        """
        if _WHOLE_TENANT.isdisjoint(user.roles):
            user.require_account(account_id)
        tenant = await self._reference.tenant(account_id)
        if tenant is None and account_id in user.accounts:
            raise NotFoundError(Reason.ACCOUNT_NOT_FOUND, f"nothing is known of account {account_id}")
        if tenant != user.tenant:
            raise PermissionDeniedError(
                Reason.ACCOUNT_NOT_ALLOWED,
                "the account is not one of the caller's",
                metadata={"resource_type": "account", "resource_name": account_id[:64]},
            )
