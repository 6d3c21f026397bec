"""An account's risk as clients see it."""

from __future__ import annotations

from dataclasses import dataclass

from svc_risk.domain.administration import Limit
from svc_risk.domain.exposure import AccountExposure, InstrumentExposure
from svc_risk.domain.vocabulary import LimitType


@dataclass(frozen=True, slots=True)
class RiskState:
    """An account's exposure at the prices of the moment, its positions by instrument, and its own or default limits."""

    account: AccountExposure
    positions: dict[str, InstrumentExposure]
    limits: list[Limit]

    @property
    def in_breach(self) -> bool:
        """Say whether the account stands above one of its exposure limits."""
        values = {limit.type: limit.value for limit in self.limits}
        open_limit, gross_limit = values.get(LimitType.OPEN_EXPOSURE), values.get(LimitType.GROSS_EXPOSURE)
        return (open_limit is not None and self.account.open_notional > open_limit) or (
            gross_limit is not None and self.account.gross > gross_limit
        )
