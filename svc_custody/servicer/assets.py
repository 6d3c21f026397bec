"""Which assets a request may name."""

from __future__ import annotations

import re
from typing import Protocol

from kernel.errors import FieldViolation, InvalidArgumentError, NotFoundError, Reason
from svc_custody.domain.vocabulary import Asset, AssetType

_CURRENCY = re.compile(r"[A-Z]{3,8}", re.ASCII)


class Instruments(Protocol):
    """Which instruments there are."""

    async def instrument_known(self, instrument_id: str) -> bool:
        """Say whether svc_risk has told an instrument."""
        ...


class Assets:
    """Checks what a request names."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    async def check(self, asset: Asset, *, known: bool) -> None:
        """Check that an asset is a currency, or an instrument; that the instrument exists where `known` is asked for.

        Raises:
            InvalidArgumentError: FIELD_INVALID, the asset id is no currency.
            NotFoundError: INSTRUMENT_NOT_FOUND.
        """
        if asset.type is AssetType.CASH:
            if _CURRENCY.fullmatch(asset.asset_id) is None:
                text = "must be a currency of 3 to 8 upper-case letters"
                violation = FieldViolation("asset_id", "currency.pattern", text)
                raise InvalidArgumentError(Reason.FIELD_INVALID, f"asset_id: {text}", field_violations=(violation,))
        elif known and not await self._instruments.instrument_known(asset.asset_id):
            metadata = {"resource_type": "instrument", "resource_name": asset.asset_id}
            raise NotFoundError(Reason.INSTRUMENT_NOT_FOUND, "no such instrument", metadata=metadata)
